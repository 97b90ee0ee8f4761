"""Strata, the two events to warn of, and the best ranking a perfect uncertainty can reach."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from dubito.core.errors import DataError
from dubito.metrics.ceiling import ensemble_mean_squared_z, ranking_ceiling
from dubito.metrics.ranking import (
    auroc,
    auroc_error,
    auroc_shift,
    fixed_tolerance,
    spearman,
    spearman_within,
    within,
)

small = arrays("f8", 14, elements=st.integers(-4, 4).map(float))
MONOTONE = (np.exp, np.cbrt, lambda x: 3 * x - 7, lambda x: x**3 + x)


# --- ranking ----------------------------------------------------------------------------------


@given(small, small, st.sampled_from(MONOTONE))
def test_ranking_sees_only_the_order_of_scores(score, error, rising):
    for measure in (spearman, lambda s, e: auroc_error(s, e, 1.5)):
        assert measure(rising(score), error) == pytest.approx(measure(score, error), nan_ok=True)


@given(small, arrays(bool, 14))
def test_auroc_agrees_with_scikit_learn_also_with_ties(score, event):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is in the dev extra")
    if event.all() or not event.any():
        assert math.isnan(auroc(score, event))
    else:
        assert auroc(score, event) == pytest.approx(metrics.roc_auc_score(event, score), abs=1e-12)


def test_pooling_strata_inflates_the_correlation():
    # Within each temperature the score knows nothing; it only tells temperatures apart.
    rng = np.random.default_rng(0)
    temperature = np.repeat([300, 1200], 2000)
    level = temperature / 300
    score, error = level + rng.uniform(0, 1, 4000), level * np.abs(rng.normal(1, 0.1, 4000))
    found = spearman_within(score, error, temperature)
    assert spearman(score, error) > 0.7
    assert set(found.values) == {"300", "1200"}
    assert all(abs(v) < 0.07 for v in found.values.values())


def test_strata_count_by_their_size_and_undefined_ones_do_not():
    score = np.array([1.0, 2, 3, 4, 1, 2, 5])
    error = np.array([1.0, 2, 3, 4, 2, 1, 9])
    found = spearman_within(score, error, ["a"] * 4 + ["b"] * 2 + ["c"])
    assert found.values["a"] == pytest.approx(1) and found.values["b"] == pytest.approx(-1)
    assert math.isnan(found.values["c"])
    assert found.sizes == {"a": 4, "b": 2, "c": 1}
    assert found.mean == pytest.approx((4 - 2) / 6)
    assert math.isnan(spearman_within([1.0], [1.0], ["a"]).mean)


def test_any_measure_can_be_taken_within_strata():
    found = within(lambda s, e: auroc_error(s, e, 0.5), [1, 2, 2, 1], [0, 1, 0, 1], [7, 7, 8, 8])
    assert found.values == {"7": 1.0, "8": 0.0}


def test_every_score_needs_a_stratum():
    with pytest.raises(DataError, match="one label for each"):
        spearman_within([1.0, 2.0], [1.0, 2.0], ["a"])


# --- events -----------------------------------------------------------------------------------


def test_orientation_more_doubt_far_away_is_good_and_less_is_not_flipped():
    assert auroc_shift([0.1, 0.2], [0.3, 0.4, 0.5]) == 1.0
    assert auroc_shift([0.3, 0.4, 0.5], [0.1, 0.2]) == 0.0
    assert auroc_error([0.1, 0.9], [0.01, 0.5], 0.1) == 1.0
    assert auroc_error([0.9, 0.1], [0.01, -0.5], 0.1) == 0.0


def test_a_gaussian_shift_has_the_known_area():
    # Two unit Gaussians, one moved by d: Phi(d / sqrt 2).
    rng = np.random.default_rng(3)
    inside, shifted = rng.normal(size=20000), rng.normal(1.2, 1, size=5000)
    assert auroc_shift(inside, shifted) == pytest.approx(stats.norm.cdf(1.2 / math.sqrt(2)), abs=0.01)


def test_a_broken_prediction_is_not_taken_for_a_small_error():
    assert math.isnan(auroc_error([0.1, 0.2, 0.3], [0.0, np.nan, 1.0], 0.5))
    assert math.isnan(auroc_error([0.1, 0.2], [0.0, 0.1], 0.5))


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_tolerance_is_a_positive_number(bad):
    with pytest.raises(DataError, match="positive number"):
        auroc_error([0.1, 0.2], [0.0, 1.0], bad)


def test_fixed_tolerance_is_a_percentile_of_sizes():
    errors = np.concatenate([-np.arange(51.0), np.arange(51.0, 101)])
    assert fixed_tolerance(errors) == 95.0
    assert fixed_tolerance(errors, 50) == 50.0


@pytest.mark.parametrize(("errors", "percentile"), [(np.ones(19), 95), ([np.nan] * 30, 95), (np.ones(30), 100)])
def test_a_tolerance_from_too_little_is_refused(errors, percentile):
    with pytest.raises(DataError, match="percentile"):
        fixed_tolerance(errors, percentile)


# --- ceiling ----------------------------------------------------------------------------------


def log_normal(spread, n=20000):
    return np.exp(spread * np.random.default_rng(11).normal(size=n))


@pytest.mark.parametrize(
    ("spread", "scalar", "vector"),
    [(0.1, 0.11, 0.21), (0.25, 0.26, 0.47), (0.5, 0.46, 0.72), (0.75, 0.59, 0.84), (1.0, 0.69, 0.90)],
)
def test_ceiling_of_log_normal_sigmas(spread, scalar, vector):
    # Independent numbers: research/uncertainty.md, section 9.
    sigma = log_normal(spread)
    assert ranking_ceiling(sigma, seed=1, dimension=1, n_repeats=5).spearman == pytest.approx(scalar, abs=0.012)
    assert ranking_ceiling(sigma, seed=1, n_repeats=5).spearman == pytest.approx(vector, abs=0.012)


@pytest.mark.parametrize(("spread", "area"), [(0.1, 0.69), (0.25, 0.86), (0.5, 0.95), (0.75, 0.97), (1.0, 0.98)])
def test_ceiling_for_the_largest_errors(spread, area):
    assert ranking_ceiling(log_normal(spread), seed=1, n_repeats=5).auroc == pytest.approx(area, abs=0.012)


@pytest.mark.parametrize(("members", "expected"), [(2, 0.52), (3, 0.60), (4, 0.64), (5, 0.66), (10, 0.69), (30, 0.71)])
def test_ceiling_of_a_finite_ensemble(members, expected):
    found = ranking_ceiling(log_normal(0.5), seed=1, n_members=members, n_repeats=5)
    assert found.spearman == pytest.approx(expected, abs=0.012)


def test_ceiling_is_that_of_explicit_vectors_and_members():
    # Nothing of the chi-squared shortcut: members and truth are drawn component by component.
    rng = np.random.default_rng(5)
    sigma = log_normal(0.5, 8000)
    truth, members = (rng.normal(size=(*k, 8000, 3)) * sigma[:, None] for k in ((), (4,)))
    length = np.linalg.norm(truth, axis=1)
    deviation = np.sqrt(members.var(axis=0, ddof=1).mean(axis=1))
    tolerance = 2.5
    for score, n_members in ((sigma, None), (deviation, 4)):
        found = ranking_ceiling(sigma, seed=2, n_members=n_members, tolerance=tolerance)
        assert abs(spearman(score, length) - found.spearman) < 4 * found.spearman_deviation
        assert abs(auroc(score, length > tolerance) - found.auroc) < 4 * found.auroc_deviation
        assert found.spearman_deviation < 0.02


def test_equal_sigmas_can_not_be_ranked():
    found = ranking_ceiling(np.ones(500), seed=1)
    assert math.isnan(found.spearman)
    assert found.auroc == 0.5
    assert abs(ranking_ceiling(np.ones(500), seed=1, n_members=4).spearman) < 0.05


def test_ceiling_follows_from_its_seed():
    sigma = log_normal(0.5, 300)
    assert ranking_ceiling(sigma, seed=4) == ranking_ceiling(sigma, seed=4)
    assert ranking_ceiling(sigma, seed=4) != ranking_ceiling(sigma, seed=5)


@pytest.mark.parametrize("n_members", [3, 4, 5, 10, 30])
def test_mean_squared_z_of_perfect_members(n_members):
    # z of a component is Student's t of 3 (M - 1) degrees of freedom.
    assert ensemble_mean_squared_z(n_members) == pytest.approx(stats.t.var(3 * (n_members - 1)))


def test_mean_squared_z_by_drawing_members_and_of_the_mean():
    rng = np.random.default_rng(8)
    members, truth = rng.normal(size=(5, 200_000, 3)), rng.normal(size=(200_000, 3))
    variance = members.var(axis=0, ddof=1).mean(axis=1, keepdims=True)
    assert np.mean(truth**2 / variance) == pytest.approx(ensemble_mean_squared_z(5), rel=0.01)
    of_mean = (truth - members.mean(axis=0)) ** 2
    assert np.mean(of_mean / variance) == pytest.approx(ensemble_mean_squared_z(5) * (1 + 1 / 5), rel=0.01)


def test_too_few_members_have_an_infinite_one():
    assert ensemble_mean_squared_z(2) == 3.0
    assert ensemble_mean_squared_z(2, dimension=1) == ensemble_mean_squared_z(3, dimension=1) == math.inf
    with pytest.raises(DataError, match="two or more"):
        ensemble_mean_squared_z(1)


@pytest.mark.parametrize(
    "bad",
    [{"sigma": [1.0]}, {"sigma": [1.0, -1.0]}, {"sigma": [1.0, np.nan]}, {"n_members": 1}, {"event_share": 1.0}],
)
def test_an_impossible_ceiling_is_refused(bad):
    with pytest.raises(DataError, match=r"ceiling needs|ensemble needs"):
        ranking_ceiling(**({"sigma": [1.0, 2.0], "seed": 0} | bad))
