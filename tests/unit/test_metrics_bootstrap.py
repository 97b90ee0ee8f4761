"""Intervals over structures: that they hold what they claim, and that atoms alone would not."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy import stats

from dubito.core.errors import DataError
from dubito.metrics.bootstrap import _resamples, paired_difference, structure_interval
from dubito.metrics.ranking import auroc_error, spearman
from dubito.metrics.reliability import z_variance
from dubito.metrics.sparsification import ause


def mean(x):
    return float(np.mean(x))


def structures(seed, n=40, n_atoms=10):
    """Return values whose structures share half of their variance, and the labels of structures."""
    rng = np.random.default_rng(seed)
    shared = np.repeat(rng.normal(size=n), n_atoms)
    return shared + rng.normal(size=n * n_atoms), np.repeat(np.arange(n), n_atoms)


def test_interval_covers_the_truth_and_that_of_atoms_does_not():
    inside = {"structures": 0, "atoms": 0}
    for k in range(100):
        x, label = structures(k)
        for name, structure in (("structures", label), ("atoms", np.arange(x.size))):
            found = structure_interval(mean, x, structure=structure, seed=k, level=0.9, n_resamples=200)
            inside[name] += found.low <= 0 <= found.high
    # 90 expected; s.d. 3. Atoms: variance 0.2 / 400 claimed of 1.1 / 40 true.
    assert 80 <= inside["structures"] <= 99
    assert inside["atoms"] < 70


def test_standard_error_of_a_mean_of_unequal_structures():
    # A ratio estimator: the delta method gives its variance.
    rng = np.random.default_rng(1)
    size = rng.integers(2, 30, 200)
    label = np.repeat(rng.permutation(200), size)
    x = np.repeat(rng.normal(size=200), size) + rng.normal(size=size.sum())
    residual = np.bincount(label, x) - np.bincount(label) * x.mean()
    expected = math.sqrt(np.sum(residual**2)) / x.size
    found = structure_interval(mean, x, structure=label, seed=0, n_resamples=2000)
    assert (found.high - found.low) / (2 * stats.norm.ppf(0.975)) == pytest.approx(expected, rel=0.08)
    assert found.value == x.mean()


def test_a_resample_holds_whole_structures_with_all_their_atoms():
    label = np.array([7, 3, 7, 5, 3, 7])  # not contiguous
    _, codes = np.unique(label, return_inverse=True)
    seen = set()
    for rows in _resamples(codes, 3, seed=0, n_resamples=50):
        counts = np.bincount(rows, minlength=6)
        for structure in (3, 5, 7):
            assert len(set(counts[label == structure])) == 1
        assert counts[0] + counts[1] + counts[3] == 3
        seen.add(tuple(counts))
    assert len(seen) > 5


def test_intervals_follow_from_the_seed_whatever_the_labels():
    x, label = structures(3)
    first = structure_interval(mean, x, structure=label, seed=1, n_resamples=50)
    assert first == structure_interval(mean, x, structure=[f"frame {k:03d}" for k in label], seed=1, n_resamples=50)
    assert first != structure_interval(mean, x, structure=label, seed=2, n_resamples=50)


def test_paired_difference_is_far_better_known_than_the_two_apart():
    rng = np.random.default_rng(5)
    label = np.repeat(np.arange(60), 20)
    hard = np.repeat(rng.lognormal(sigma=0.8, size=60), 20)
    error = np.abs(hard * rng.normal(size=1200))
    good, bad = hard * rng.lognormal(sigma=0.1, size=1200), hard * rng.lognormal(sigma=0.4, size=1200)
    apart = [structure_interval(spearman, s, error, structure=label, seed=0, n_resamples=300) for s in (good, bad)]
    paired = paired_difference(spearman, (good, error), (bad, error), structure=label, seed=0, n_resamples=300)
    assert apart[0].low < apart[1].high  # side by side they can't be told apart
    assert paired.excludes(0.0) and paired.low > 0
    assert paired.value == pytest.approx(apart[0].value - apart[1].value)
    same = paired_difference(spearman, (good, error), (good, error), structure=label, seed=0, n_resamples=20)
    assert same.low == same.value == same.high == 0.0
    assert not same.excludes(0.0)


def test_vectors_are_resampled_by_row():
    x = np.arange(30.0).reshape(10, 3)
    found = structure_interval(lambda v: float(v[:, 1].mean()), x, structure=np.arange(10), seed=0, n_resamples=100)
    assert found.value == x[:, 1].mean()
    assert x[0, 1] < found.low < found.value < found.high < x[-1, 1]


def test_undefined_resamples_are_counted_and_too_many_leave_no_interval():
    # One structure alone holds the event: it is missing from (1 - 1/n)^n of the resamples.
    error = np.where(np.arange(20) == 0, 1.0, 0.1)
    score = np.arange(20.0)
    found = structure_interval(lambda s, e: auroc_error(s, e, 0.5), score, error, structure=np.arange(20), seed=0)
    assert found.n_defined / found.n_resamples == pytest.approx(1 - (1 - 1 / 20) ** 20, abs=0.05)
    assert np.isfinite(found.low)
    none = structure_interval(lambda s, e: auroc_error(s, e, 5.0), score, error, structure=np.arange(20), seed=0)
    assert none.n_defined == 0
    assert math.isnan(none.low) and math.isnan(none.high) and not none.excludes(0.5)


def test_an_infinite_statistic_is_an_answer_and_not_left_out():
    # A claim of certainty that is wrong, in one structure: 64 % of the resamples hold it.
    sigma = np.where(np.arange(200) == 7, 0.0, 1.0)
    error, label = np.random.default_rng(2).normal(size=200), np.repeat(np.arange(20), 10)
    found = structure_interval(z_variance, error, sigma, structure=label, seed=0, n_resamples=300)
    assert found.value == found.high == math.inf
    assert found.low < 1.2
    assert found.n_defined == 300


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"structure": [0, 1]}, "one label per row"),
        ({"structure": [0, 0, 0]}, "at least two"),
        ({"level": 1.0}, "between 0 and 1"),
        ({"n_resamples": 0}, "resamples"),
    ],
)
def test_what_can_not_be_resampled_is_refused(change, match):
    with pytest.raises(DataError, match=match):
        structure_interval(mean, np.ones(3), **({"structure": [0, 1, 2], "seed": 0} | change))


def test_a_thousand_resamples_of_a_hundred_molecules_take_seconds():
    rng = np.random.default_rng(9)
    label, sigma = np.repeat(np.arange(100), 30), rng.lognormal(size=3000)
    error = np.abs(sigma * rng.normal(size=3000))
    started = time.process_time()
    for statistic in (spearman, ause, lambda s, e: auroc_error(s, e, 1.0)):
        found = structure_interval(statistic, sigma, error, structure=label, seed=0)
        assert found.low < found.value < found.high
    assert time.process_time() - started < 20  # measured: about 2 s
