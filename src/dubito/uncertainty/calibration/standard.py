"""The calibration that every fitted method carries: from raw doubt to standard deviations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dubito.config.methods import CalibrationConfig
from dubito.core.logs import get_logger
from dubito.uncertainty.calibration.fitting import MIN_ATOMS, fit_map
from dubito.uncertainty.calibration.isotonic import TINY
from dubito.uncertainty.calibration.sample import Sample, make_sample
from dubito.uncertainty.calibration.scale import FACTOR_RANGE, OUT_OF_RANGE, Scale, range_notes, scale_factor
from dubito.uncertainty.calibration.strata import Stratified, fit_by_strata

Array = NDArray[Any]
log = get_logger(__name__)


@dataclass(frozen=True)
class Calibration:
    """Maps raw doubt (N,) to the standard deviation of a force component (N,) in eV/Å.

    Attributes
    ----------
    factor : of raw standard deviations, over all atoms; scales energies, whatever maps the forces. 1 for scores
    n_atoms : atoms it was fitted on
    maps : of all atoms, and of each element with atoms enough where strata were asked for
    """

    factor: float
    n_atoms: int
    maps: Stratified

    @property
    def notes(self) -> tuple[str, ...]:
        """Every fall-back, in words."""
        return self.maps.notes

    def __call__(self, raw: Array, atomic_numbers: Array) -> Array:
        """Return standard deviations.

        Raises
        ------
        ModelError
            When doubt is NaN, or a raw standard deviation negative.
        """
        return self.maps(raw, atomic_numbers)

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return arrays and JSON-serialisable settings."""
        about = {"factor": self.factor, "n_atoms": self.n_atoms, "notes": list(self.notes)}
        return self.maps.state(), about

    @classmethod
    def identity(cls) -> Self:
        """Return the calibration that changes nothing."""
        return cls(1.0, 0, Stratified(Scale(1.0)))

    @classmethod
    def from_state(cls, arrays: dict[str, Array], settings: dict[str, Any]) -> Self:
        """Restore what :meth:`state` gave.

        Raises
        ------
        KeyError
            When something is missing.
        """
        maps = Stratified.from_state(arrays, tuple(settings["notes"]), key=int)
        return cls(float(settings["factor"]), int(settings["n_atoms"]), maps)


def fit_calibration(
    raw: Array,
    errors: Array,
    atomic_numbers: Array,
    *,
    is_sigma: bool,
    force_scale: float,
    config: CalibrationConfig,
) -> Calibration:
    """Fit on unseen atoms.

    Parameters
    ----------
    raw : (N,) raw doubt: standard deviations of force components in eV/Å if ``is_sigma``, scores otherwise
    errors : (N, 3) force errors in eV/Å
    atomic_numbers : (N,)
    force_scale : rms force in eV/Å, where there is nothing to fit on

    Raises
    ------
    ModelError
        When doubt is NaN, or negative where it must not be.
    DataError
        When shapes don't match or errors are not finite.
    """
    sample = make_sample(raw, errors, is_sigma=is_sigma, force_scale=force_scale)
    # The same score means another error for another element: on 3BPA at 300 K, strata lift the rank correlation of a
    # mixture's density with the error from .29 to .62. Standard deviations know that by themselves, and one factor for
    # all holds better where the temperature shifts.
    if config.strata == "element" or (config.strata == "auto" and not is_sigma):
        maps = fit_by_strata(raw, errors, atomic_numbers, is_sigma=is_sigma, force_scale=force_scale, config=config)
    else:
        pooled, notes = fit_map(sample, config)
        maps = Stratified(pooled, notes=tuple(notes))
    factor = _factor(sample, config)
    # Energies are scaled by the factor even where forces are mapped otherwise.
    more = tuple(note for note in range_notes(factor) if note not in maps.notes)
    maps = replace(maps, notes=maps.notes + more)
    for note in maps.notes:
        # All are kept in the state; what leaves the whole method uncalibrated, or points to a fault, is worth a
        # user's attention.
        serious = len(sample.raw) < MIN_ATOMS or OUT_OF_RANGE in note
        (log.warning if serious else log.info)("calibration: %s", note)
    return Calibration(factor, len(sample.raw), maps)


def _factor(sample: Sample, config: CalibrationConfig) -> float:
    if not sample.is_sigma or len(sample.raw) < MIN_ATOMS or not np.any(sample.raw > 0):
        return 1.0
    # Where errors vanish (labels made by the model itself) the energies' deviations become small, not zero.
    if np.mean(sample.squares) <= (TINY * sample.force_scale) ** 2:
        return FACTOR_RANGE[0]
    return scale_factor(sample.errors, sample.raw, config.estimator)
