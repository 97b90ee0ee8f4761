"""What dubito's own methods have in common: calibration, files, refusals.

A method says its *raw* doubt of each atom: either a standard deviation of a force component in eV/Å (``is_sigma``)
or a score without unit. What is common turns it into calibrated standard deviations on unseen structures.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from dubito.config.uncertainty import UncertaintyConfig
from dubito.core.errors import DubitoError, ModelError
from dubito.core.logs import get_logger
from dubito.data.prediction import Array, Prediction
from dubito.data.structures import Structures
from dubito.model.potential import Potential
from dubito.uncertainty.calibration import Calibration, fit_calibration
from dubito.uncertainty.deviations import Deviations
from dubito.uncertainty.files import fingerprint, read_state, write_state

log = get_logger(__name__)
Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Doubt:
    """What a method says of ``n`` structures with ``N`` atoms before it is calibrated; higher is more doubtful.

    Attributes
    ----------
    forces : (N,) standard deviation of a force component (the same for all three) in eV/Å, or a score
    energies : (N,) standard deviation of each atom's energy in eV, or a score
    energy : (n,) standard deviation of the energy in eV; None where the method says none
    """

    forces: Array
    energies: Array
    energy: Array | None = None


class FittedMethod(ABC):
    """A method fitted to a potential. Subclasses give ``learn``, ``doubt``, ``state`` and ``restore``.

    The prediction is always that of the potential: the mean of its members. Methods of a single model look at its
    first member (``self.member``).
    """

    name: ClassVar[str]
    targets: ClassVar[frozenset[str]] = frozenset({"energies", "forces"})
    is_sigma: ClassVar[bool]
    # Whether scores may be below 0, as a log density is: no factor makes a standard deviation of them.
    signed_score: ClassVar[bool] = False
    # False where ``Doubt.energies`` only ranks although ``Doubt.forces`` are standard deviations.
    gives_energies: ClassVar[bool] = True
    # Sweeps of one network besides the members' own evaluation.
    extra_evaluations: float = 0.0
    min_members: ClassVar[int] = 1

    def __init__(self, potential: Potential) -> None:
        if potential.n_members < self.min_members:
            raise ModelError(
                f"The '{self.name}' uncertainty needs at least {self.min_members} members, found "
                f"{potential.n_members}. Raise training.n_members, or take a method of one network, such as llpr."
            )
        self.potential = potential
        self.calibration: Calibration | None = None
        self._member: Potential | None = None

    # --- what a method is ---------------------------------------------------------------------

    @abstractmethod
    def learn(self, train: Structures, unseen: Structures, *, seed: int, config: UncertaintyConfig) -> Structures:
        """Fit the method; return the unseen structures that it did not use, for calibration."""

    @abstractmethod
    def doubt(self, structures: Structures, prediction: Prediction) -> Doubt:
        """Return the raw doubt; ``prediction`` is the potential's, with the latents of the first member."""

    @abstractmethod
    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Return what was learnt: arrays, and JSON-serialisable settings."""

    @abstractmethod
    def restore(self, tensors: Tensors, settings: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""

    # --- what all have in common --------------------------------------------------------------

    @property
    def member(self) -> Potential:
        """The first member alone."""
        if self._member is None:
            self._member = self.potential if self.potential.n_members == 1 else self.potential.member(0)
        return self._member

    @property
    def evaluations(self) -> float:
        """Evaluations of one network that a prediction costs."""
        return self.potential.n_members + self.extra_evaluations

    @property
    def factor(self) -> float | None:
        """The factor that standard deviations are scaled by, where there is one."""
        return self.calibration.factor if self.calibration is not None and self.is_sigma else None

    @classmethod
    def fit(
        cls,
        potential: Potential,
        train: Structures,
        valid: Structures,
        *,
        seed: int,
        config: UncertaintyConfig | None = None,
    ) -> Self:
        """Fit to a trained potential and calibrate on ``valid``, which no gradient has seen.

        Raises
        ------
        ModelError
            When the potential or the calibration asked for does not fit the method, or latents are not finite.
        DataError
            When structures have no labels, or too few atoms to fit anything.
        """
        config = UncertaintyConfig() if config is None else config
        train.require_labels("The training set")
        cls.check_calibration(config)
        method = cls(potential)
        unseen = method.learn(train, valid, seed=seed, config=config)
        method.calibrate(unseen, config)
        return method

    @classmethod
    def check_calibration(cls, config: UncertaintyConfig) -> None:
        """Refuse a calibration that can't be made of the method's scores.

        Raises
        ------
        ModelError
            When scores that may be negative are to be multiplied by a factor.
        """
        if cls.signed_score and config.calibration.kind == "scale":
            raise ModelError(
                f"The score of '{cls.name}' may be negative (a log density), so that no factor makes a standard "
                "deviation of it, but uncertainty.calibration.kind is scale. Choose auto or isotonic."
            )

    @classmethod
    def uncalibrated(cls, potential: Potential) -> Self:
        """Return a method that needs no fitting, with the factor 1; for what was never calibrated."""
        method = cls(potential)
        method.calibration = Calibration.identity()
        return method

    def calibrate(self, unseen: Structures, config: UncertaintyConfig) -> None:
        """Fit what turns raw doubt into standard deviations, on labelled structures that nothing was fitted to."""
        prediction = self.potential.predict(unseen)
        doubt = self._checked(unseen, prediction)
        self.calibration = fit_calibration(
            doubt.forces,
            prediction.forces - unseen.forces,
            unseen.atomic_numbers,
            is_sigma=self.is_sigma,
            force_scale=self.potential.statistics.force_scale_ev_per_angstrom,
            config=config.calibration,
        )

    def raw(self, structures: Structures) -> tuple[Prediction, Doubt]:
        """Return the potential's prediction and the doubt before calibration."""
        prediction = self.potential.predict(structures)
        return prediction, self._checked(structures, prediction)

    def predict(self, structures: Structures) -> Prediction:
        """Predict with the members' mean, calibrated standard deviations and raw scores.

        Raises
        ------
        ModelError
            When the method was not fitted.
        """
        self._fitted()
        return self._calibrated(structures, *self.raw(structures))

    def predict_members(self, structures: Structures) -> tuple[Prediction, Deviations]:
        """Predict as :meth:`predict`, and return how members deviate, for one evaluation together.

        Those are the potential's members, whatever method doubts: calibrated if their spread is its doubt. Methods of
        a linear readout give the deviations of that readout instead.

        Raises
        ------
        ModelError
            When the method was not fitted, or there are fewer than two members.
        """
        self._fitted()
        prediction = self.potential.predict(structures, members=True)
        self._require_finite(structures, prediction)
        doubt, deviations = self.doubt_and_deviations(structures, prediction)
        said = self._calibrated(structures, replace(prediction, forces_ensemble=None), doubt)
        return said, deviations

    def doubt_and_deviations(self, structures: Structures, prediction: Prediction) -> tuple[Doubt, Deviations]:
        """Return the raw doubt, and the deviations of members; ``prediction`` holds the forces of each member."""
        return self.doubt(structures, prediction), Deviations.of(prediction)

    def _calibrated(self, structures: Structures, prediction: Prediction, doubt: Doubt) -> Prediction:
        calibration = self._fitted()
        sigma = calibration(doubt.forces, structures.atomic_numbers)
        uncertainty: dict[str, Array] = {"forces": np.repeat(sigma[:, None], 3, axis=1)}
        spread = None
        if self.is_sigma:
            factor = calibration.factor
            if self.gives_energies:
                uncertainty["energies"] = factor * doubt.energies
            if doubt.energy is not None:
                uncertainty["energy"] = factor * doubt.energy
            spread = self._spread(prediction, factor)
        scores = {"forces": doubt.forces, "energies": doubt.energies}
        return replace(prediction, uncertainty=uncertainty, scores=scores, energy_ensemble=spread)

    def _spread(self, prediction: Prediction, factor: float) -> Array | None:
        """Return energies by member on the scale of the uncertainties; only ensembles have them."""
        return None

    def _fitted(self) -> Calibration:
        if self.calibration is None:
            raise ModelError(f"The '{self.name}' method is not fitted; call fit(...) or load(...) first.")
        return self.calibration

    def _checked(self, structures: Structures, prediction: Prediction) -> Doubt:
        self._require_finite(structures, prediction)
        return self.doubt(structures, prediction)

    def _require_finite(self, structures: Structures, prediction: Prediction) -> None:
        if len(structures) and (prediction.latent is None or not np.all(np.isfinite(prediction.latent))):
            raise ModelError(
                f"The network's latents of {len(structures)} structures are not all finite numbers, so "
                f"'{self.name}' can't judge them. Look for atoms on top of each other, or for a broken model."
            )

    def save(self, path: Path) -> None:
        """Write the fitted state as safetensors.

        Raises
        ------
        ModelError
            When the method was not fitted.
        """
        if self.calibration is None:
            raise ModelError(f"The '{self.name}' method is not fitted; there is nothing to save.")
        tensors, settings = self.state()
        arrays, about = self.calibration.state()
        write_state(
            path,
            self.name,
            fingerprint(self.potential),
            {"settings": settings, "calibration": about},
            tensors | {f"calibration.{key}": value for key, value in arrays.items()},
        )

    @classmethod
    def load(cls, path: Path, potential: Potential) -> Self:
        """Restore a fitted method.

        Raises
        ------
        ModelError
            When the file is missing, damaged, of another method or of another potential.
        """
        metadata, tensors = read_state(path, cls.name, fingerprint(potential))
        method = cls(potential)
        own = {key: value for key, value in tensors.items() if not key.startswith("calibration.")}
        rest = {key.removeprefix("calibration."): v for key, v in tensors.items() if key not in own}
        try:
            method.restore(own, metadata["settings"])
            method.calibration = Calibration.from_state(rest, metadata["calibration"])
        except DubitoError:
            raise
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
            # What a file lacks, or has in another shape, turns up wherever it is used first.
            raise ModelError(
                f"{path} lacks something or has it in another form ({type(error).__name__}: {error}); it is damaged. "
                "Fit the method again."
            ) from error
        return method
