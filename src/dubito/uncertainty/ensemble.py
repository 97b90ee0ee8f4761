"""Deep ensemble: the spread of members that differ in their initial weights.

Lakshminarayanan et al. 2017, https://arxiv.org/abs/1612.01474. The standard deviation is the sample
one (ddof = 1) times one factor, fitted on structures whose labels no gradient has seen:
``factor^2 = mean(error^2) / mean(variance)`` over force components, the maximum-likelihood scale if
all deviations were equal, and robust against single tiny ones. Validation structures among them did
choose when to stop, so the factor is a little small; those of the control slice did not.

The factor comes from forces, of which there are 3N in a structure, and serves energies too, of which there
is one: with a handful of calibration structures an energy factor of its own would be noise.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from dubito.core.errors import ModelError
from dubito.core.files import write_bytes
from dubito.core.logs import get_logger
from dubito.data.prediction import Prediction
from dubito.data.structures import Structures
from dubito.model.potential import Potential

log = get_logger(__name__)
FORMAT = "dubito/uncertainty/ensemble"
# Fewer validation atoms than this give no meaningful factor.
MIN_ATOMS = 8
# A factor outside is taken for a fault of a tiny validation set.
FACTOR_RANGE = (0.2, 20.0)


class EnsembleUncertainty:
    """See :class:`dubito.uncertainty.base.UncertaintyMethod`."""

    name: ClassVar[str] = "ensemble"
    targets: ClassVar[frozenset[str]] = frozenset({"energy", "energies", "forces"})

    def __init__(self, potential: Potential, factor: float = 1.0, n_calibration: int = 0) -> None:
        if potential.n_members < 2:
            raise ModelError("The 'ensemble' uncertainty needs at least 2 members, found 1. Raise training.n_members.")
        self.potential, self.factor, self.n_calibration = potential, factor, n_calibration

    @classmethod
    def fit(cls, potential: Potential, train: Structures, valid: Structures, *, seed: int) -> Self:
        """Fit the factor on ``valid`` (unseen structures); ``train`` and ``seed`` are not needed by this method."""
        raw = potential.predict(valid)
        n_atoms = int(valid.ptr[-1])
        variance = float(np.mean(raw.uncertainty["forces"] ** 2)) if n_atoms else 0.0
        if n_atoms < MIN_ATOMS or variance <= 0.0:
            log.warning("%d unseen atoms are too few to calibrate the ensemble; the factor stays 1", n_atoms)
            return cls(potential, 1.0, n_atoms)
        factor = float(np.sqrt(np.mean((raw.forces - valid.forces) ** 2) / variance))
        clipped = float(np.clip(factor, *FACTOR_RANGE))
        if clipped != factor:
            log.warning("calibration factor %.3g is outside %s and was cut", factor, FACTOR_RANGE)
        return cls(potential, clipped, n_atoms)

    def predict(self, structures: Structures) -> Prediction:
        """Predict with the members' mean; all uncertainties are the spread times the factor.

        ``energy_ensemble`` is spread about its mean by the same factor, so that the deviation of anything made from
        it (an energy difference, a barrier) is on the same scale.
        """
        raw = self.potential.predict(structures)
        spread = None
        if raw.energy_ensemble is not None:
            mean = raw.energy_ensemble.mean(axis=1, keepdims=True)
            spread = mean + self.factor * (raw.energy_ensemble - mean)
        scaled = {key: self.factor * value for key, value in raw.uncertainty.items()}
        return replace(raw, uncertainty=scaled, energy_ensemble=spread)

    def save(self, path: Path) -> None:
        """Write the factor as safetensors."""
        metadata = {"format": FORMAT, "n_calibration_atoms": self.n_calibration}
        tensors = {"factor": torch.tensor([self.factor], dtype=torch.float64)}
        write_bytes(path, save(tensors, metadata={"dubito": json.dumps(metadata)}))

    @classmethod
    def load(cls, path: Path, potential: Any) -> Self:
        """Restore a fitted ensemble.

        Raises
        ------
        ModelError
            When the file is missing or of another method.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = json.loads((file.metadata() or {}).get("dubito", "{}"))
                if metadata.get("format") != FORMAT:
                    raise ModelError(f"{path} holds {metadata.get('format')!r}, expected {FORMAT!r}.")
                factor = float(file.get_tensor("factor")[0])
        except (FileNotFoundError, SafetensorError) as error:
            raise ModelError(f"{path} is not a readable state of the 'ensemble' method ({error}).") from error
        return cls(potential, factor, int(metadata["n_calibration_atoms"]))
