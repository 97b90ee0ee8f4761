"""Drift is found when errors outgrow what is claimed by more than the margin, and seldom else."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from test_certificate import planted

from dubito.certificate.drift import LEVEL, MARGIN, N_TESTS, Drift, Looked, drift_between
from dubito.certificate.permutation import can_reach, larger_mean_p_value, n_groups

ALONE = 20
FEW = 999


def looked(ratios, scores, groups=None) -> Looked:
    names = tuple(groups or [""] * len(scores))
    return Looked(tuple(ratios), names[: len(ratios)], tuple(scores), names)


def compared(before: Looked, now: Looked, seed: int = 0) -> Drift:
    found = drift_between(before, now, seed=seed, n_permutations=FEW)
    assert found is not None
    return found


def found_between(repeats: int, ratios: tuple[float, float], seed: int) -> list[Drift]:
    rng, out = np.random.default_rng(seed), []
    for repeat in range(repeats):
        slices = []
        for ratio in ratios:
            scores, _, values = planted(rng, ALONE, ratio)
            slices.append(looked(values, scores))
        out.append(compared(*slices, seed=repeat))
    return out


def test_power_when_errors_outgrow_uncertainties():
    found = found_between(200, (1.8, 2.7), 1)
    assert np.mean([one.drifted for one in found]) >= 0.9
    assert not any(one.cautious for one in found)


def test_errors_that_fell_are_cautious_and_never_drift():
    found = found_between(100, (2.7, 1.8), 1)
    assert not any(one.drifted for one in found)
    assert np.mean([one.cautious for one in found]) >= 0.85


def test_at_the_margin_alarms_are_as_rare_as_promised():
    """The hypothesis is that the ratio has not grown by more than the margin; there alarms are most frequent."""
    alarms = np.mean([one.drifted for one in found_between(400, (1.8, 1.8 * MARGIN), 2)])
    assert alarms <= LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / 400)


def test_a_new_scale_on_few_validation_structures_is_no_drift():
    """The reviewer's case: nothing moves but the scale, fitted anew on 10 structures: 14 % were called drift."""
    rng, alarms = np.random.default_rng(5), []
    for repeat in range(200):
        slices = []
        for _ in range(2):
            _, _, valid = planted(rng, 10, 1.8)
            spread = rng.lognormal(0, 0.3, (2, ALONE))
            scale = np.sqrt(np.mean((valid * rng.lognormal(0, 0.3, 10)) ** 2))
            scores, _, ratios = planted(rng, ALONE, 1.8)
            slices.append(looked(ratios * spread[0] / scale, scores * scale))
        alarms.append(compared(*slices, seed=repeat).drifted)
    assert np.mean(alarms) <= 0.03


def walked(rng: np.random.Generator, walkers: int = 8, frames: int = 120, tau: float = 40) -> Looked:
    keep = np.exp(-1 / tau)
    logs = np.empty((2, walkers, frames))
    logs[:, :, 0] = rng.normal(size=(2, walkers))
    for t in range(1, frames):
        logs[:, :, t] = keep * logs[:, :, t - 1] + np.sqrt(1 - keep**2) * rng.normal(size=(2, walkers))
    rows = rng.choice(walkers * frames, 40, replace=False)
    scores, ratios = np.exp(0.5 * logs.reshape(2, -1)[:, rows])
    return looked(ratios, scores, [f"w{row // frames}" for row in rows])


def test_frames_of_walkers_raise_no_more_alarms_than_independent_ones():
    """Judged frame by frame, as if independent, the same slices are called drift several times as often."""
    rng, by_walker, by_frame = np.random.default_rng(3), [], []
    for repeat in range(200):
        before, now = walked(rng), walked(rng)
        # At the margin, so that the level is what is tested.
        grown = {key: tuple(MARGIN * value for value in getattr(now, key)) for key in ("ratios", "scores")}
        now = replace(now, **grown)
        by_walker.append(compared(before, now, repeat).drifted)
        by_frame.append(compared(looked(before.ratios, before.scores), looked(now.ratios, now.scores), repeat).drifted)
    assert np.mean(by_walker) <= LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / 200)
    assert np.mean(by_frame) >= 0.06


def test_permutations_agree_with_all_of_them():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, 5), rng.normal(0.8, 1, 6)
    both = np.r_[first, second]

    def statistic(rows: list[int]) -> float:
        one, two = np.delete(both, rows), both[rows]
        return float((two.mean() - one.mean()) / np.sqrt(one.var(ddof=1) / len(one) + two.var(ddof=1) / len(two)))

    every = [statistic(list(rows)) >= statistic(list(range(5, 11))) - 1e-9 for rows in combinations(range(11), 6)]
    sampled = larger_mean_p_value(first, [""] * 5, second, [""] * 6, seed=3, n_permutations=20_000)
    assert sampled == pytest.approx(np.mean(every), abs=0.015)


def test_groups_change_sides_as_a_whole():
    """Two trajectories of three frames against two: of 6 ways to part them one is as extreme as what was found."""
    first, second = np.array([0.0, 0.1, 0.2, 1.0, 1.1, 1.2]), np.array([5.0, 5.1, 5.2, 6.0, 6.1, 6.2])
    groups = ["a"] * 3 + ["b"] * 3
    found = larger_mean_p_value(first, groups, second, groups, seed=0, n_permutations=20_000)
    assert found == pytest.approx(1 / 6, abs=0.01)
    assert larger_mean_p_value(first, [""] * 6, second, [""] * 6, seed=0) < 0.005


def test_p_values_are_never_zero_and_the_same_for_the_same_seed():
    def p(first, second, seed):
        return larger_mean_p_value(first, [""] * len(first), second, [""] * len(second), seed=seed)

    first, second = np.zeros(20), np.ones(20)
    assert p(first, second, 1) == 1 / 10_000
    assert p(first, first, 1) == p(second, first, 1) == 1.0
    noise = np.random.default_rng(0).normal(size=(2, 9))[::-1]
    assert p(*noise, 5) == p(*noise, 5) != p(*noise, 6)


def test_p_values_are_uniform_when_nothing_moves():
    rng = np.random.default_rng(11)
    found = [
        larger_mean_p_value(*(x for v in rng.normal(size=(2, 8)) for x in (v, [""] * 8)), seed=i, n_permutations=199)
        for i in range(600)
    ]
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(found) <= level) == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / 600))


def test_larger_scores_are_drift_smaller_ones_are_progress():
    rng = np.random.default_rng(1)
    scores, ratios = rng.lognormal(0, 0.5, size=(2, 40)), rng.lognormal(0, 0.5, size=(2, 40))
    found = {f: compared(looked(ratios[0], scores[0]), looked(ratios[1], f * scores[1])) for f in (0.3, 1.0, 3.0)}
    assert [found[f].drifted for f in found] == [False, False, True]
    assert found[3.0].scores_p_value * N_TESTS < LEVEL


def test_uncertainties_that_grew_while_errors_did_not_are_cautious_and_no_drift():
    rng = np.random.default_rng(1)
    scores, ratios = rng.lognormal(0, 0.5, size=(2, 40)), rng.lognormal(0, 0.5, size=(2, 40))
    found = compared(looked(ratios[0], scores[0]), looked(ratios[1] / 3, 3 * scores[1]))
    assert found.scores_p_value * N_TESTS < LEVEL
    assert (found.drifted, found.cautious) == (False, True)


def test_scores_without_unit_are_compared_without_margin():
    rng = np.random.default_rng(1)
    scores = rng.normal(-5, 1, (2, 40))
    found = compared(looked([], scores[0]), looked([], scores[1] + 2))
    assert (found.p_value, found.cautious_p_value, found.cautious) == (None, None, False)
    assert found.drifted


def test_too_few_groups_can_show_nothing_and_are_not_tested():
    assert drift_between(looked([1.0], [1.0]), looked([1.0], [1.0]), seed=0) is None
    assert [can_reach(0.005, n, n) for n in (1, 4, 5)] == [False, False, True]
    assert not can_reach(0.5, 1, 50)
    assert n_groups(["a", "", "a", "", "b"]) == 4
    one_walker = looked([1.0] * 30, [1.0] * 30, ["w"] * 30)
    assert drift_between(one_walker, looked([9.0] * 30, [9.0] * 30), seed=0) is None


def test_ratios_are_geometric_means_and_bad_ones_left_out():
    before = looked([1.0, 4.0, float("nan"), 0.0], [1.0] * 9)
    found = compared(before, looked([2.0, 2.0], [1.0] * 9))
    assert (found.ratio_before, found.ratio_now) == (pytest.approx(2.0), pytest.approx(2.0))
    assert found.p_value is None
    assert set(found.record()) == {
        "p_value", "ratio_before", "ratio_now", "scores_p_value", "drifted", "cautious_p_value", "cautious", "margin",
    }  # fmt: skip


def test_what_is_kept_of_a_slice_reads_as_it_was_written():
    kept = looked([1.0, 2.0], [3.0, 4.0], ["a", ""])
    assert Looked.read(kept.record()) == kept
    assert Looked.read({"ratios": [1.0], "scores": [2.0]}) is None
