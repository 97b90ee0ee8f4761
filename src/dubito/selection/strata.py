"""Shares of the batch for each sampler that found candidates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dubito.data.structures import Array

MOST_SCORES = 1001
"""So many quantiles stand for the scores of a stratum."""


def shares(sizes: Mapping[str, int], n: int) -> dict[str, int]:
    """Return how many of ``n`` each stratum gets: as equal as their sizes allow, by name where that leaves a choice.

    What a small stratum can't fill goes to the others; the sum is n, or all there is.
    """
    out = dict.fromkeys(sorted(sizes), 0)
    left = min(n, sum(sizes.values()))
    while left:
        hungry = [name for name in out if out[name] < sizes[name]]
        each = max(1, left // len(hungry))
        # The larger stratum first where not all can have one.
        for name in sorted(hungry, key=lambda s: (-sizes[s], s)):
            given = min(each, sizes[name] - out[name], left)
            out[name] += given
            left -= given
    return out


def pool_scores(scores: Array, strata: list[str]) -> dict[str, dict[str, object]]:
    """Return, for each stratum, how many scores there are and their order statistics, ascending.

    Parameters
    ----------
    scores : (n,) of the pool that the control slice is drawn from
    strata : (n,) what found each

    Returns
    -------
    By name ``n`` and ``quantiles``: all scores up to 1001 of them, else 1001 equally spaced order statistics
    """
    out: dict[str, dict[str, object]] = {}
    names = np.array(strata, dtype=object)
    for name in sorted(set(strata)):
        ranked = np.sort(scores[names == name])
        rows = np.linspace(0, len(ranked) - 1, min(len(ranked), MOST_SCORES)).round().astype(int)
        out[name] = {"n": len(ranked), "quantiles": [float(score) for score in ranked[rows]]}
    return out
