"""A band that holds the share of accepted and bad structures at every threshold at once.

A bad control structure has the value of its score, a right one infinity. The distribution function of these values at
lambda is P(score <= lambda and bad). With ``k`` bad control structures at or below lambda it lies between the
(k)-th and the (k+1)-th order statistic of ``n`` uniform numbers, so that bounds on all order statistics at once bound
it wherever lambda was put, also by looking at the same labels (Berk and Jones, https://doi.org/10.1007/BF00533250;
Moscovich and Nadler, https://doi.org/10.1016/j.spl.2016.11.027 for the recursion).

Each order statistic is given a tail of its beta law; the tails are lowered until the chance that any of them lies
outside is as asked, exactly, by a recursion over the number of points below the bounds (those of a Poisson process,
whose steps are independent, given that there are ``n`` in all). Only those counts take part
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

LARGE = 400
"""Above so many counts the band is that of Massart, https://doi.org/10.1214/aop/1176990746: the recursion takes
seconds. It is as wide at every count, so wider at the first and narrower in the middle."""


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
    miss = (1 - level) / 2
    if k_max > LARGE:
        return _massart(n, k_max, miss)
    from scipy.special import betaincinv

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


def _massart(n: int, k_max: int, miss: float) -> Band:
    """Return the band of Dvoretzky, Kiefer and Wolfowitz with Massart's constant, for ``miss`` up to a half."""
    share = np.arange(k_max + 1) / n
    reach = math.sqrt(math.log(1.0 / miss) / (2.0 * n))
    return Band(np.maximum(0.0, share - reach), np.minimum(1.0, share + reach))


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
    # Points below each bound: fewer than its rank is a crossing; k or more can't cross any later one and are let go.
    k = len(bounds)
    state = np.zeros(k)
    state[0] = 1.0
    crossed, before = 0.0, 0.0
    for rank, bound in enumerate(bounds, start=1):
        state = _advance(state, n * (float(bound) - before))
        crossed += float(state[:rank] @ _ends(np.arange(rank), n, float(bound)))
        state[:rank] = 0.0
        before = float(bound)
    return min(1.0, crossed)


def crossing_below(bounds: Array, n: int) -> float:
    """Return the probability that any of the smallest order statistics of ``n`` uniform numbers is below its bound.

    Parameters
    ----------
    bounds : of the first, second, ... order statistic, ascending, (k,)
    """
    # As many points below a bound as its rank are a crossing; what is left of the first k - 1 has never crossed.
    k = len(bounds)
    state = np.zeros(k)
    state[0] = 1.0
    before = 0.0
    for rank, bound in enumerate(bounds, start=1):
        state = _advance(state, n * (float(bound) - before))
        state[rank:] = 0.0
        before = float(bound)
    return min(1.0, max(0.0, 1.0 - float(state @ _ends(np.arange(k), n, before))))


def _advance(state: Array, rate: float) -> Array:
    """Return the law of the points so far after ``rate`` more are expected, of a Poisson process; more are cut off."""
    return np.asarray(np.convolve(state, _poisson(np.arange(len(state)), rate))[: len(state)])


def _ends(points: Array, n: int, bound: float) -> Array:
    """Return what turns a Poisson process with ``points`` below ``bound`` into one with ``n`` points in all."""
    return _poisson(n - points, n * (1.0 - bound)) / _poisson(np.array([n]), float(n))


def _poisson(counts: Array, rate: float) -> Array:
    from scipy.special import gammaln, xlogy

    return np.asarray(np.exp(xlogy(counts, max(0.0, rate)) - max(0.0, rate) - gammaln(counts + 1.0)))
