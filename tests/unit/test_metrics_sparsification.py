"""Refusing by a score: against brute force, the oracle and chance."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dubito.core.errors import DataError
from dubito.metrics.sparsification import ause, gain_share, retained_rmse, risk_coverage, sparsification

sizes = arrays("f8", st.integers(2, 25), elements=st.floats(-50, 50).map(lambda x: round(x, 2)))
pairs = sizes.flatmap(
    lambda e: st.tuples(arrays("f8", len(e), elements=st.integers(0, 6).map(float)), st.just(e))
).filter(lambda p: np.any(p[1] != 0))


def rmse(x):
    return np.sqrt(np.mean(np.square(x)))


@given(sizes)
def test_the_oracle_has_no_area(error):
    assume(np.any(error != 0))
    assert ause(np.abs(error), error) == 0.0
    assert ause(np.abs(error) ** 0.5, error) == pytest.approx(0.0, abs=1e-12)


@given(pairs)
def test_nothing_beats_the_oracle(pair):
    score, error = pair
    assert ause(score, error) >= -1e-12
    curve = risk_coverage(score, error, 10)
    assert np.all(curve.rmse >= curve.oracle - 1e-9)


@given(sizes, st.floats(-5, 5))
def test_a_constant_score_is_exactly_the_random_line(error, constant):
    score = np.full(error.size, constant)
    curve = risk_coverage(score, error, 7)
    assert curve.rmse == pytest.approx(rmse(error), rel=1e-12)
    assert curve.random == pytest.approx(rmse(error), rel=1e-12)
    if np.any(error != 0):
        assert sparsification(score, error).aurg == pytest.approx(0.0, abs=1e-12)


@given(pairs, st.sampled_from((np.exp, np.cbrt, lambda x: 5 * x - 3)), st.randoms(use_true_random=False))
def test_area_sees_only_the_order_and_no_scale_of_error(pair, rising, random):
    score, error = pair
    permutation = random.sample(range(error.size), error.size)
    expected = ause(score, error)
    assert ause(rising(score), error) == pytest.approx(expected, abs=1e-12)
    assert ause(score, 1e3 * error) == pytest.approx(expected, abs=1e-9)
    assert ause(score[permutation], error[permutation]) == pytest.approx(expected, abs=1e-9)


@given(arrays("f8", 5, elements=st.integers(0, 2).map(float)), arrays("f8", 5, elements=st.integers(0, 9).map(float)))
def test_ties_are_the_mean_over_all_orders_of_refusal(score, error):
    # Every order of the five entries that refuses higher scores first, one by one.
    orders = [p for p in itertools.permutations(range(5)) if np.all(np.diff(score[list(p)]) >= 0)]
    for refused in range(5):
        expected = np.sqrt(np.mean([np.mean(error[list(p[: 5 - refused])] ** 2) for p in orders]))
        assert retained_rmse(score, error, refused / 5) == pytest.approx(expected, abs=1e-12)


def test_area_by_hand():
    # Errors 3, 4, 0 refused in the order 3, 4, 0; the oracle refuses 4, 3, 0.
    score, error = np.array([3.0, 2.0, 1.0]), np.array([3.0, 4.0, 0.0])
    total = math.sqrt(25 / 3)
    ours, oracle = [total, math.sqrt(8), 0.0], [total, math.sqrt(4.5), 0.0]
    expected = (np.mean(ours) - np.mean(oracle)) / total
    found = sparsification(score, error, refused=(1 / 3,))
    assert ause(score, error) == found.ause == pytest.approx(expected)
    assert found.aurg == pytest.approx((total - np.mean(ours)) / total)
    assert found.relative == pytest.approx(expected / (expected + found.aurg))
    assert found.gain_share[1 / 3] == pytest.approx((total - math.sqrt(8)) / (total - math.sqrt(4.5)))


def test_a_score_the_wrong_way_round_is_worse_than_chance():
    error = np.abs(np.random.default_rng(0).normal(size=500))
    found = sparsification(-error, error)
    assert found.relative > 1 and found.aurg < 0
    assert all(share < 0 for share in found.gain_share.values())
    right = sparsification(error, error)
    assert right.relative == 0 and right.gain_share == {0.1: pytest.approx(1), 0.3: pytest.approx(1)}


def test_gain_at_a_refused_share_has_a_closed_form_for_exponential_errors():
    # The oracle keeps e < -ln f: mean square (2 - f (L^2 + 2 L + 2)) / (1 - f), L = -ln f.
    error = -np.log(1 - (np.arange(100_000) + 0.5) / 100_000)
    for f in (0.1, 0.3):
        length = -math.log(f)
        expected = math.sqrt((2 - f * (length**2 + 2 * length + 2)) / (1 - f))
        assert retained_rmse(error, error, f) == pytest.approx(expected, rel=1e-4)


def test_a_saturated_score_gains_nothing_beyond_its_saturation():
    rng = np.random.default_rng(2)
    error = np.concatenate([rng.uniform(0, 1, 500), rng.uniform(2, 3, 500)])
    score = np.concatenate([np.zeros(500), np.ones(500)])
    assert gain_share(score, error, 0.5) == pytest.approx(1.0)
    assert retained_rmse(score, error, [0.5, 0.75, 0.9]) == pytest.approx(rmse(error[:500]))


def test_equal_errors_leave_nothing_to_gain():
    found = sparsification([1.0, 2.0, 3.0], [1.0, -1.0, 1.0])
    assert found.ause == pytest.approx(0.0)
    assert math.isnan(found.relative) and math.isnan(found.gain_share[0.1])
    assert math.isnan(ause([1.0, 2.0], [0.0, 0.0])) and math.isnan(ause([], []))


@pytest.mark.parametrize(
    ("score", "error", "refused", "match"),
    [
        ([1.0], [1.0, 2.0], 0.1, "as many of both"),
        ([1.0, np.nan], [1.0, 2.0], 0.1, "finite"),
        ([1.0, 2.0], [1.0, np.inf], 0.1, "finite"),
        ([1.0, 2.0], [1.0, 2.0], 1.0, "has to be kept"),
    ],
)
def test_what_can_not_be_ordered_is_refused(score, error, refused, match):
    with pytest.raises(DataError, match=match):
        retained_rmse(score, error, refused)
