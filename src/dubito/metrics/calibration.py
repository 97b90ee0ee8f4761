"""Whether a standard deviation keeps its word, for errors taken as Gaussian: ``e ~ N(0, sigma^2)``.

Forces are judged by Cartesian component. References: Kuleshov et al. 2018 (arXiv:1807.00263) for
calibration of regression; Tran et al. 2020 (https://doi.org/10.1088/2632-2153/ab7e1a) for the
miscalibration area.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf, ndtri

from dubito.core.errors import DataError

Array = NDArray[Any]


def z_scores(error: ArrayLike, uncertainty: ArrayLike) -> Array:
    """Return errors in units of their standard deviation, flat.

    A zero uncertainty with an error gives an infinite z, and 0 / 0 counts as 0: the claim was right.

    Raises
    ------
    DataError
        When shapes differ or an uncertainty is negative.
    """
    e, s = np.asarray(error, "f8").ravel(), np.asarray(uncertainty, "f8").ravel()
    if e.shape != s.shape:
        raise DataError(f"{e.size} errors can't be compared with {s.size} uncertainties; give as many of both.")
    if np.any(s < 0):
        raise DataError("An uncertainty is negative; a standard deviation can't be. Was a score passed instead?")
    with np.errstate(divide="ignore", invalid="ignore"):
        z: Array = e / s
    z[(e == 0) & (s == 0)] = 0.0
    return z


def central_levels(error: ArrayLike, uncertainty: ArrayLike) -> Array:
    """Return for each error the level of the central interval that just contains it, in [0, 1]."""
    levels: Array = erf(np.abs(z_scores(error, uncertainty)) / np.sqrt(2.0))
    return levels


def coverage(error: ArrayLike, uncertainty: ArrayLike, level: float) -> float:
    """Return the share of errors inside the central interval of ``level``, e.g. 0.95; NaN if empty.

    Calibrated uncertainties give ``level``; less is overconfident, more is too careful.

    Raises
    ------
    DataError
        When ``level`` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise DataError(f"The coverage level must lie between 0 and 1, found {level}.")
    z = np.abs(z_scores(error, uncertainty))
    return float(np.mean(z <= ndtri((1 + level) / 2))) if z.size else float("nan")


def miscalibration_area(error: ArrayLike, uncertainty: ArrayLike) -> float:
    """Return the area between observed and nominal coverage over all central intervals.

    ``integral_0^1 |observed(p) - p| dp``, exact for the empirical step function, so without a number
    of bins to choose. 0 is perfect; 0.5 the worst (all errors at level 0, or all at level 1). It says
    nothing about usefulness: a constant uncertainty can be calibrated. NaN if empty.
    """
    levels = np.sort(central_levels(error, uncertainty))
    if not levels.size or not np.all(np.isfinite(levels)):
        return float("nan")
    edges = np.concatenate([[0.0], levels, [1.0]])
    observed = np.arange(levels.size + 1) / levels.size
    above, below = edges[1:] - observed, edges[:-1] - observed
    # The integral of |p - c| is (p - c) |p - c| / 2.
    return float(np.sum(above * np.abs(above) - below * np.abs(below)) / 2)
