"""The cut-off that keeps the candidates that matter, from those among a random draw: class-conditional conformal.

Positives are the candidates whose full score reaches the decision threshold. Of the positives of a random draw the
k-th smallest cheap score is the cut-off, ``k = floor((1 - recall) (n + 1))`` with n positives: a positive that was not
drawn lies below it with a probability of at most ``k / (n + 1) <= 1 - recall`` (split conformal prediction within one
class, Vovk et al. 2005, ch. 4.5; Vovk 2012, https://arxiv.org/abs/1209.2673). Positives of one pool, in random order,
are exchangeable whatever the pool is: frames of one trajectory may be as correlated as they like.

A bound that holds for all candidates on average does not do: it may spend its misses on the few that matter.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# 1 - 0.95 is a little more than 0.05, and 1 - 0.9 a little less than 0.1.
_ROUNDING = 1e-9


def rank_of_cutoff(n_positives: int, recall: float) -> int:
    """Return k; 0 where there are too few positives to leave out anything."""
    return math.floor((1 - recall) * (n_positives + 1) + _ROUNDING)


def positives_needed(recall: float) -> int:
    """Return the smallest number of positives whose k is 1: 19 for a recall of 0.95."""
    return max(1, math.ceil(1 / (1 - recall) - _ROUNDING) - 1)


def cutoff(positives: Array, recall: float) -> float:
    """Return the cheap score from which on candidates need the full score.

    Parameters
    ----------
    positives : (n,) cheap scores of the positives drawn, higher is more doubtful
    recall : share of all positives that must be kept, at least

    Returns
    -------
    float
        Minus infinity where there are too few positives: everything is kept.
    """
    k = rank_of_cutoff(len(positives), recall)
    return float(np.sort(positives)[k - 1]) if k else -math.inf
