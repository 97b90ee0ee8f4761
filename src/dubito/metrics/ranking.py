"""How well a score ranks errors. Orientation everywhere: a higher score means more doubt; nothing is ever flipped.

Two different events can be warned of, and a score may be good at one and bad at the other: that a structure
comes from elsewhere (:func:`auroc_shift`), and that a prediction is wrong (:func:`auroc_error`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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


def auroc_shift(score: ArrayLike, shifted_score: ArrayLike) -> float:
    """Return the area under the ROC curve for telling a shifted set from one like the training data.

    The probability that a random entry of the shifted set has the higher score. Both sets must be unseen by
    the model: a score that remembers its training data tells them apart without any shift. NaN if one is empty.

    Parameters
    ----------
    score : (n,) scores of held-out entries like the training data
    shifted_score : (m,) scores of entries of the shifted set
    """
    inside, outside = np.asarray(score, "f8").ravel(), np.asarray(shifted_score, "f8").ravel()
    return auroc(np.concatenate([inside, outside]), np.repeat([False, True], [inside.size, outside.size]))


def auroc_error(score: ArrayLike, error: ArrayLike, tolerance: float) -> float:
    """Return the area under the ROC curve for errors whose size is above a tolerance, in the unit of the error.

    The tolerance has to be fixed in advance (a goal, or :func:`fixed_tolerance`): a quantile of the very errors
    that are judged would move with them. NaN unless errors lie on both sides, or when one is not finite.

    Raises
    ------
    DataError
        When the lengths differ or the tolerance is not a positive number.
    """
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise DataError(f"The error tolerance is {tolerance}; give a positive number in the unit of the errors.")
    values, size = _pair(score, error)
    if not np.all(np.isfinite(size)):
        return float("nan")
    return auroc(values, np.abs(size) > tolerance)


def fixed_tolerance(error: ArrayLike, percentile: float = 95.0) -> float:
    """Return the percentile of the size of in-distribution errors, as the tolerance of :func:`auroc_error`.

    To be taken once, from validation errors, before any test set is looked at.

    Raises
    ------
    DataError
        When the percentile is not between 0 and 100, errors are not finite, or too few to have one above it.
    """
    size = np.abs(np.asarray(error, "f8").ravel())
    if not 0 < percentile < 100:
        raise DataError(f"The percentile of the tolerance must lie between 0 and 100, found {percentile}.")
    needed = int(np.ceil(100 / (100 - percentile)))
    if size.size < needed or not np.all(np.isfinite(size)):
        raise DataError(
            f"A tolerance at percentile {percentile:g} needs at least {needed} finite errors, found "
            f"{int(np.isfinite(size).sum())} among {size.size}; use more validation data or a lower percentile."
        )
    return float(np.percentile(size, percentile))


@dataclass(frozen=True)
class Stratified:
    """A measure taken within each stratum, such as a temperature or an element.

    Attributes
    ----------
    values : stratum to value, NaN where it is undefined
    sizes : stratum to number of entries
    """

    values: dict[str, float]
    sizes: dict[str, int]

    @property
    def mean(self) -> float:
        """Mean over the strata where it is defined, weighted by their sizes; NaN if there is none."""
        known = [k for k, v in self.values.items() if np.isfinite(v)]
        total = sum(self.sizes[k] for k in known)
        return sum(self.values[k] * self.sizes[k] for k in known) / total if total else float("nan")


def within(
    measure: Callable[[ArrayLike, ArrayLike], float], score: ArrayLike, error: ArrayLike, strata: ArrayLike
) -> Stratified:
    """Return a measure of score and error, each (N,), within each stratum; ``strata`` are (N,) labels.

    Raises
    ------
    DataError
        When the lengths differ.
    """
    a, b = _pair(score, error)
    labels = np.asarray(strata).ravel()
    if len(labels) != len(a):
        raise DataError(f"{len(a)} scores but {len(labels)} labels of their strata; give one label for each score.")
    masks = {str(label): labels == label for label in np.unique(labels)}
    return Stratified(
        {key: measure(a[mask], b[mask]) for key, mask in masks.items()},
        {key: int(mask.sum()) for key, mask in masks.items()},
    )


def spearman_within(score: ArrayLike, error: ArrayLike, strata: ArrayLike) -> Stratified:
    """Return Spearman's correlation within each stratum.

    Pooled over temperatures or elements it is inflated: telling strata apart is enough to rank their errors
    (Simpson's paradox), and the size of the predicted force alone already does that.
    """
    return within(spearman, score, error, strata)


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    first, second = np.asarray(a, "f8").ravel(), np.asarray(b, "f8").ravel()
    if len(first) != len(second):
        raise DataError(f"{len(first)} scores can't be compared with {len(second)} errors; give as many of both.")
    return first, second
