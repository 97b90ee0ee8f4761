"""How many labels random needs for one of a selector's: ratios on learning curves, with intervals over paired seeds.

The target error is that which random, averaged over seeds, reaches at a fixed share of the labels it adds. Curves are
interpolated on logarithmic scales, where learning curves are nearly straight (Hestness et al. 2017,
https://arxiv.org/abs/1712.00409), after the running minimum.

Two intervals, none of them with fewer than :data:`MIN_SEEDS` pairs:

- Percentiles of a bootstrap over seeds, the same seeds for both curves and the target made anew each time, since the
  rule is what is fixed, not the number; expanded to what a t interval of as many values would have (Hesterberg 2015,
  https://doi.org/10.1080/00031305.2015.1089789, section 5.3). A bootstrap can't leave the range of its few values, so
  it stays too narrow all the same: with five pairs, 95 % are about 92, with three 75.
- Student's t on the logarithm of each pair's own ratio, whose target is the error that the pair's own random run has
  at the fixed share. It covers 93 to 95 % (benchmarks/savings_coverage.py), so that it is what decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubito.core.errors import DataError
from dubito.core.random import generator

Array = NDArray[Any]

# With fewer pairs a bootstrap interval of 95 % holds what was planted in 52 to 84 % of simulated studies.
MIN_SEEDS = 5


@dataclass(frozen=True)
class Saving:
    """Labels that random needs, over those of a selector, for the same error.

    Attributes
    ----------
    ratio : above 1 the selector saves labels; a bound where ``bound`` says so
    low, high : bootstrap interval, NaN with fewer than :data:`MIN_SEEDS` pairs; an end that is a bound itself counts
        as it stands
    t_low, t_high : paired t interval, which decides; NaN likewise
    pairs_ratio : geometric mean of the pairs' own ratios, the middle of the t interval
    why_no_interval : in words, empty where there is one
    bound : ``exact``; ``at_most``: the selector never reached the target; ``at_least``: it was there at the start
    target : the error to reach
    labels_random, labels_selector : for the target, interpolated
    n_seeds : pairs of campaigns
    censored_share : share of resamples whose ratio is a bound
    n_bounded : pairs whose own ratio is a bound; it counts as it stands
    """

    ratio: float
    low: float
    high: float
    t_low: float
    t_high: float
    pairs_ratio: float
    why_no_interval: str
    bound: str
    target: float
    labels_random: float
    labels_selector: float
    n_seeds: int
    censored_share: float
    n_bounded: int


def labels_at(labels: ArrayLike, errors: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    """Return the labels at which falling curves first reach their targets.

    Parameters
    ----------
    labels : (k,) increasing, > 0
    errors : (..., k) > 0
    target : (...), one for each curve

    Returns
    -------
    needed : (...) interpolated on logarithmic scales; the last number of labels where a curve never gets there, the
        first where it starts there
    bound : (...) int, 1: the truth is above ``needed``; -1: at or below it; 0: exact
    """
    x, y, t = np.log(np.asarray(labels, "f8")), np.log(np.asarray(errors, "f8")), np.log(np.asarray(target, "f8"))
    y = np.minimum.accumulate(y, axis=-1)
    there = y <= t[..., None]
    first = np.argmax(there, axis=-1)
    never, at_start = ~there.any(axis=-1), there[..., 0]
    k = np.clip(first, 1, len(x) - 1)
    above = np.take_along_axis(y, (k - 1)[..., None], -1)[..., 0]
    below = np.take_along_axis(y, k[..., None], -1)[..., 0]
    share = (above - t) / np.where(above > below, above - below, 1.0)
    needed = np.exp(x[k - 1] + np.clip(share, 0, 1) * (x[k] - x[k - 1]))
    out = np.where(never, np.exp(x[-1]), np.where(at_start, np.exp(x[0]), needed))
    return out, np.where(never, 1, np.where(at_start, -1, 0))


def error_at(labels: ArrayLike, errors: ArrayLike, wanted: float) -> Array:
    """Return the errors of curves (..., k), after the running minimum, at a number of labels, logarithmically."""
    x, y = np.log(np.asarray(labels, "f8")), np.log(np.asarray(errors, "f8"))
    y = np.minimum.accumulate(y, axis=-1)
    k = int(np.clip(np.searchsorted(x, np.log(wanted)), 1, len(x) - 1))
    share = (np.log(wanted) - x[k - 1]) / (x[k] - x[k - 1])
    out: Array = np.exp(y[..., k - 1] + share * (y[..., k] - y[..., k - 1]))
    return out


def saving(
    labels: ArrayLike,
    random: ArrayLike,
    selector: ArrayLike,
    *,
    target_share: float,
    level: float,
    n_resamples: int,
    seed: int,
    min_seeds: int = MIN_SEEDS,
) -> Saving:
    """Compare a selector with random.

    Parameters
    ----------
    labels : (k,) of each round
    random, selector : (s, k) errors of campaigns paired by seed
    target_share : of the labels that random adds
    level, n_resamples, seed : of the intervals and the bootstrap
    min_seeds : fewer have no interval; other values are for measuring what such intervals would be worth

    Raises
    ------
    DataError
        When shapes disagree or an error is not positive and finite.
    """
    counts, one, other = np.asarray(labels, "f8"), np.asarray(random, "f8"), np.asarray(selector, "f8")
    if one.ndim != 2 or one.shape != other.shape or one.shape[1] != len(counts) or not len(one):
        raise DataError(
            f"Curves of shapes {one.shape} and {other.shape} at {len(counts)} numbers of labels can't be compared; "
            "expected (seeds, rounds) for both."
        )
    if not (np.isfinite(one).all() and np.isfinite(other).all() and (one > 0).all() and (other > 0).all()):
        raise DataError(
            "A learning curve holds an error that is not a positive number. Delete that cell; it is made anew."
        )
    wanted = counts[0] + target_share * (counts[-1] - counts[0])
    n = len(one)
    draws = generator(seed, "savings").integers(0, n, (n_resamples, n))
    # The first row is the data themselves.
    rows = np.vstack([np.arange(n), draws])
    means = one[rows].mean(axis=1), other[rows].mean(axis=1)
    target = error_at(counts, means[0], wanted)
    needed_random, _ = labels_at(counts, means[0], target)
    needed, bound = labels_at(counts, means[1], target)
    ratios = needed_random / needed
    low = high = t_low = t_high = float("nan")
    own, own_bound = _own_ratios(counts, one, other, wanted)
    if n >= min_seeds:
        low, high = _expanded(ratios[1:], n, level)
        t_low, t_high = _paired_t(own, level)
    return Saving(
        ratio=float(ratios[0]),
        low=low,
        high=high,
        t_low=t_low,
        t_high=t_high,
        pairs_ratio=float(np.exp(np.log(own).mean())),
        why_no_interval="" if n >= min_seeds else f"too few seeds: {n}, expected at least {min_seeds}",
        bound={0: "exact", 1: "at_most", -1: "at_least"}[int(bound[0])],
        target=float(target[0]),
        labels_random=float(needed_random[0]),
        labels_selector=float(needed[0]),
        n_seeds=n,
        censored_share=float(np.mean(bound[1:] != 0)),
        n_bounded=int(np.count_nonzero(own_bound)),
    )


def _own_ratios(counts: Array, random: Array, selector: Array, wanted: float) -> tuple[Array, Array]:
    """Return each pair's own ratio (s,) and whether it is a bound; what a pair's two curves share drops out."""
    target = error_at(counts, random, wanted)
    needed_random, _ = labels_at(counts, random, target)
    needed, bound = labels_at(counts, selector, target)
    return needed_random / needed, bound


def _paired_t(ratios: Array, level: float) -> tuple[float, float]:
    """Return Student's interval of the mean logarithm of the pairs' ratios, as ratios."""
    from scipy import stats

    logs = np.log(ratios)
    half = stats.t.ppf((1 + level) / 2, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    low, high = np.exp(logs.mean() + np.array([-half, half]))
    return float(low), float(high)


def _expanded(values: Array, n: int, level: float) -> tuple[float, float]:
    """Return the percentile interval at the level that suits ``n`` values (Hesterberg's expanded percentiles)."""
    from scipy import stats

    tail = float(stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf((1 - level) / 2, n - 1)))
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
