"""Bounds on a probability from counts."""

from __future__ import annotations

import math

from dubito.core.errors import DataError


def clopper_pearson(events: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact two-sided confidence interval of a probability.

    Clopper and Pearson 1934 (https://doi.org/10.1093/biomet/26.4.404): it covers at least ``level``
    whatever the probability, provided that the trials are independent. No trial gives (0, 1).

    Raises
    ------
    DataError
        When the counts or the level are impossible.
    """
    if not 0 <= events <= trials:
        raise DataError(f"{events} events among {trials} trials are impossible.")
    if not 0 < level < 1:
        raise DataError(f"The confidence level must lie between 0 and 1, found {level}.")
    from scipy.special import betaincinv  # heavy, and the report only asks for the bound below

    tail = (1 - level) / 2
    low = 0.0 if events == 0 else float(betaincinv(events, trials - events + 1, tail))
    high = 1.0 if events == trials else float(betaincinv(events + 1, trials - events, 1 - tail))
    return low, high


def trials_to_bound(probability: float, level: float = 0.95) -> int:
    """Return how many trials without any event bring the upper Clopper-Pearson bound to ``probability``.

    With no event the upper bound is ``1 - tail^(1/n)``; 5 % at the 95 % level needs 72 trials.

    Raises
    ------
    DataError
        When a probability is not between 0 and 1.
    """
    if not (0 < probability < 1 and 0 < level < 1):
        raise DataError(f"Probabilities must lie between 0 and 1, found {probability} and {level}.")
    return math.ceil(math.log((1 - level) / 2) / math.log1p(-probability))
