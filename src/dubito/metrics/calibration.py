"""Whether a standard deviation keeps its word, for errors taken as Gaussian: ``e ~ N(0, sigma^2)``.

Forces are judged by Cartesian component, or as vectors (``radial_levels``). With ``df`` errors are taken as
Student's t of that many degrees of freedom, and the uncertainty given is then its *scale*, not its standard
deviation (:func:`student_scale`). References: Kuleshov et al. 2018 (arXiv:1807.00263) for
calibration of regression; Tran et al. 2020 (https://doi.org/10.1088/2632-2153/ab7e1a) for the
miscalibration area.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf, fdtr, gammainc, ndtri, stdtr, stdtrit

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


def student_scale(uncertainty: ArrayLike, df: ArrayLike) -> Array:
    """Return the scale of Student's t of a given standard deviation, ``sigma sqrt((df - 2) / df)``.

    Raises
    ------
    DataError
        When ``df`` is not above 2: the variance of the distribution is then infinite.
    """
    nu = np.asarray(df, "f8")
    if not np.all(nu > 2):
        raise DataError(
            f"Student's t of {float(np.min(nu)):g} degrees of freedom has no finite standard deviation; give more "
            "than 2, or give its scale directly."
        )
    scale: Array = np.asarray(uncertainty, "f8") * np.sqrt((nu - 2) / nu)
    return scale


def central_levels(error: ArrayLike, uncertainty: ArrayLike, df: ArrayLike | None = None) -> Array:
    """Return for each error the level of the central interval that just contains it, in [0, 1], flat.

    Parameters
    ----------
    error, uncertainty : same shape; with ``df``, the uncertainty is the scale of Student's t
    df : degrees of freedom, one number or the shape of the errors; None: Gaussian

    Raises
    ------
    DataError
        When shapes differ, an uncertainty is negative or ``df`` is not positive.
    """
    z = np.abs(z_scores(error, uncertainty))
    if df is None:
        levels: Array = erf(z / np.sqrt(2.0))
        return levels
    levels = 1.0 - 2.0 * stdtr(_degrees(df, np.shape(error)), -z)
    return levels


def radial_levels(error: ArrayLike, uncertainty: ArrayLike, df: ArrayLike | None = None) -> Array:
    """Return for each error vector the level of the ball about the prediction that just contains it, (N,) in [0, 1].

    The length of an isotropic Gaussian vector is a chi variable of ``d`` degrees of freedom: ``|e|^2 / sigma^2``
    follows chi-squared with ``d``, and ``|e|^2 / (d scale^2)`` of a multivariate Student's t follows F(d, df).

    Parameters
    ----------
    error : (N, d)
    uncertainty : (N,) standard deviation of one component; with ``df``, the scale
    df : degrees of freedom, one number or (N,); None: Gaussian

    Raises
    ------
    DataError
        When shapes differ, an uncertainty is negative or ``df`` is not positive.
    """
    e = np.asarray(error, "f8")
    if e.ndim != 2:
        raise DataError(f"Error vectors have shape {e.shape}; give one row of components for each atom.")
    d = e.shape[1]
    squared = z_scores(np.sqrt(np.sum(e**2, axis=1)), uncertainty) ** 2
    levels: Array
    if df is None:
        levels = gammainc(d / 2, squared / 2)
    else:
        levels = fdtr(d, _degrees(df, squared.shape), squared / d)
        levels[np.isinf(squared)] = 1.0
    return levels


def coverage(error: ArrayLike, uncertainty: ArrayLike, level: float, df: ArrayLike | None = None) -> float:
    """Return the share of errors inside the central interval of ``level``, e.g. 0.95; NaN if empty.

    Calibrated uncertainties give ``level``; less is overconfident, more is too careful. For ``df`` see
    :func:`central_levels`.

    Raises
    ------
    DataError
        When ``level`` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise DataError(f"The coverage level must lie between 0 and 1, found {level}.")
    z = np.abs(z_scores(error, uncertainty))
    edge = ndtri((1 + level) / 2) if df is None else stdtrit(_degrees(df, np.shape(error)), (1 + level) / 2)
    return float(np.mean(z <= edge)) if z.size else float("nan")


def miscalibration_area(error: ArrayLike, uncertainty: ArrayLike, df: ArrayLike | None = None) -> float:
    """Return the area between observed and nominal coverage over all central intervals.

    ``integral_0^1 |observed(p) - p| dp``, exact for the empirical step function, so without a number
    of bins to choose. 0 is perfect; 0.5 the worst (all errors at level 0, or all at level 1). It says
    nothing about usefulness: a constant uncertainty can be calibrated. NaN if empty. For ``df`` see
    :func:`central_levels`.
    """
    return level_area(central_levels(error, uncertainty, df))


def level_area(levels: ArrayLike) -> float:
    """Return the miscalibration area of levels in [0, 1] such as those of :func:`radial_levels`; NaN if empty."""
    ordered = np.sort(np.asarray(levels, "f8").ravel())
    if not ordered.size or not np.all(np.isfinite(ordered)):
        return float("nan")
    edges = np.concatenate([[0.0], ordered, [1.0]])
    observed = np.arange(ordered.size + 1) / ordered.size
    above, below = edges[1:] - observed, edges[:-1] - observed
    # The integral of |p - c| is (p - c) |p - c| / 2.
    return float(np.sum(above * np.abs(above) - below * np.abs(below)) / 2)


def _degrees(df: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Return degrees of freedom for each entry, flat."""
    nu = np.asarray(df, "f8")
    if not np.all(nu > 0):
        raise DataError("Student's t needs a positive number of degrees of freedom.")
    if nu.ndim and nu.shape != shape:
        raise DataError(f"Degrees of freedom have shape {nu.shape} but errors {shape}; give one number or as many.")
    flat: Array = np.broadcast_to(nu, shape).ravel()
    return flat
