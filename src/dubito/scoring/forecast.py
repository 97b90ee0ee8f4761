"""Which level of the full score decides, and what the cascade will cost, before the calibration is drawn.

Both follow from the upper estimates of all candidates and the residuals of those it was fitted to: a candidate with the
estimate ``s`` has a full score of ``s + r``, with ``r`` any of the residuals. Being wrong about this costs evaluations,
never recall.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.scoring.conformal import positives_needed

Array = NDArray[Any]
# Shares of the pool tried as what is kept: with a wider one fewer draws hold enough positives.
_WIDER = 1.25
# So many of the pool's estimates, in equal steps of rank, stand for all.
_RANKS = 1000


@dataclass(frozen=True)
class Forecast:
    """What is expected of one level.

    Attributes
    ----------
    level : logarithm of the full score
    share : of the pool whose full score reaches it
    evaluated : share of the pool that gets the full score, draws included
    """

    level: float
    share: float
    evaluated: float


def exceedance(estimates: Array, residuals: Array, level: float) -> Array:
    """Return the probability (n,) that the full score reaches ``level``."""
    below = np.searchsorted(residuals, level - estimates, side="left")
    out: Array = 1.0 - below / len(residuals)
    return out


def thinned(estimates: Array) -> Array:
    """Return at most 1000 estimates, in equal steps of rank, ascending, that stand for all (n,)."""
    ordered = np.sort(estimates)
    if len(ordered) <= _RANKS:
        return ordered
    out: Array = ordered[((np.arange(_RANKS) + 0.5) * len(ordered) / _RANKS).astype(int)]
    return out


def forecast(estimates: Array, residuals: Array, level: float, *, recall: float, n_drawn: int) -> Forecast:
    """Return what a level will cost when ``n_drawn`` candidates have the full score already."""
    n, some = len(estimates), thinned(estimates)
    chance = exceedance(some, residuals, level)
    share = float(chance.mean())
    if share * n < 1:
        return Forecast(level, share, 1.0)
    drawn = min(1.0, (n_drawn + positives_needed(recall) / share) / n)
    found = np.cumsum(chance[::-1])
    kept = (int(np.searchsorted(found, recall * found[-1])) + 1) / len(some)
    return Forecast(level, share, drawn + (1 - drawn) * min(1.0, kept))


def cheapest(
    estimates: Array, residuals: Array, share: float, *, recall: float, n_drawn: int, highest: float = math.inf
) -> Forecast:
    """Return the cheapest forecast among levels that at least ``share`` of the pool reaches, none above ``highest``."""
    scores = np.sort((thinned(estimates)[:, None] + residuals).ravel())[::-1]
    tried = []
    while True:
        level = min(highest, float(scores[min(len(scores) - 1, int(share * len(scores)))]))
        tried.append(forecast(estimates, residuals, level, recall=recall, n_drawn=n_drawn))
        if share >= 1:
            return min(tried, key=lambda found: found.evaluated)
        share *= _WIDER
