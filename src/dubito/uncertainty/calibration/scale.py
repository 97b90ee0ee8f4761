"""One factor for all standard deviations: four estimators of it.

With errors e of force components and raw standard deviations s, calibrated ones are ``f s``:

``rms``
    ``sqrt(mean e^2 / mean s^2)``: the predicted variance equals the squared error in total. A ratio of means, so
    atoms of tiny s can't blow it up, and unbiased however few members s^2 was estimated from (the mean of z^2 is not:
    it is infinite for Gaussian members with 3 (M - 1) <= 2 degrees of freedom).
``likelihood``
    ``sqrt(mean z^2)`` with z = e / s: the optimum of the Gaussian likelihood; that of LLPR's ``squared residuals``
    (https://doi.org/10.1088/2632-2153/ad805f). Ruled by heavy tails and small s.
``absolute``
    ``sqrt(pi / 2) mean |z|``: the same for perfect Gaussian errors, less ruled by tails.
``crps``
    The smallest continuous ranked probability score of N(0, (f s)^2) (Gneiting & Raftery 2007,
    https://doi.org/10.1198/016214506000001437). Its derivative by f is ``mean s (2 phi(z / f) - 1 / sqrt(pi))``, which
    rises with f, so that the minimum is its one root. Bounded influence of any error.

All are equivariant: f(c e, s) = c f(e, s) and f(e, c s) = f(e, s) / c.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from dubito.core.errors import ModelError
from dubito.uncertainty.calibration.sample import Sample, checked_raw

Array = NDArray[Any]
# Posteriors of a last layer are off by factors of a hundred (they know nothing of what the model can't say); a factor
# outside this range points to a fault. It is applied all the same: cut to the range, sigma would be wrong by the rest.
FACTOR_RANGE = (1e-4, 1e4)
OUT_OF_RANGE = "lies outside"
# In estimators that divide by s: smaller standard deviations, in units of their rms, count as this.
FLOOR = 0.05
# Larger standard deviations, in units of the largest of the calibration set, are cut off; infinite ones too.
CEILING = 1e3
# No calibrated standard deviation is smaller than this share of the rms calibration error: the forces of an atom
# without neighbours are zero, and so is any readout's deviation of them, but no likelihood survives a sigma of 0.
SMALLEST_SHARE = 1e-3


def _rms(errors: Array, sigma: Array) -> float:
    return float(np.sqrt(np.mean(errors**2) / np.mean(sigma**2)))


def _z(errors: Array, sigma: Array) -> Array:
    out: Array = errors / np.maximum(sigma, FLOOR * np.sqrt(np.mean(sigma**2)))[:, None]
    return out


def _likelihood(errors: Array, sigma: Array) -> float:
    return float(np.sqrt(np.mean(_z(errors, sigma) ** 2)))


def _absolute(errors: Array, sigma: Array) -> float:
    return math.sqrt(math.pi / 2) * float(np.mean(np.abs(_z(errors, sigma))))


def _crps(errors: Array, sigma: Array) -> float:
    start = _rms(errors, sigma)
    if start == 0:
        return 0.0
    s = np.broadcast_to((start * sigma)[:, None], errors.shape)
    e, s = errors[s > 0], s[s > 0]

    def slope(log_factor: float) -> float:
        density = np.exp(-0.5 * (e / (math.exp(log_factor) * s)) ** 2) / math.sqrt(2 * math.pi)
        return float(np.mean(s * (2 * density - 1 / math.sqrt(math.pi))) / np.mean(s))

    # Most errors being exactly zero, the score falls down to a factor of 0.
    low, high = -16.0, 16.0
    if slope(low) >= 0:
        return start * math.exp(low)
    return start * math.exp(brentq(slope, low, high, xtol=1e-13))


ESTIMATORS: dict[str, Callable[[Array, Array], float]] = {
    "rms": _rms,
    "likelihood": _likelihood,
    "absolute": _absolute,
    "crps": _crps,
}


def scale_factor(errors: Array, sigma: Array, estimator: str = "rms") -> float:
    """Return the factor of standard deviations (N,) that fits errors (N, 3); see the module.

    There must be a positive standard deviation.
    """
    return ESTIMATORS[estimator](errors, sigma)


@dataclass(frozen=True)
class Scale:
    """Doubt times a factor, between a floor and a ceiling in eV/Å; infinite doubt gets the ceiling."""

    factor: float
    ceiling: float = math.inf
    floor: float = 0.0

    def __call__(self, raw: Array) -> Array:
        """Return (N,) eV/Å.

        Raises
        ------
        ModelError
            When doubt is NaN, or below 0.
        """
        values = refuse_negative(checked_raw(raw, is_sigma=False))
        out: Array = np.clip(self.factor * values, self.floor, self.ceiling)
        return out

    def state(self) -> dict[str, Array]:
        """Return what restores it."""
        return {"scale": np.array([self.factor, self.ceiling, self.floor])}

    @classmethod
    def from_state(cls, arrays: dict[str, Array]) -> Self:
        """Restore what :meth:`state` gave."""
        return cls(*(float(value) for value in arrays["scale"]))


def refuse_negative(raw: Array) -> Array:
    """Return doubt (N,) that a factor may turn into standard deviations.

    Raises
    ------
    ModelError
        When some is below 0.
    """
    if np.any(raw < 0):
        raise ModelError(
            f"Doubt of {raw.min():.3g} can't be scaled to a standard deviation, expected none below 0. Scores that may "
            "be negative need uncertainty.calibration.kind: isotonic (or auto); fit the method again with it. A "
            "method that gives standard deviations (is_sigma) must not give such a number."
        )
    return raw


def range_notes(factor: float) -> list[str]:
    """Return what is to be said of the factor of standard deviations."""
    if FACTOR_RANGE[0] <= factor <= FACTOR_RANGE[1]:
        return []
    return [
        f"the calibration factor {factor:.3g} {OUT_OF_RANGE} {FACTOR_RANGE}: raw standard deviations and errors differ "
        "by orders of magnitude. Sigma was rescaled by it all the same; look for a fault in the method, or for a "
        "training or calibration set that is too small"
    ]


def fit_scale(sample: Sample, estimator: str) -> tuple[Scale, list[str]]:
    """Fit the factor; return it with what there is to note.

    There must be a positive raw value, no negative one, and an error that is not zero.
    """
    found = max(scale_factor(sample.errors, sample.raw, estimator), np.finfo("f8").tiny)
    floor = SMALLEST_SHARE * float(np.sqrt(np.mean(sample.squares)))
    scale = Scale(found, max(CEILING * found * float(sample.raw.max()), floor), floor)
    # The factor of a score carries the score's unit, so nothing is known of its size.
    return scale, range_notes(found) if sample.is_sigma else []
