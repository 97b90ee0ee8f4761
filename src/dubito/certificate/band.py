"""A band that holds the share of accepted and bad structures at every threshold at once.

A bad control structure has the value of its score, a right one infinity. The distribution function of these values at
lambda is P(score <= lambda and bad). With ``k`` bad control structures at or below lambda it lies between the
(k)-th and the (k+1)-th order statistic of ``n`` uniform numbers, so that bounds on all order statistics at once bound
it wherever lambda was put, also by looking at the same labels (Berk and Jones, https://doi.org/10.1007/BF00533250;
Moscovich and Nadler, https://doi.org/10.1016/j.spl.2016.11.027 for the recursion).

Each order statistic is given a tail of its beta law; the tails are lowered until the chance that any of them lies
outside is as asked, exactly, by a recursion over the number of points below the bounds. Only those counts take part
that a threshold can have: with a risk of 5 % and 20 labels it must have no bad one, and the band is then the exact
interval of Clopper and Pearson for no event.

The numbers are those of independent draws. A control slice is drawn without replacement, which scatters less.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dubito.certificate.pool import Array
from dubito.core.errors import DataError


@dataclass(frozen=True)
class Band:
    """Bounds of the share by the number ``k`` of bad control structures at or below the threshold, (k_max + 1,)."""

    low: Array
    high: Array


@lru_cache(maxsize=256)
def simultaneous_band(n: int, k_max: int, level: float = 0.95) -> Band:
    """Return bounds that hold for all counts from 0 to ``k_max`` at once with probability ``level`` or more.

    Half of what is missing to one is spent on either side.

    Raises
    ------
    DataError
        When counts or level are impossible.
    """
    if not 0 <= k_max <= n or n < 1 or not 0 < level < 1:
        raise DataError(f"No band for counts up to {k_max} among {n} labels at the level {level}.")
    from scipy.special import betaincinv

    miss = (1 - level) / 2
    counts = np.arange(1, min(k_max + 1, n) + 1)

    def upper(tail: float) -> Array:
        # The j-th order statistic has a j-th part of the tail of the first: no bad structure is what is hoped for.
        return np.asarray(betaincinv(counts, n - counts + 1, 1 - tail / counts))

    high = np.ones(k_max + 1)
    high[: len(counts)] = upper(_tail_for(lambda tail: crossing_above(upper(tail), n), miss))
    low = np.zeros(k_max + 1)
    if k_max:
        counts = np.arange(1, k_max + 1)
        tail = _tail_for(lambda t: crossing_below(betaincinv(counts, n - counts + 1, t), n), miss)
        low[1:] = betaincinv(counts, n - counts + 1, tail)
    return Band(low, high)


def _tail_for(crossing: Callable[[float], float], miss: float) -> float:
    """Return the tail of each order statistic at which any crosses with probability ``miss``."""
    from scipy.optimize import brentq

    if crossing(miss) <= miss * (1 + 1e-9):
        return miss
    # A union bound is at the far end: it can't be needed to go below.
    found = brentq(lambda x: crossing(math.exp(x)) - miss, math.log(miss) - 12.0, math.log(miss), xtol=1e-10)
    return math.exp(float(found) - 1e-9)


def crossing_above(bounds: Array, n: int) -> float:
    """Return the probability that any of the smallest order statistics of ``n`` uniform numbers exceeds its bound.

    Parameters
    ----------
    bounds : of the first, second, ... order statistic, ascending, (k,)
    """
    # Points below each bound: fewer than its rank is a crossing; k or more can't cross any later one.
    k = len(bounds)
    state = np.zeros(k + 1)
    state[0] = 1.0
    crossed, before = 0.0, 0.0
    for rank, bound in enumerate(bounds, start=1):
        state = _advance(state, n, before, float(bound))
        crossed += float(state[:rank].sum())
        state[:rank] = 0.0
        before = float(bound)
    return min(1.0, crossed)


def crossing_below(bounds: Array, n: int) -> float:
    """Return the probability that any of the smallest order statistics of ``n`` uniform numbers is below its bound.

    Parameters
    ----------
    bounds : of the first, second, ... order statistic, ascending, (k,)
    """
    k = len(bounds)
    state = np.zeros(k + 1)
    state[0] = 1.0
    crossed, before = 0.0, 0.0
    for rank, bound in enumerate(bounds, start=1):
        state = _advance(state, n, before, float(bound))
        crossed += float(state[rank:].sum())
        state[rank:] = 0.0
        before = float(bound)
    return min(1.0, crossed)


def _advance(state: Array, n: int, before: float, bound: float) -> Array:
    """Return the law of the number of points below ``bound``, given that below ``before``; the last entry is 'or more'.

    A point that is not below ``before`` is below ``bound`` with probability (bound - before) / (1 - before).
    """
    from scipy.special import bdtrc, gammaln, xlog1py, xlogy

    k = len(state) - 1
    share = min(1.0, max(0.0, (bound - before) / (1.0 - before))) if before < 1.0 else 1.0
    out = np.zeros(k + 1)
    out[k] = state[k]
    for have in np.flatnonzero(state[:k]):
        left, more = n - have, np.arange(min(k - have, n - have + 1))
        ways = gammaln(left + 1) - gammaln(more + 1) - gammaln(left - more + 1)
        out[have : have + len(more)] += state[have] * np.exp(ways + xlogy(more, share) + xlog1py(left - more, -share))
        out[k] += state[have] * (float(bdtrc(k - have - 1, left, share)) if k - have <= left else 0.0)
    return out
