"""Measures against closed forms, brute force and other implementations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import integrate, stats

from dubito.core.errors import DataError
from dubito.metrics.binomial import clopper_pearson, trials_to_bound
from dubito.metrics.calibration import coverage, miscalibration_area, z_scores
from dubito.metrics.errors import mae, max_error, per_atom, rmse
from dubito.metrics.profile import EnergyProfile
from dubito.metrics.ranking import auroc, average_ranks, spearman

values = st.floats(-1e3, 1e3, allow_nan=False).map(lambda x: round(x, 3))
vectors = arrays("f8", st.integers(1, 30), elements=values)


# --- errors -----------------------------------------------------------------------------------


def test_errors_of_a_planted_difference():
    reference = np.zeros(4)
    predicted = np.array([3.0, -4.0, 0.0, 0.0])
    assert rmse(predicted, reference) == 2.5
    assert mae(predicted, reference) == 1.75
    assert max_error(predicted, reference) == 4.0


def test_nothing_compared_is_no_number():
    assert all(math.isnan(f([], [])) for f in (rmse, mae, max_error))


@given(vectors)
def test_mae_rmse_max_are_ordered_and_symmetric(error):
    zero = np.zeros_like(error)
    assert mae(error, zero) <= rmse(error, zero) + 1e-9 <= max_error(error, zero) + 2e-9
    assert rmse(error, zero) == rmse(zero, error)


def test_shapes_are_not_broadcast():
    with pytest.raises(DataError, match="must be equal"):
        rmse(np.zeros((3, 1)), np.zeros((1, 3)))


def test_energy_per_atom():
    assert per_atom([8.0, 9.0], [4, 3]).tolist() == [2.0, 3.0]


# --- ranking ----------------------------------------------------------------------------------


@given(arrays("f8", 12, elements=st.integers(0, 4).map(float)), arrays("f8", 12, elements=values))
def test_spearman_agrees_with_scipy_also_with_ties(score, error):
    ours = spearman(score, error)
    if len(set(score)) < 2 or len(set(error)) < 2:
        assert math.isnan(ours)
    else:
        assert ours == pytest.approx(stats.spearmanr(score, error).statistic, abs=1e-12)


def test_spearman_sees_only_order():
    score = np.array([1.0, 2.0, 3.0, 4.0])
    assert spearman(score, np.exp(score)) == pytest.approx(1.0)
    assert spearman(score, -(score**3)) == pytest.approx(-1.0)


def test_ties_share_their_rank():
    assert average_ranks([5.0, 1.0, 5.0, 7.0]).tolist() == [2.5, 1.0, 2.5, 4.0]


@given(arrays("f8", 9, elements=st.integers(0, 5).map(float)), arrays(bool, 9))
def test_auroc_is_the_share_of_pairs_ranked_right(score, event):
    pairs = list(itertools.product(score[event], score[~event]))
    ours = auroc(score, event)
    if pairs:
        assert ours == pytest.approx(np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs]))
        assert auroc(-score, event) == pytest.approx(1 - ours)
    else:
        assert math.isnan(ours)


def test_auroc_orientation_doubt_is_high_where_the_event_is():
    assert auroc([0.1, 0.2, 0.9], [False, False, True]) == 1.0


def test_lengths_must_agree():
    with pytest.raises(DataError, match="as many of both"):
        spearman([1.0, 2.0], [1.0])


# --- calibration ------------------------------------------------------------------------------


def test_coverage_counts_what_lies_inside():
    error = np.array([0.5, 1.5, -1.9, 2.1])
    assert coverage(error, np.ones(4), 0.68) == 0.25
    assert coverage(error, np.ones(4), 0.95) == 0.75


@given(st.floats(0.05, 5.0))
def test_area_of_a_single_level_has_a_closed_form(z):
    p = math.erf(z / math.sqrt(2))
    area = miscalibration_area(np.array([z, -z, z]), np.ones(3))
    assert area == pytest.approx((p**2 + (1 - p) ** 2) / 2, abs=1e-12)


@given(arrays("f8", st.integers(1, 12), elements=st.floats(-4, 4)))
def test_area_is_the_integral_and_between_its_bounds(error):
    sigma = np.ones_like(error)
    area = miscalibration_area(error, sigma)
    levels = np.sort([math.erf(abs(e) / math.sqrt(2)) for e in error])
    grid = np.linspace(0, 1, 20001)
    observed = np.searchsorted(levels, grid, side="right") / len(levels)
    assert area == pytest.approx(integrate.trapezoid(np.abs(observed - grid), grid), abs=2e-4)
    assert 0 <= area <= 0.5


def test_area_of_extreme_claims_is_one_half():
    assert miscalibration_area([1.0, 2.0], [1e12, 1e12]) == pytest.approx(0.5)
    assert miscalibration_area([1.0, 2.0], [0.0, 0.0]) == pytest.approx(0.5)


def test_calibrated_errors_are_recognised_and_overconfident_ones_too():
    error = np.random.default_rng(1).normal(size=20000)
    sigma = np.random.default_rng(2).lognormal(size=20000)
    assert miscalibration_area(error * sigma, sigma) < 0.01
    assert coverage(error * sigma, sigma, 0.95) == pytest.approx(0.95, abs=0.01)
    # Half the claimed width: coverage at p becomes erf(erfinv(p) / 2).
    assert coverage(error * sigma, sigma / 2, 0.95) == pytest.approx(math.erf(1.959964 / 2 / math.sqrt(2)), abs=0.01)


def test_right_without_doubt_is_inside_and_wrong_without_doubt_outside():
    assert z_scores([0.0, 1.0], [0.0, 0.0]).tolist() == [0.0, np.inf]


def test_a_negative_uncertainty_is_refused():
    with pytest.raises(DataError, match="standard deviation"):
        coverage([1.0], [-1.0], 0.5)


# --- binomial ---------------------------------------------------------------------------------


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_clopper_pearson_agrees_with_scipy(counts):
    events, trials = counts
    expected = stats.binomtest(events, trials).proportion_ci(0.95, method="exact")
    assert clopper_pearson(events, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("p", [0.01, 0.05, 0.3, 0.5])
@pytest.mark.parametrize("n", [5, 40])
def test_clopper_pearson_covers_at_least_what_it_says(p, n):
    hit = [low <= p <= high for low, high in (clopper_pearson(k, n) for k in range(n + 1))]
    assert np.sum(stats.binom.pmf(np.arange(n + 1), n, p)[hit]) >= 0.95


def test_no_trial_knows_nothing():
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@given(st.floats(0.005, 0.5))
def test_trials_to_bound_is_the_smallest_that_bounds(p):
    n = trials_to_bound(p)
    assert clopper_pearson(0, n)[1] <= p + 1e-12
    assert n == 1 or clopper_pearson(0, n - 1)[1] > p - 1e-12


def test_five_percent_needs_seventy_two():
    assert trials_to_bound(0.05) == 72


@pytest.mark.parametrize("bad", [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(bad):
    with pytest.raises(DataError, match="impossible"):
        clopper_pearson(*bad)


# --- profiles ---------------------------------------------------------------------------------


def profile(**changes):
    """Return a profile with a barrier of 0.2 eV, predicted as 0.25 eV and 10 eV too high throughout."""
    given_ = {
        "name": "p",
        "coordinate": np.arange(3.0),
        "coordinate_label": "x",
        "coordinate_unit": "Å",
        "reference": np.array([0.1, 0.0, 0.2]),
        "predicted": np.array([10.0, 10.0, 10.25]),
        "members": np.array([[10.0, 10.0], [9.0, 11.0], [9.24, 11.26]]),
        "minimum_index": 1,
        "barrier_index": 2,
    }
    return EnergyProfile(**(given_ | changes))


def test_barrier_is_relative_to_the_minimum():
    p = profile()
    assert p.barrier_reference == pytest.approx(0.2)
    assert p.barrier_predicted == pytest.approx(0.25)
    assert p.barrier_error == pytest.approx(0.05)
    assert p.max_error == pytest.approx(0.1)  # the first point, 0.1 eV above the minimum, is predicted at 0


def test_barrier_uncertainty_ignores_a_common_offset_of_a_member():
    # The members' barriers are 0.24 and 0.26; their energies differ by 2 eV.
    assert profile().barrier_uncertainty == pytest.approx(0.02 / math.sqrt(2))
    assert profile(members=None).barrier_uncertainty is None
    assert profile(members=np.zeros((3, 1))).barrier_uncertainty is None


@pytest.mark.parametrize("bad", [{"barrier_index": 3}, {"predicted": np.zeros(2)}])
def test_an_impossible_profile_is_refused(bad):
    with pytest.raises(DataError, match="make its file again"):
        profile(**bad)
