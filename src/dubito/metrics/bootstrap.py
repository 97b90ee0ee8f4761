"""Intervals by resampling whole structures.

Atoms of one structure share their errors' causes, so resampling atoms would claim far too narrow intervals; structures
(or blocks of consecutive frames of a trajectory, at least as long as its autocorrelation time) are what is drawn again.
Efron and Tibshirani 1993, chapter 13 (percentile interval); Künsch 1989 (https://doi.org/10.1214/aos/1176347265) for
blocks. With few structures, below some twenty, percentile intervals are too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubito.core.errors import DataError
from dubito.core.random import generator

Array = NDArray[Any]
Statistic = Callable[..., float]
# With a smaller share of resamples where the statistic exists, the interval would describe those alone.
MIN_DEFINED = 0.5


@dataclass(frozen=True)
class Interval:
    """A statistic and its percentile interval.

    Attributes
    ----------
    value : of the data themselves
    low, high : NaN when the statistic is undefined in most resamples
    level : e.g. 0.95
    n_resamples : how often structures were drawn
    n_defined : in how many of them the statistic was not NaN; the others are left out
    n_structures : how many there are to draw
    """

    value: float
    low: float
    high: float
    level: float
    n_resamples: int
    n_defined: int
    n_structures: int

    def excludes(self, value: float) -> bool:
        """Return whether a value lies outside; False for an undefined interval."""
        return value < self.low or value > self.high


def structure_interval(
    statistic: Statistic,
    *arrays: ArrayLike,
    structure: ArrayLike,
    seed: int,
    level: float = 0.95,
    n_resamples: int = 1000,
) -> Interval:
    """Return the interval of ``statistic(*arrays)``.

    Parameters
    ----------
    statistic : of arrays like those given, with rows left out and repeated; NaN where undefined
    arrays : each (N, ...), a row per atom
    structure : (N,) label of the structure, or block, of each atom
    seed : the same seed draws the same structures, whatever the statistic
    level, n_resamples : see :class:`Interval`

    Raises
    ------
    DataError
        When lengths differ, there are fewer than two structures, or the level is impossible.
    """
    rows = [np.asarray(a) for a in arrays]
    return _interval(lambda index: statistic(*(a[index] for a in rows)), rows, structure, seed, level, n_resamples)


def paired_difference(
    statistic: Statistic,
    first: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    *,
    structure: ArrayLike,
    seed: int,
    level: float = 0.95,
    n_resamples: int = 1000,
) -> Interval:
    """Return the interval of ``statistic(*first) - statistic(*second)``, both on the same drawn structures.

    Two methods judged on the same structures err together; the difference is far better known than two separate
    intervals suggest. Parameters and errors as for :func:`structure_interval`; both are groups of its arrays.
    """
    a, b = [np.asarray(x) for x in first], [np.asarray(x) for x in second]

    def difference(index: Array) -> float:
        return statistic(*(x[index] for x in a)) - statistic(*(x[index] for x in b))

    return _interval(difference, a + b, structure, seed, level, n_resamples)


def _interval(
    of_rows: Callable[[Array], float],
    arrays: list[Array],
    structure: ArrayLike,
    seed: int,
    level: float,
    n_resamples: int,
) -> Interval:
    labels = np.asarray(structure).ravel()
    wrong = sorted({len(a) for a in arrays} - {len(labels)})
    if wrong:
        raise DataError(f"{len(labels)} structure labels don't fit arrays of {wrong} rows; give one label per row.")
    if not 0 < level < 1 or n_resamples < 1:
        raise DataError(f"An interval needs a level between 0 and 1 and resamples; found {level} and {n_resamples}.")
    _, codes = np.unique(labels, return_inverse=True)
    n = int(codes.max(initial=-1)) + 1
    if n < 2:
        raise DataError(f"Structures are what is drawn again, and {n} can't vary; at least two are needed.")
    value = float(of_rows(np.arange(len(labels))))
    drawn = np.array([of_rows(index) for index in _resamples(codes, n, seed, n_resamples)], "f8")
    known = drawn[~np.isnan(drawn)]
    low = high = float("nan")
    if len(known) >= MIN_DEFINED * n_resamples:
        # No interpolation, since an infinite value (a z without a width) is an answer and must not turn into NaN.
        edges = [(1 - level) / 2, (1 + level) / 2]
        low, high = (float(q) for q in np.quantile(known, edges, method="inverted_cdf"))
    return Interval(value, low, high, level, n_resamples, len(known), n)


def _resamples(codes: Array, n: int, seed: int, n_resamples: int) -> Iterator[Array]:
    """Yield row numbers of all atoms of ``n`` structures drawn with replacement."""
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes, minlength=n)
    starts = np.cumsum(counts) - counts
    rng = generator(seed, "structure-bootstrap")
    for _ in range(n_resamples):
        pick = rng.integers(0, n, n)
        size = counts[pick]
        ends = np.cumsum(size)
        yield order[np.repeat(starts[pick] - (ends - size), size) + np.arange(ends[-1])]
