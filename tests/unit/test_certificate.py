"""The certificate keeps its word: exactly on small pools where every draw can be tried, on average on large ones."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

from dubito.certificate.audit import audit
from dubito.certificate.certify import Slice, certify
from dubito.certificate.grouping import group_strata, labels_for_own_threshold
from dubito.certificate.interval import largest_count
from dubito.certificate.pool import StratumScores, read_pool_scores
from dubito.certificate.threshold import Group, bound_of, select_thresholds
from dubito.config.control_size import control_labels_needed
from dubito.core.errors import ConfigError, DataError
from dubito.metrics.binomial import clopper_pearson

RIGHT, WRONG, TOLERANCE = 0.1, 0.9, 0.3


def group_of(scores: np.ndarray, bad: np.ndarray, drawn: np.ndarray, pool: StratumScores | None = None) -> Group:
    return Group("md", ("md",), (pool or StratumScores.of(scores),), scores[drawn], bad[drawn])


def miss_in_rest(scores: np.ndarray, bad: np.ndarray, drawn: np.ndarray, threshold: float | None) -> float:
    rest = np.setdiff1d(np.arange(len(scores)), drawn)
    accepted = rest[scores[rest] <= (-np.inf if threshold is None else threshold)]
    return float(bad[accepted].mean()) if len(accepted) else 0.0


def certificate(scores: Any, errors: Any, pool: Any, *, risk: float = 0.05, least: float = 0.9) -> dict[str, Any]:
    control = Slice(np.asarray(scores, "f8"), np.asarray(errors, "f8"), ("md",) * len(scores))
    return certify(control, {"md": StratumScores.of(pool)}, tolerance=TOLERANCE, risk=risk, min_accepted_fraction=least)


# --- the guarantee ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scores", [[1, 2, 3, 4, 5, 6, 7], [1, 1, 1, 2, 2, 3, 3], [1, 1, 1, 1, 1, 1, 1]], ids=["distinct", "ties", "one"]
)
@pytest.mark.parametrize("risk", [0.25, 0.3, 0.5, 0.6])
def test_expected_share_of_wrong_ones_is_bounded_over_all_draws(scores, risk):
    """Whatever is wrong in the pool: averaged over every control slice of 3 among 7, nothing estimated."""
    u, n = np.array(scores, "f8"), 3
    draws = [np.array(rows) for rows in combinations(range(len(u)), n)]
    worst = 0.0
    for pattern in product([False, True], repeat=len(u)):
        bad = np.array(pattern)
        share = [
            miss_in_rest(u, bad, rows, select_thresholds([group_of(u, bad, rows)], risk)[0].threshold) for rows in draws
        ]
        worst = max(worst, float(np.mean(share)))
    assert worst <= risk + 1e-12
    assert worst > risk / 3  # it is no empty promise: something is accepted


@pytest.mark.parametrize(("risk", "expected"), [(0.25, 0.0), (0.49, 0.0), (0.5, 1 / 3)])
def test_one_label_of_four_structures_has_its_closed_form(risk, expected):
    """Two of four are wrong. A right one is drawn half of the time, and then two of the three others are wrong.

    Without the 1 that the bound adds to the wrong ones all would be accepted at any risk: 1/3 where 1/4 was asked.
    """
    u, bad = np.ones(4), np.array([True, True, False, False])
    draws = [np.array([i]) for i in range(4)]
    shares = [miss_in_rest(u, bad, i, select_thresholds([group_of(u, bad, i)], risk)[0].threshold) for i in draws]
    assert np.mean(shares) == pytest.approx(expected)


@pytest.mark.parametrize("risk", [0.5, 0.7])
def test_groups_keep_the_risk_in_each_and_in_all_together(risk):
    """Two samplers of 5 structures, every slice with 3 of each, planted patterns of wrong ones."""
    u = np.array([1, 2, 3, 4, 5, 1, 1, 2, 6, 7], "f8")
    name = np.array(["a"] * 5 + ["b"] * 5)
    threes = list(combinations(range(5), 3))
    highest = 0.0
    for bad in np.random.default_rng(3).random((12, 10)) < np.linspace(0.1, 0.9, 12)[:, None]:
        shares: dict[str, list[float]] = {"a": [], "b": [], "all": []}
        for first, second in product(threes, threes):
            rows = np.array([*first, *(5 + i for i in second)])
            control = Slice(u[rows], np.where(bad[rows], WRONG, RIGHT), tuple(name[rows]))
            pool = {key: StratumScores.of(u[name == key]) for key in "ab"}
            said = certify(control, pool, tolerance=TOLERANCE, risk=risk, min_accepted_fraction=0.5)
            limit = {s["name"]: s["threshold"] for s in said["strata"]}
            assert set(limit) == {"a", "b"}
            rest = np.setdiff1d(np.arange(10), rows)
            taken = np.array([i for i in rest if limit[name[i]] is not None and u[i] <= limit[name[i]]], int)
            for key, found in shares.items():
                some = taken if key == "all" else taken[name[taken] == key]
                found.append(float(bad[some].mean()) if len(some) else 0.0)
        highest = max(highest, *(float(np.mean(found)) for found in shares.values()))
    assert risk / 3 < highest <= risk + 1e-12


@pytest.mark.parametrize(("risk", "n_control", "bad_share"), [(0.05, 20, 0.1), (0.05, 100, 0.1), (0.1, 40, 0.2)])
def test_planted_oracle_keeps_the_risk_and_the_interval_its_level(risk, n_control, bad_share):
    """Issue 6: 200 repeats on pools whose errors outgrow the uncertainties by 1.8, structures of 9 to 27 atoms."""
    rng, misses, covered, taken = np.random.default_rng(1), [], [], 0
    pools = [planted(rng, 300, 1.8) for _ in range(200)]
    tolerance = float(np.quantile(np.concatenate([errors for _, errors, _ in pools]), 1 - bad_share))
    for scores, errors, _ in pools:
        rows = rng.choice(len(scores), n_control, replace=False)
        control = Slice(scores[rows], errors[rows], ("md",) * n_control)
        pool = {"md": StratumScores.of(scores)}
        said = certify(control, pool, tolerance=tolerance, risk=risk, min_accepted_fraction=0.9)
        misses.append(miss_in_rest(scores, errors > tolerance, rows, said["threshold"]))
        covered.append(said["miss_rate"]["low"] <= misses[-1] <= said["miss_rate"]["high"])
        taken += said["threshold"] is not None
    assert np.mean(misses) <= risk + 2 * np.std(misses) / np.sqrt(len(misses))
    assert np.mean(covered) >= 0.95
    assert taken > 20


def planted(rng: np.random.Generator, n: int, ratio: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, worst errors and error-to-uncertainty ratios of a heteroscedastic oracle."""
    n_atoms = rng.integers(9, 28, n)
    first = np.concatenate([[0], np.cumsum(n_atoms)[:-1]])
    sigma = np.repeat(0.05 * rng.lognormal(0, 0.5, n), n_atoms) * rng.lognormal(0, 0.3, n_atoms.sum())
    squares = ((ratio * sigma[:, None] * rng.normal(size=(len(sigma), 3))) ** 2).sum(axis=1)
    worst = np.sqrt(np.maximum.reduceat(squares, first))
    ratios = np.sqrt(np.add.reduceat(squares, first) / np.add.reduceat(3 * sigma**2, first))
    return np.sqrt(3) * np.maximum.reduceat(sigma, first), worst, ratios


# --- counting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", [np.floor, np.round, np.ceil])
@pytest.mark.parametrize("n", [1002, 5000, 33333])
def test_quantiles_count_conservatively(rounding, n):
    rng = np.random.default_rng(n)
    scores = np.sort(np.round(rng.lognormal(size=n), 2))
    kept = scores[rounding(np.linspace(0, n - 1, 1001)).astype(int)]
    known = StratumScores(n, kept)
    at = np.concatenate([kept, rng.lognormal(size=500)])
    true = np.searchsorted(scores, at, side="right")
    assert (known.at_least(at) <= true).all()
    assert (known.at_most(at) >= true).all()
    assert known.at_least(scores[-1:]) == n
    assert (true - known.at_least(at)).max() < 3 * n / 1000 + np.unique(scores, return_counts=True)[1].max()


def test_quantiles_never_accept_more_than_all_scores_do():
    rng = np.random.default_rng(5)
    for _ in range(50):
        scores = np.sort(rng.lognormal(size=4000))
        bad = rng.random(4000) < scores / 20
        rows = rng.choice(4000, 60, replace=False)
        kept = StratumScores(4000, scores[np.linspace(0, 3999, 1001).round().astype(int)])
        (exact,) = select_thresholds([group_of(scores, bad, rows)], 0.1)
        (few,) = select_thresholds([group_of(scores, bad, rows, kept)], 0.1)
        assert few.n_rest <= exact.n_rest <= few.n_rest_most + 4
        assert (few.threshold or 0.0) <= (exact.threshold or 0.0)


def test_the_control_slice_is_not_part_of_what_is_accepted():
    """20 right labels of low score are known; of the 20 others half may be accepted."""
    u = np.arange(40.0)
    (one,) = select_thresholds([Group("md", ("md",), (StratumScores.of(u),), u[:20], np.zeros(20, bool))], 0.05)
    assert (one.n_rest, one.n_control, one.threshold) == (20, 20, 39.0)
    assert bound_of([one], [group_of(u, np.zeros(40, bool), np.arange(20))]) == pytest.approx(1 / 21)


def test_a_score_that_is_no_number_is_never_accepted():
    said = certificate([*np.arange(19.0), np.nan], [RIGHT] * 19 + [np.nan], np.arange(500.0) / 10)
    assert (said["n_bad"], said["n_control_failed"], said["n_control"]) == (1, 1, 20)
    assert said["threshold"] == 49.9


def test_failed_labels_count_as_wrong():
    scores, pool = np.linspace(0, 1, 40), np.linspace(0, 1, 1000)
    errors = np.full(40, RIGHT)
    assert certificate(scores, errors, pool)["holds"]
    errors[[3, 20]] = np.nan
    said = certificate(scores, errors, pool)
    assert not said["holds"]
    assert said["accepted_fraction"] == 0.0
    assert "2 could not be labelled" in said["reason"]


# --- how many labels ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("risk", "needed"), [(0.5, 1), (0.1, 9), (0.05, 19), (0.01, 99)])
def test_fewer_labels_than_needed_accept_nothing_and_say_how_many(risk, needed):
    assert control_labels_needed(risk) == needed
    pool = np.linspace(0, 1, 2000)
    for n, holds in ((needed, True), (needed - 1, False)):
        said = certificate(np.linspace(0, 1, n), [RIGHT] * n, pool, risk=risk)
        assert said["holds"] is holds
        assert (said["accepted_fraction"] > 0) is holds
        if not holds:
            assert f"at least {needed} random control label" in said["reason"]
            assert said["labels_needed"] >= needed
            assert said["miss_rate"] == {"value": None, "low": 0.0, "high": 1.0, "n_accepted": 0}


def test_labels_needed_for_a_part_of_the_pool():
    assert control_labels_needed(0.05, 0.9) == 22
    assert control_labels_needed(0.1, 0.5) == 19


@pytest.mark.parametrize(("risk", "fraction"), [(0.0, 1.0), (1.0, 1.0), (-0.1, 1.0), (float("nan"), 1.0), (0.1, 0.0)])
def test_impossible_risks_are_refused(risk, fraction):
    with pytest.raises(ConfigError, match="Type for example"):
        control_labels_needed(risk, fraction)


@pytest.mark.parametrize("n_bad", [0, 1, 3])
def test_as_many_labels_as_said_are_needed(n_bad):
    """Right labels are added until it holds; wrong ones have low scores, so that no threshold avoids them."""
    pool = np.linspace(0, 1, 100_000)
    scores, errors = np.linspace(0.1, 1, 20), np.full(20, RIGHT)
    errors[:n_bad] = WRONG
    needed = certificate(scores, errors, pool)["labels_needed"]
    assert needed == pytest.approx((1 + n_bad) / 0.05 - 1, abs=1)
    for n, holds in ((needed, True), (needed - 1, False)):
        more = max(0, n - 20)
        said = certificate(np.r_[scores[:n], np.linspace(0.1, 1, more)], np.r_[errors[:n], np.full(more, RIGHT)], pool)
        assert said["holds"] is holds


def test_more_wrong_ones_never_raise_the_threshold():
    rng = np.random.default_rng(0)
    pool, scores = rng.random(500), rng.random(60)
    order, before = rng.permutation(60), np.inf
    errors = np.full(60, RIGHT)
    for i in order[:20]:
        said = certificate(scores, errors, np.r_[pool, scores], risk=0.1)
        now = -np.inf if said["threshold"] is None else said["threshold"]
        assert now <= before
        before = now
        errors[i] = WRONG


# --- groups ------------------------------------------------------------------------------------------


def test_strata_with_enough_labels_stand_alone_and_the_rest_is_pooled():
    assert labels_for_own_threshold(0.05) == 39
    assert group_strata({"md": 20}, 0.05) == [["md"]]
    assert group_strata({"md": 15, "rattle": 5}, 0.05) == [["md", "rattle"]]
    assert group_strata({"md": 50, "rattle": 45}, 0.05) == [["md"], ["rattle"]]
    # 10 are too few: the smaller of the others joins them.
    assert group_strata({"md": 50, "rattle": 45, "scan": 10}, 0.05) == [["md"], ["rattle", "scan"]]
    assert group_strata({"md": 50, "a": 20, "b": 20}, 0.05) == [["md"], ["a", "b"]]
    assert group_strata({"md": 50, "empty": 0}, 0.05) == [["empty", "md"]]


def test_an_overconfident_sampler_gets_a_lower_threshold():
    rng = np.random.default_rng(2)
    name = np.repeat(["cool", "hot"], 1000)
    u = rng.random(2000)
    errors = np.where(u > np.where(name == "hot", 0.4, 0.95), WRONG, RIGHT)
    rows = rng.choice(2000, 120, replace=False)
    pool = {key: StratumScores.of(u[name == key]) for key in ("cool", "hot")}
    control = Slice(u[rows], errors[rows], tuple(name[rows]))
    said = certify(control, pool, tolerance=TOLERANCE, risk=0.05, min_accepted_fraction=0.9)
    cool, hot = said["strata"]
    assert (cool["name"], hot["name"], said["threshold"]) == ("cool", "hot", None)
    assert hot["threshold"] < 0.5
    assert cool["threshold"] > 0.9
    assert not said["holds"]
    assert cool["bound"] <= 0.05 >= said["bound"]


def test_a_control_structure_of_no_stratum_is_refused():
    control = Slice(np.zeros(2), np.zeros(2), ("md", "scan"))
    with pytest.raises(DataError, match="'scan', the pool has only md"):
        certify(control, {"md": StratumScores.of([0.0, 1.0])}, tolerance=1, risk=0.1, min_accepted_fraction=1)


def test_more_control_than_pool_is_refused():
    with pytest.raises(DataError, match="don't belong together"):
        certificate([1.0, 2.0, 3.0], [0.0] * 3, [1.0, 2.0])


@pytest.mark.parametrize(
    "entry",
    [
        {"n": 3, "quantiles": [1.0, 0.5, 2.0]},
        {"n": 2, "quantiles": [1.0, 2.0, 3.0]},
        {"n": 5, "quantiles": [1.0]},
        {"n": 0, "quantiles": []},
        {"n": 1, "quantiles": [float("nan")]},
    ],
)
def test_scores_of_a_pool_that_are_no_order_are_refused(entry):
    with pytest.raises(DataError, match="'md' in the manifest are not in order"):
        read_pool_scores({"md": entry})


# --- words and the audit ---------------------------------------------------------------------------


def test_reasons_are_plain():
    pool = np.linspace(0, 1, 1000)
    fine = certificate(np.linspace(0, 1, 20), [RIGHT] * 20, pool)
    assert fine["reason"] == (
        "100% of the pool is accepted, chosen so that at most 5.0% of that is expected to be off by more than 0.3 "
        "eV/Å: 0 of 20 random control structures are off by more than 0.3 eV/Å."
    )
    errors = np.full(60, RIGHT)
    errors[-15:] = WRONG
    part = certificate(np.linspace(0, 1, 60), errors, pool)
    assert part["reason"].startswith("Only 7")
    assert "asked for at least 90%" in part["reason"]
    assert part["accepted_fraction"] == pytest.approx(0.76, abs=0.03)
    none = certificate(np.linspace(0, 1, 20), [WRONG] + [RIGHT] * 19, pool)
    assert none["reason"].startswith("Nothing can be accepted at a risk of 0.05: 1 of 20")


def test_the_audit_judges_old_thresholds_on_new_structures():
    before = {"strata": [{"members": ["md"], "threshold": 0.5}, {"members": ["scan"], "threshold": None}]}
    control = Slice(np.array([0.1, 0.5, 0.6, 0.2, 0.3]), np.array([0.0, 1.0, 1, 0, np.nan]), ("md",) * 4 + ("new",))
    low, high = clopper_pearson(1, 3)
    assert audit(before, 3, control, TOLERANCE) == {
        "threshold_of_iteration": 3,
        "n_accepted": 3,
        "missed": 1,
        "value": 1 / 3,
        "low": low,
        "high": high,
    }
    assert audit({"strata": [{"members": ["md"], "threshold": None}]}, 3, control, TOLERANCE) is None


def test_no_threshold_has_more_wrong_control_structures_than_the_band_knows():
    rng = np.random.default_rng(8)
    for _ in range(300):
        n, risk = int(rng.integers(1, 80)), float(rng.uniform(0.03, 0.6))
        u = rng.random(200)
        (one,) = select_thresholds([group_of(u, rng.random(200) < 0.3 * u, np.arange(n))], risk)
        assert one.threshold is None or one.n_bad <= largest_count(n, risk)
