"""How well a score ranks errors. Orientation everywhere: a higher score means more doubt."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubito.core.errors import DataError

Array = NDArray[Any]


def average_ranks(values: ArrayLike) -> Array:
    """Return ranks from 1 to n, ties sharing the mean of their ranks, (n,) float64."""
    _, inverse, counts = np.unique(np.asarray(values, "f8"), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Array = (last - (counts - 1) / 2)[inverse]
    return ranks


def spearman(score: ArrayLike, error: ArrayLike) -> float:
    """Return Spearman's rank correlation of a score with the size of the error.

    Pearson's correlation of the average ranks (https://doi.org/10.2307/1412159): 1 where a higher
    score always means a larger error. Even a perfect standard deviation stays below 1, since an error
    drawn from a wide distribution may be small. NaN for fewer than two values or constant input.

    Raises
    ------
    DataError
        When the lengths differ.
    """
    a, b = _pair(score, error)
    if len(a) < 2 or not (np.all(np.isfinite(a)) and np.all(np.isfinite(b))):
        return float("nan")
    a, b = average_ranks(a), average_ranks(b)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt(np.sum(a**2) * np.sum(b**2)))
    return float(np.sum(a * b) / norm) if norm > 0 else float("nan")


def auroc(score: ArrayLike, event: ArrayLike) -> float:
    """Return the area under the ROC curve of a score for an event (true: the thing to be warned of).

    The probability that a random event has a higher score than a random non-event, ties counting one
    half (Mann-Whitney; https://doi.org/10.1148/radiology.143.1.7063747). Below 0.5 the score is
    confidently wrong; it is not flipped. NaN unless both kinds occur.

    Raises
    ------
    DataError
        When the lengths differ.
    """
    values, mask = _pair(score, event)
    positive = mask.astype(bool)
    n_event, n_other = int(positive.sum()), int((~positive).sum())
    if n_event == 0 or n_other == 0 or not np.all(np.isfinite(values)):
        return float("nan")
    rank_sum = float(np.sum(average_ranks(values)[positive]))
    return (rank_sum - n_event * (n_event + 1) / 2) / (n_event * n_other)


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    first, second = np.asarray(a, "f8").ravel(), np.asarray(b, "f8").ravel()
    if len(first) != len(second):
        raise DataError(f"{len(first)} scores can't be compared with {len(second)} errors; give as many of both.")
    return first, second
