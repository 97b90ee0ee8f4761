"""Whether what held for one control slice still holds for the next pool.

Two tests, and ``drifted`` when either finds something at 1 % after Bonferroni over the two:

- **labels**: the ratio of error to uncertainty of each structure, of the slice that calibrated and of the next one. A
  permutation test of the difference of the mean logarithms, either way: a threshold that is carried over rests on
  this ratio (Phipson and Smyth, https://doi.org/10.2202/1544-6115.1585: the p-value counts the sample itself and is
  never too small).
- **scores**: those of the next pool against those of the slice. Kolmogorov and Smirnov's two-sample test, one way:
  larger scores say that the pool holds what the slice did not. Smaller ones are what a better model is meant to give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dubito.certificate.pool import Array
from dubito.core.random import generator

LEVEL = 0.01
N_TESTS = 2
N_PERMUTATIONS = 9999
_CHUNK = 2_000_000
MIN_LABELS = 2
"""Fewer ratios in a slice have no spread to compare."""


@dataclass(frozen=True)
class Drift:
    """What the two tests say. Ratios are geometric means; None where there is too little to test."""

    p_value: float | None
    ratio_before: float | None
    ratio_now: float | None
    scores_p_value: float | None
    drifted: bool

    def record(self) -> dict[str, Any]:
        """Return it as it stands in ``metrics.json``."""
        return asdict(self)


def drift_between(
    ratios_before: Sequence[float] | Array,
    ratios_now: Sequence[float] | Array,
    scores_before: Sequence[float] | Array,
    pool_scores: Array,
    *,
    seed: int,
) -> Drift | None:
    """Compare the slice that calibrated with the next one and its pool; None when nothing can be compared.

    Parameters
    ----------
    ratios_before, ratios_now : error over uncertainty of each structure, positive
    scores_before : scores of the slice that calibrated
    pool_scores : scores that stand for the next pool, see :func:`dubito.certificate.pool.sample_of`
    """
    before, now = _logs(ratios_before), _logs(ratios_now)
    labels = permutation_p_value(before, now, seed=seed) if min(len(before), len(now)) >= MIN_LABELS else None
    scores = larger_scores_p_value(np.asarray(scores_before, "f8"), pool_scores)
    found = [p for p in (labels, scores) if p is not None]
    if not found:
        return None
    return Drift(
        p_value=labels,
        ratio_before=float(np.exp(before.mean())) if len(before) else None,
        ratio_now=float(np.exp(now.mean())) if len(now) else None,
        scores_p_value=scores,
        drifted=min(found) * N_TESTS < LEVEL,
    )


def _logs(ratios: Sequence[float] | Array) -> Array:
    values = np.asarray(ratios, "f8")
    return np.asarray(np.log(values[np.isfinite(values) & (values > 0)]))


def permutation_p_value(first: Array, second: Array, *, seed: int, n_permutations: int = N_PERMUTATIONS) -> float:
    """Return the two-sided p-value of a difference of means under random relabelling, never below 1 / (n + 1)."""
    both, n = np.concatenate([first, second]), len(first)
    share = 1.0 / n + 1.0 / len(second)
    # mean(first) - mean(second) is a growing function of the sum over the first alone.
    found = abs(first.mean() - second.mean())
    rng = generator(seed, "drift")
    extreme, left = 0, n_permutations
    while left:
        rows = min(left, max(1, _CHUNK // len(both)))
        drawn = rng.permuted(np.tile(both, (rows, 1)), axis=1)[:, :n].sum(axis=1)
        differences = np.abs(drawn * share - both.sum() / len(second))
        extreme += int((differences >= found * (1 - 1e-9) - 1e-12).sum())
        left -= rows
    return (1 + extreme) / (1 + n_permutations)


def larger_scores_p_value(before: Array, pool: Array) -> float | None:
    """Return the p-value of the pool having larger scores than the slice; None when either has none."""
    before, pool = before[np.isfinite(before)], pool[np.isfinite(pool)]
    if min(len(before), len(pool)) < MIN_LABELS:
        return None
    from scipy.stats import ks_2samp

    return float(ks_2samp(before, pool, alternative="greater", method="auto").pvalue)
