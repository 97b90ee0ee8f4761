"""Calibration by bins, with its null, Student's t, and against an independent library."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from dubito.core.errors import DataError
from dubito.metrics.calibration import (
    central_levels,
    coverage,
    level_area,
    miscalibration_area,
    radial_levels,
    student_scale,
)
from dubito.metrics.reliability import (
    binned,
    coverages,
    ence,
    ence_with_null,
    mean_squared_z,
    sharpness,
    z_variance,
    z_variance_interval,
)
from dubito.metrics.scoring import gaussian_crps, gaussian_nll


def calibrated(n=6000, seed=0):
    rng = np.random.default_rng(seed)
    sigma = rng.lognormal(sigma=0.6, size=n)
    return sigma * rng.normal(size=n), sigma


# --- by bins ----------------------------------------------------------------------------------


@given(st.floats(0.2, 5), st.integers(1, 6))
def test_ence_of_a_constant_factor(factor, n_bins):
    # Errors of exactly the stated size but for a factor: every bin is off by |1 - factor|.
    sigma = np.arange(1.0, 13.0)
    assert ence(factor * sigma, sigma, n_bins) == pytest.approx(abs(1 - factor), abs=1e-9)


@given(arrays("f8", 17, elements=st.floats(-3, 3)), st.floats(0.1, 3), st.integers(1, 9))
def test_equal_uncertainties_give_equal_bins_whatever_the_order(error, sigma, n_bins):
    rmv, rmse = binned(error, np.full(17, sigma), n_bins)
    assert rmv == pytest.approx(np.full(n_bins, sigma))
    assert rmse == pytest.approx(np.full(n_bins, np.sqrt(np.mean(error**2))), abs=1e-7)


def test_bins_are_plain_equal_counts_where_those_exist():
    error, sigma = calibrated(60)
    rmv, rmse = binned(error, sigma, 6)
    order = np.argsort(sigma)
    assert rmv == pytest.approx([np.sqrt(np.mean(sigma[k] ** 2)) for k in np.split(order, 6)])
    assert rmse == pytest.approx([np.sqrt(np.mean(error[k] ** 2)) for k in np.split(order, 6)])


def test_ence_sees_what_the_mean_does_not():
    # Right on average, the same for all: too large for one half and too small for the other.
    error, sigma = calibrated()
    flat = np.full_like(sigma, 1.0)
    flat *= sigma + 0.2 * np.sqrt(np.mean(sigma**2))  # compressed towards the middle, order kept
    flat *= np.sqrt(np.mean(error**2) / np.mean(flat**2))
    assert mean_squared_z(error, sigma) == pytest.approx(1, abs=0.05)
    assert ence(error, flat) > 3 * ence(error, sigma)


def test_null_is_not_zero_but_root_of_bins_over_entries():
    # |RMV - RMSE| / RMV of m Gaussian errors is |N(0, 1/(2m))|: mean sqrt(bins / (pi n)).
    for n, n_bins in ((2000, 10), (8000, 10), (8000, 40)):
        error, sigma = calibrated(n)
        found = ence_with_null(error, sigma, seed=1, n_bins=n_bins)
        assert found.null_mean == pytest.approx(math.sqrt(n_bins / (math.pi * n)), rel=0.1)
        assert found.null_mean < found.null_high


def test_null_keeps_its_word_on_perfect_uncertainties_and_finds_a_planted_fault():
    perfect = [ence_with_null(*calibrated(600, k), seed=k, n_bins=8, n_repeats=100) for k in range(120)]
    above = sum(p.value > p.null_high for p in perfect)
    assert 0 <= above <= 15  # 6 expected of 120, 15 is beyond 3.5 standard deviations
    p_values = [p.p_value for p in perfect]
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3
    error, sigma = calibrated(600)
    wrong = ence_with_null(1.3 * error, sigma, seed=0, n_bins=8)
    assert wrong.value > wrong.null_high and wrong.p_value < 0.01


def test_bins_need_entries():
    with pytest.raises(DataError, match="fill 15 bins"):
        ence(np.ones(14), np.ones(14))
    with pytest.raises(DataError, match="negative"):
        ence([1.0, 1.0], [1.0, -1.0], 1)


def test_certain_and_wrong_is_infinitely_off():
    assert ence([0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], 2) == 0.0
    assert ence([1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], 2) == math.inf
    assert z_variance([1.0, 2.0], [0.0, 1.0]) == math.inf


# --- z, sharpness, coverage -------------------------------------------------------------------


def test_variance_of_z_ignores_a_bias_that_its_mean_square_counts():
    error, sigma = calibrated(20000)
    assert z_variance(2 * error, sigma) == pytest.approx(4, rel=0.05)
    assert z_variance(error + 3 * sigma, sigma) == pytest.approx(1, rel=0.05)
    assert mean_squared_z(error + 3 * sigma, sigma) == pytest.approx(10, rel=0.05)
    assert math.isnan(z_variance([1.0], [1.0])) and math.isnan(mean_squared_z([], []))


def test_interval_of_z_variance_holds_one_for_calibrated_and_not_for_overconfident():
    rng = np.random.default_rng(4)
    sigma = np.repeat(rng.lognormal(size=(900, 1)), 3, axis=1)
    error, structure = sigma * rng.normal(size=(900, 3)), np.repeat(np.arange(45), 20)
    found = z_variance_interval(error, sigma, structure, seed=0, n_resamples=300)
    assert found.low < 1 < found.high
    assert found.n_structures == 45
    assert z_variance_interval(error, sigma / 1.3, structure, seed=0, n_resamples=300).low > 1.3


def test_coverages_of_calibrated_errors():
    found = coverages(*calibrated(40000))
    assert found == {level: pytest.approx(level, abs=0.01) for level in (0.68, 0.90, 0.95)}


def test_sharpness_is_the_root_mean_square():
    assert sharpness([3.0, 4.0]) == pytest.approx(math.sqrt(12.5))
    assert math.isnan(sharpness([]))


# --- Student's t ------------------------------------------------------------------------------


def test_errors_of_student_t_are_calibrated_as_such_and_not_as_gaussian():
    rng = np.random.default_rng(5)
    df, scale = 3.0, rng.lognormal(size=30000)
    error = scale * rng.standard_t(df, 30000)
    assert miscalibration_area(error, scale, df) < 0.01
    assert coverage(error, scale, 0.95, df) == pytest.approx(0.95, abs=0.006)
    assert coverages(error, scale, df=np.full(30000, df))[0.68] == pytest.approx(0.68, abs=0.01)
    sigma = scale * math.sqrt(3)  # its standard deviation
    assert miscalibration_area(error, sigma) > 0.08
    assert student_scale(sigma, df) == pytest.approx(scale)


@given(st.floats(-8, 8), st.floats(0.5, 100))
def test_levels_of_student_t_are_its_probability(z, df):
    expected = stats.t.cdf(abs(z), df) - stats.t.cdf(-abs(z), df)
    assert central_levels([z], [1.0], df)[0] == pytest.approx(expected, abs=1e-9)


def test_many_degrees_of_freedom_are_gaussian():
    error, sigma = calibrated(500)
    assert miscalibration_area(error, sigma, 1e9) == pytest.approx(miscalibration_area(error, sigma), abs=1e-7)


def test_balls_around_vectors():
    rng = np.random.default_rng(6)
    sigma, df = rng.lognormal(size=20000), 4.0
    gauss = sigma[:, None] * rng.normal(size=(20000, 3))
    student = gauss / np.sqrt(rng.chisquare(df, (20000, 1)) / df)
    assert stats.kstest(radial_levels(gauss, sigma), "uniform").pvalue > 1e-3
    assert stats.kstest(radial_levels(student, sigma, df), "uniform").pvalue > 1e-3
    assert level_area(radial_levels(gauss, sigma)) < 0.01
    # The published mistake: the length of the error judged by the standard deviation of one component.
    assert level_area(central_levels(np.linalg.norm(gauss, axis=1), sigma)) > 0.2
    one = gauss[:, :1]
    assert radial_levels(one, sigma) == pytest.approx(central_levels(one[:, 0], sigma), abs=1e-12)
    assert radial_levels(one, sigma, df) == pytest.approx(central_levels(one[:, 0], sigma, df), abs=1e-9)


def test_no_width_at_all():
    assert central_levels([0.0, 1.0], [0.0, 0.0], 3.0).tolist() == [0.0, 1.0]
    assert radial_levels([[0.0, 0, 0], [1, 0, 0]], [0.0, 0.0], 3.0).tolist() == [0.0, 1.0]
    assert radial_levels([[0.0, 0, 0], [1, 0, 0]], [0.0, 0.0]).tolist() == [0.0, 1.0]


def test_impossible_degrees_of_freedom():
    with pytest.raises(DataError, match="no finite standard deviation"):
        student_scale([1.0], 2.0)
    with pytest.raises(DataError, match="positive number of degrees"):
        central_levels([1.0], [1.0], 0.0)
    with pytest.raises(DataError, match="one number or as many"):
        coverage([1.0, 2.0], [1.0, 1.0], 0.5, [3.0])
    with pytest.raises(DataError, match="one row of components"):
        radial_levels([1.0], [1.0])


# --- an independent library -------------------------------------------------------------------


@pytest.fixture(scope="module")
def toolbox():
    # Its import takes seconds (matplotlib, scikit-learn).
    return pytest.importorskip("uncertainty_toolbox", reason="the independent library is in the dev extra")


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_measures_agree_with_uncertainty_toolbox(toolbox, factor):
    error, sigma = calibrated(700, 3)
    claimed = factor * sigma
    given_ = (error, claimed, np.zeros_like(error))
    # Theirs takes the coverage on a fixed grid of 100 levels, ours exactly: they differ by up to a grid step.
    theirs = toolbox.miscalibration_area(*given_, num_bins=100)
    assert miscalibration_area(error, claimed) == pytest.approx(theirs, abs=0.01)
    fine = toolbox.miscalibration_area(*given_, num_bins=3000, vectorized=True)
    assert miscalibration_area(error, claimed) == pytest.approx(fine, abs=5e-4)
    assert gaussian_nll(error, claimed).mean() == pytest.approx(toolbox.nll_gaussian(*given_, scaled=True), rel=1e-9)
    assert gaussian_crps(error, claimed).mean() == pytest.approx(toolbox.crps_gaussian(*given_, scaled=True), rel=1e-9)
    assert sharpness(claimed) == pytest.approx(toolbox.sharpness(claimed), rel=1e-12)
