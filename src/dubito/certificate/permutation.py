"""A permutation test of two means whose values come in groups that are alike, such as frames of one trajectory.

Whole groups change sides, never single values (Winkler et al., https://doi.org/10.1016/j.neuroimage.2015.05.092, on
exchangeable blocks). The difference is divided by its standard error, robust to what is alike within a group, so that
the test also holds where the two sides have groups of other sizes (Chung and Romano,
https://doi.org/10.1214/13-AOS1090). The p-value counts the sample itself and is never too small (Phipson and Smyth,
https://doi.org/10.2202/1544-6115.1585).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dubito.certificate.pool import Array
from dubito.core.random import generator

N_PERMUTATIONS = 9999
_CHUNK = 500_000
_TINY = 1e-300


def can_reach(level: float, groups_first: int, groups_second: int) -> bool:
    """Return whether so few groups can show anything: whether their smallest p-value is at most ``level``."""
    if min(groups_first, groups_second) < 2:  # one group has no spread
        return False
    return math.comb(groups_first + groups_second, groups_first) * level >= 1.0


def n_groups(groups: Sequence[str]) -> int:
    """Return how many groups there are; a value whose group is '' is one of its own."""
    return len(set(groups) - {""}) + sum(not name for name in groups)


def larger_mean_p_value(
    first: Array,
    groups_first: Sequence[str],
    second: Array,
    groups_second: Sequence[str],
    *,
    seed: int,
    n_permutations: int = N_PERMUTATIONS,
) -> float:
    """Return the p-value of the second mean not being larger than the first, never below 1 / (n_permutations + 1).

    Parameters
    ----------
    first, second : values, (n,) and (m,)
    groups_first, groups_second : which values are alike; '' is a group of its own. The same name on both sides means
        two groups.
    """
    # The common mean is taken off first, so that squares don't cancel.
    middle = float(np.concatenate([first, second]).mean())
    sums = np.concatenate([_sums(first - middle, groups_first), _sums(second - middle, groups_second)])
    is_second = np.zeros(len(sums))
    is_second[n_groups(groups_first) :] = 1.0
    whole = sums.sum(axis=0)
    found = float(_statistic(is_second[None] @ sums, whole, len(sums), int(is_second.sum()))[0])
    rng = generator(seed, "drift")
    extreme, left = 0, n_permutations
    while left:
        rows = min(left, max(1, _CHUNK // len(sums)))
        drawn = rng.permuted(np.tile(is_second, (rows, 1)), axis=1)
        values = _statistic(drawn @ sums, whole, len(sums), int(is_second.sum()))
        extreme += int((values >= found - 1e-9 * abs(found) - 1e-12).sum())
        left -= rows
    return (1 + extreme) / (1 + n_permutations)


def _sums(values: Array, groups: Sequence[str]) -> Array:
    """Return of each group: count, sum, and what the variance takes (s s, s n, n n), (groups, 5)."""
    names = [name or f"\0{row}" for row, name in enumerate(groups)]
    of = np.unique(names, return_inverse=True)[1]
    n, s = np.bincount(of).astype("f8"), np.bincount(of, weights=values)
    return np.stack([n, s, s * s, s * n, n * n], axis=1)


def _statistic(second: Array, whole: Array, n_all: int, n_second: int) -> Array:
    """Return mean(second) - mean(first) over its standard error, (rows,); sums of the second side (rows, 5)."""
    means, variances = [], []
    for part, k in ((second, n_second), (whole - second, n_all - n_second)):
        n, s, ss, sn, nn = part.T
        mean = s / n
        # Sum over groups of (sum of the group's residuals) squared.
        variances.append(np.maximum(ss - 2 * mean * sn + mean * mean * nn, 0.0) / n**2 * k / (k - 1))
        means.append(mean)
    difference, variance = means[0] - means[1], variances[0] + variances[1]
    # Values that are all the same on either side: rounding is no difference, and any other is as large as can be.
    difference = np.where(np.abs(difference) < 1e-12, 0.0, difference)
    return np.asarray(difference / np.sqrt(np.maximum(variance, _TINY + 1e-24)))
