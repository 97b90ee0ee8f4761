"""Split conformal bounds: a factor of the standard deviation that holds with a stated probability.

From n exchangeable scores ``|e| / sigma`` the ``ceil((n + 1) level)``-th smallest is exceeded by a new one with
probability at most ``1 - level``, whatever their law (Papadopoulos et al. 2002; Lei et al. 2018,
https://doi.org/10.1080/01621459.2017.1307116). Structures are exchangeable, atoms of one structure are not, so:

``per = "structure"``
    the score of a structure is its atoms' largest: all atoms of a new structure are inside together.
``per = "atom"``
    one atom drawn from a new structure is inside: each structure has the weight ``1 / (n + 1)``, shared by its atoms
    (Lee, Barber & Willett 2023, arXiv:2306.06342).

Structures that follow each other on a trajectory, or that an acquisition chose, are not exchangeable with the next:
there is no guarantee for them, only a measure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dubito.core.errors import DataError
from dubito.metrics.reduce import structure_max

Array = NDArray[Any]
Per = Literal["structure", "atom"]
# Products like 0.95 x 20 must not miss their integer by rounding.
ROUNDING = 1e-9


def checked_level(level: float) -> float:
    """Return a level strictly between 0 and 1.

    Raises
    ------
    DataError
        When it is not.
    """
    if not 0 < level < 1:
        raise DataError(f"The level of a bound must lie between 0 and 1, found {level}; 0.95 is usual.")
    return level


def structures_needed(level: float) -> int:
    """Return the fewest structures for a finite bound: ``n >= level / (1 - level)``, 19 for 0.95."""
    return math.ceil(checked_level(level) / (1 - level) - ROUNDING)


def conformal_quantile(scores: Array, ptr: Array, level: float, per: Per = "structure") -> float:
    """Return the conformal quantile of atomic scores (N,) of the structures in ``ptr`` (n + 1,).

    Infinite where there are fewer structures than :func:`structures_needed`.

    Raises
    ------
    DataError
        When a score is NaN, a structure empty, or the shapes do not match.
    """
    checked_level(level)
    scores, sizes = np.asarray(scores, "f8"), np.diff(ptr)
    if len(ptr) < 1 or ptr[-1] != len(scores) or np.any(sizes < 1):
        raise DataError(
            f"{len(scores)} scores can't be shared among structures that end at atom {ptr[-1] if len(ptr) else None}; "
            "give one score for each atom, and no empty structures."
        )
    if np.any(np.isnan(scores)):
        raise DataError("A conformal score is NaN; give finite errors and standard deviations.")
    n = len(sizes)
    if n < structures_needed(level):
        return math.inf
    if per == "structure":
        values, weights = structure_max(scores, ptr), np.ones(n)
    else:
        values, weights = scores, np.repeat(1.0 / sizes, sizes)
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) >= (n + 1) * level - ROUNDING
    return float(values[order][np.argmax(reached)])


@dataclass(frozen=True)
class ConformalFactor:
    """The bound ``factor * sigma`` holds with probability at least ``level``.

    Attributes
    ----------
    factor : infinite where there were too few structures
    n_structures, n_needed : structures it was fitted on, and the fewest for a finite factor
    """

    factor: float
    level: float
    per: Per
    n_structures: int
    n_needed: int

    @property
    def statement(self) -> str:
        """What may be said."""
        if math.isinf(self.factor) and self.n_structures < self.n_needed:
            return (
                f"No finite bound holds at the level {self.level:g} with {self.n_structures} calibration structures; "
                f"at least {self.n_needed} are needed."
            )
        what = "all atoms of a new structure" if self.per == "structure" else "an atom of a new structure"
        return (
            f"The errors of {what} lie within {self.factor:.3g} standard deviations with probability at least "
            f"{self.level:g}, if it is exchangeable with the {self.n_structures} calibration structures."
        )

    def __call__(self, sigma: Array) -> Array:
        """Return the bound of errors, in the unit of ``sigma``."""
        with np.errstate(invalid="ignore"):
            out: Array = self.factor * np.asarray(sigma, "f8")
        # Without a bound, not even a standard deviation of 0 gives one.
        return np.where(np.isnan(out), np.inf, out)


def fit_conformal(
    sizes: Array, sigma: Array, ptr: Array | None, level: float, *, per: Per = "structure"
) -> ConformalFactor:
    """Fit the factor for a level.

    Parameters
    ----------
    sizes : (N,) sizes of errors: lengths of force errors, or absolute errors of energies
    sigma : (N,) their standard deviations in the same unit, or any positive score
    ptr : (n + 1,) bounds of structures; None where each value is a structure of its own, as energies are
    level : probability of the bound, such as 0.95

    Raises
    ------
    DataError
        When shapes don't match, a number is NaN or negative, or the level is no probability.
    """
    size, s = np.asarray(sizes, "f8"), np.asarray(sigma, "f8")
    if size.shape != s.shape or size.ndim != 1:
        raise DataError(f"Errors of shape {size.shape} and sigma of shape {s.shape} don't match, expected (N,) both.")
    if np.any(size < 0) or np.any(s < 0):
        raise DataError("A size of an error or a standard deviation is negative; give absolute values.")
    bounds = np.arange(len(size) + 1) if ptr is None else np.asarray(ptr)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = size / s
    # A claim of no error that came true.
    scores[(size == 0) & (s == 0)] = 0.0
    factor = conformal_quantile(scores, bounds, level, per)
    return ConformalFactor(factor, level, per, len(bounds) - 1, structures_needed(level))
