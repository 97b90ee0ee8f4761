"""Whether uncertainties keep their word at every size, and how small they are.

An area or a coverage may be right on average while small uncertainties are too small and large ones too large. The
expected normalised calibration error (ENCE) looks by bins of uncertainty: Levi et al. 2022
(https://doi.org/10.3390/s22155540). It is *not* zero for perfect uncertainties, but grows like the square root of
bins over entries (Pernot 2023, arXiv:2305.11905), so it is given with what perfect ones would score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubito.core.errors import DataError
from dubito.core.random import generator
from dubito.metrics.bootstrap import Interval, structure_interval
from dubito.metrics.calibration import coverage, z_scores

Array = NDArray[Any]
LEVELS = (0.68, 0.90, 0.95)
# The ENCE depends on the number of bins, so that every table has to use the same.
N_BINS = 15


@dataclass(frozen=True)
class Ence:
    """The expected normalised calibration error and its null.

    Attributes
    ----------
    value : measured
    null_mean, null_high : mean and 95th percentile for the same uncertainties if they were perfect
    p_value : how often perfect ones would score as high or higher
    n_bins : bins of equal count
    """

    value: float
    null_mean: float
    null_high: float
    p_value: float
    n_bins: int


def sharpness(uncertainty: ArrayLike) -> float:
    """Return the rms uncertainty, in its unit: among calibrated ones the smaller is the better. NaN if empty."""
    s = np.asarray(uncertainty, "f8")
    return float(np.sqrt(np.mean(s**2))) if s.size else float("nan")


def coverages(
    error: ArrayLike, uncertainty: ArrayLike, levels: Sequence[float] = LEVELS, df: ArrayLike | None = None
) -> dict[float, float]:
    """Return level to observed coverage of the central intervals; see :func:`dubito.metrics.calibration.coverage`."""
    return {level: coverage(error, uncertainty, level, df) for level in levels}


def binned(error: ArrayLike, uncertainty: ArrayLike, n_bins: int = N_BINS) -> tuple[Array, Array]:
    """Return the root mean variance and the RMSE within bins of equal count by uncertainty, (n_bins,) each.

    A reliability diagram plots one against the other. Entries on a border, and entries of equal uncertainty, are
    divided between their bins in proportion: a constant uncertainty gives equal bins whatever the order of entries,
    and no entry is left out when the count can't be divided.

    Raises
    ------
    DataError
        When there are fewer entries than bins, shapes differ, or an uncertainty is negative.
    """
    e, s = np.asarray(error, "f8").ravel(), np.asarray(uncertainty, "f8").ravel()
    z_scores(e, s)  # shapes and signs
    if n_bins < 1 or e.size < n_bins:
        raise DataError(f"{e.size} errors can't fill {n_bins} bins; use at least one bin and fewer than errors.")
    order = np.argsort(s)
    borders = _borders(s[order])
    rmv, rmse = (np.sqrt(_bin_means(x[order] ** 2, borders, n_bins)) for x in (s, e))
    return rmv, rmse


def ence(error: ArrayLike, uncertainty: ArrayLike, n_bins: int = N_BINS) -> float:
    """Return the expected normalised calibration error, the mean over bins of ``|RMV - RMSE| / RMV``.

    Infinite when all uncertainties of a bin are zero but not their errors. Errors are those of :func:`binned`.
    """
    return _mean_gap(*binned(error, uncertainty, n_bins))


def ence_with_null(
    error: ArrayLike, uncertainty: ArrayLike, *, seed: int, n_bins: int = N_BINS, n_repeats: int = 200
) -> Ence:
    """Return the ENCE with what independent Gaussian errors of exactly these standard deviations give.

    Errors within a structure are correlated, which the null leaves out: it is the least a perfect method scores.
    """
    value = ence(error, uncertainty, n_bins)
    s = np.sort(np.asarray(uncertainty, "f8").ravel())
    borders = _borders(s)
    rmv = np.sqrt(_bin_means(s**2, borders, n_bins))
    rng = generator(seed, "ence-null")
    null = np.empty(n_repeats)
    for k in range(n_repeats):
        drawn = s * rng.standard_normal(s.size)
        null[k] = _mean_gap(rmv, np.sqrt(_bin_means(drawn**2, borders, n_bins)))
    p_value = float(1 + np.sum(null >= value)) / (1 + n_repeats)
    return Ence(value, float(null.mean()), float(np.quantile(null, 0.95)), p_value, n_bins)


def z_variance(error: ArrayLike, uncertainty: ArrayLike) -> float:
    """Return the variance (ddof 1) of errors in units of their uncertainty: 1 if calibrated, above if overconfident.

    Pernot 2022 (https://doi.org/10.1063/5.0084302). Infinite with an error where the uncertainty is zero; NaN for
    fewer than two entries.
    """
    z = z_scores(error, uncertainty)
    if z.size < 2 or np.any(np.isnan(z)):
        return float("nan")
    return float(np.var(z, ddof=1)) if np.all(np.isfinite(z)) else float("inf")


def mean_squared_z(error: ArrayLike, uncertainty: ArrayLike) -> float:
    """Return the mean z^2, which unlike :func:`z_variance` also counts a bias of the errors; NaN if empty."""
    z = z_scores(error, uncertainty)
    return float(np.mean(z**2)) if z.size else float("nan")


def z_variance_interval(
    error: ArrayLike,
    uncertainty: ArrayLike,
    structure: ArrayLike,
    *,
    seed: int,
    level: float = 0.95,
    n_resamples: int = 1000,
) -> Interval:
    """Return :func:`z_variance` with its interval over structures: calibrated if that holds 1.

    Parameters
    ----------
    error, uncertainty : same shape, (N, ...)
    structure : (N,) label of each row's structure
    """
    shape = np.shape(error)
    z = z_scores(error, uncertainty).reshape(shape)
    return structure_interval(
        lambda rows: z_variance(rows, np.ones_like(rows)),
        z,
        structure=structure,
        seed=seed,
        level=level,
        n_resamples=n_resamples,
    )


def _mean_gap(rmv: Array, rmse: Array) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = np.abs(rmv - rmse) / rmv
    gap[(rmv == 0) & (rmse == 0)] = 0.0
    return float(np.mean(gap))


def _borders(ordered: Array) -> Array:
    """Return after how many entries each group of equal values ends, starting with 0."""
    return np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, [ordered.size]])


def _bin_means(ordered: Array, borders: Array, n_bins: int) -> Array:
    """Return the means of equally filled bins of ordered entries, groups within ``borders`` being mixed evenly."""
    total = np.append(0.0, np.cumsum(ordered))[borders]
    edges = np.linspace(0, ordered.size, n_bins + 1)
    out: Array = np.diff(np.interp(edges, borders, total)) / (ordered.size / n_bins)
    # A difference of sums may fall below zero by rounding.
    return np.maximum(out, 0.0)
