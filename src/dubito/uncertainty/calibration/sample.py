"""What a calibration is fitted on, checked once, and what all fitted maps have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dubito.core.errors import DataError, ModelError

Array = NDArray[Any]


class Map(Protocol):
    """A rising map from raw doubt (N,) to the standard deviation of a force component (N,) in eV/Å."""

    def __call__(self, raw: Array) -> Array:
        """Return standard deviations; infinite doubt gives a finite one, see the classes."""
        ...

    def state(self) -> dict[str, Array]:
        """Return what restores it."""
        ...


@dataclass(frozen=True)
class Sample:
    """Raw doubt and errors of unseen atoms, all finite.

    Attributes
    ----------
    raw : (N,) standard deviations in eV/Å (``is_sigma``) or scores
    errors : (N, 3) eV/Å
    is_sigma : what ``raw`` is
    force_scale : the forces' rms in eV/Å: the unit where there is nothing else to measure by
    n_infinite : atoms left out because their doubt was infinite
    """

    raw: Array
    errors: Array
    is_sigma: bool
    force_scale: float
    n_infinite: int = 0

    @property
    def squares(self) -> Array:
        """Mean squared error of a component of each atom, (N,) eV²/Å²."""
        out: Array = np.mean(self.errors**2, axis=1)
        return out

    def part(self, mask: Array) -> Sample:
        """Return some of the atoms."""
        return Sample(self.raw[mask], self.errors[mask], self.is_sigma, self.force_scale)


def checked_raw(raw: Array, *, is_sigma: bool) -> Array:
    """Return raw doubt as float64.

    Raises
    ------
    ModelError
        When it holds NaN, or a negative standard deviation.
    """
    values: Array = np.asarray(raw, "f8")
    missing = int(np.isnan(values).sum())
    if missing:
        raise ModelError(
            f"The doubt of {missing} of {values.size} atoms is NaN, expected numbers. The method met features that "
            "it can't judge; look for atoms on top of each other, or fit the method again."
        )
    if is_sigma and np.any(values < 0):
        raise ModelError(
            f"A standard deviation of {values.min():.3g} was given, expected none below 0. If the method gives a "
            "score, it must say so (is_sigma = False)."
        )
    return values


def make_sample(raw: Array, errors: Array, *, is_sigma: bool, force_scale: float) -> Sample:
    """Check raw doubt (N,) and force errors (N, 3) eV/Å; leave out atoms of infinite doubt.

    Raises
    ------
    ModelError
        See :func:`checked_raw`.
    DataError
        When shapes do not match, an error is not finite or the force scale not positive.
    """
    values, e = checked_raw(raw, is_sigma=is_sigma), np.asarray(errors, "f8")
    if values.ndim != 1 or e.shape != (len(values), 3):
        raise DataError(
            f"Doubt of shape {values.shape} and errors of shape {e.shape} don't belong together, expected (N,) and "
            "(N, 3). Give one doubt and one error vector for each atom."
        )
    if not np.all(np.isfinite(e)):
        raise DataError(
            "A force error of the calibration set is not a finite number. Remove structures with missing or broken "
            "labels before calibrating."
        )
    if not (np.isfinite(force_scale) and force_scale > 0):
        raise DataError(f"The force scale must be a positive number of eV/Å, found {force_scale}.")
    finite = np.isfinite(values)
    return Sample(values[finite], e[finite], is_sigma, float(force_scale), int((~finite).sum()))
