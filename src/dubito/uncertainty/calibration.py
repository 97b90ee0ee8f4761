"""From raw doubt to standard deviations, fitted on structures unseen by the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dubito.config.methods import CalibrationConfig
from dubito.core.logs import get_logger

Array = NDArray[Any]
log = get_logger(__name__)
# Fewer unseen atoms than this give no meaningful calibration.
MIN_ATOMS = 8
# A factor outside is taken for a fault of a tiny validation set.
FACTOR_RANGE = (0.2, 20.0)


@dataclass(frozen=True)
class Calibration:
    """Maps raw doubt (N,) to the standard deviation of a force component (N,) in eV/Å.

    Attributes
    ----------
    factor : of standard deviations (rms z of the calibration set)
    n_atoms : atoms it was fitted on
    """

    factor: float
    n_atoms: int

    def __call__(self, raw: Array, atomic_numbers: Array) -> Array:
        """Return standard deviations."""
        out: Array = self.factor * raw
        return out

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return arrays and JSON-serialisable settings."""
        return {}, {"factor": self.factor, "n_atoms": self.n_atoms}

    @classmethod
    def identity(cls) -> Self:
        """Return the calibration that changes nothing."""
        return cls(1.0, 0)

    @classmethod
    def from_state(cls, arrays: dict[str, Array], settings: dict[str, Any]) -> Self:
        """Restore what :meth:`state` gave."""
        return cls(float(settings["factor"]), int(settings["n_atoms"]))


def fit_calibration(
    raw: Array,
    errors: Array,
    atomic_numbers: Array,
    *,
    is_sigma: bool,
    force_scale: float,
    config: CalibrationConfig,
) -> Calibration:
    """Fit on raw doubt (N,) and force errors (N, 3) eV/Å; ``force_scale`` (eV/Å) where there is nothing to fit on."""
    variance = float(np.mean(raw**2)) if len(raw) else 0.0
    if len(raw) < MIN_ATOMS or variance <= 0:
        log.warning("%d unseen atoms are too few to calibrate; the factor stays 1", len(raw))
        return Calibration(1.0, len(raw))
    factor = float(np.sqrt(np.mean(errors**2) / variance))
    return Calibration(float(np.clip(factor, *FACTOR_RANGE)), len(raw))
