"""Drift is found when the ratio of error to uncertainty moves, and seldom else."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from test_certificate import planted

from dubito.certificate.drift import LEVEL, N_TESTS, drift_between, larger_scores_p_value, permutation_p_value


def drifts(repeats: int, after: float, seed: int) -> list[bool]:
    rng, out = np.random.default_rng(seed), []
    for repeat in range(repeats):
        scores, _, before = planted(rng, 20, 1.8)
        pool, _, now = planted(rng, 400, after)
        found = drift_between(before, now[:20], scores, pool, seed=repeat)
        assert found is not None
        out.append(found.drifted)
    return out


def test_power_when_errors_outgrow_uncertainties():
    assert np.mean(drifts(60, 2.7, 1)) >= 0.9


def test_false_alarms_are_as_rare_as_promised():
    alarms = np.mean(drifts(150, 1.8, 2))
    assert alarms <= LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / 150)


def test_permutations_agree_with_all_of_them():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.8, 1, 5), rng.normal(0, 1, 6)
    both, found = np.r_[first, second], abs(first.mean() - second.mean())
    every = [
        abs(both[list(rows)].mean() - np.delete(both, list(rows)).mean()) >= found - 1e-12
        for rows in combinations(range(11), 5)
    ]
    sampled = permutation_p_value(first, second, seed=3, n_permutations=20_000)
    assert sampled == pytest.approx(np.mean(every), abs=0.015)


def test_p_values_are_never_zero_and_the_same_for_the_same_seed():
    first, second = np.zeros(20), np.ones(20)
    assert permutation_p_value(first, second, seed=1) == 1 / 10_000
    assert permutation_p_value(first, first, seed=1) == 1.0
    noise = np.random.default_rng(0).normal(size=(2, 9))
    assert permutation_p_value(*noise, seed=5) == permutation_p_value(*noise, seed=5)
    assert permutation_p_value(*noise, seed=5) != permutation_p_value(*noise, seed=6)


def test_p_values_are_uniform_when_nothing_moves():
    rng = np.random.default_rng(11)
    found = [permutation_p_value(*rng.normal(size=(2, 8)), seed=i, n_permutations=199) for i in range(600)]
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(found) <= level) == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / 600))


def test_larger_scores_are_drift_smaller_ones_are_progress():
    rng = np.random.default_rng(1)
    slice_scores, pool = rng.lognormal(size=30), rng.lognormal(size=2000)
    ratios = rng.lognormal(size=(2, 30))
    found = {factor: drift_between(*ratios, slice_scores, factor * pool, seed=0) for factor in (0.3, 1.0, 3.0)}
    assert [found[f].drifted for f in found if found[f] is not None] == [False, False, True]
    assert larger_scores_p_value(slice_scores, 3 * pool) * N_TESTS < LEVEL


def test_too_little_to_compare_is_no_drift():
    assert drift_between([1.0], [1.0], [1.0], np.array([1.0]), seed=0) is None
    few = drift_between([], [2.0, 2.0], [1.0, 2.0, 3.0], np.array([1.0, 2.0, 3.0]), seed=0)
    assert few is not None
    assert (few.p_value, few.ratio_before, few.ratio_now, few.drifted) == (None, None, pytest.approx(2.0), False)


def test_ratios_are_geometric_means_and_bad_ones_left_out():
    found = drift_between([1.0, 4.0, float("nan"), 0.0], [2.0, 2.0], [1.0], np.array([1.0]), seed=0)
    assert found is not None
    assert found.ratio_before == pytest.approx(2.0)
    assert found.scores_p_value is None
    assert set(found.record()) == {"p_value", "ratio_before", "ratio_now", "scores_p_value", "drifted"}
