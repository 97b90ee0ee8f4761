"""The rising map from a score to a standard deviation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dubito.config.methods import CalibrationConfig
from dubito.metrics.calibration import coverage, miscalibration_area
from dubito.uncertainty.calibration import MIN_ATOMS, fit_calibration, fit_isotonic
from dubito.uncertainty.calibration.fitting import fit_map
from dubito.uncertainty.calibration.isotonic import CEILING, FLOOR, MIN_BLOCK
from dubito.uncertainty.calibration.sample import make_sample


def planted(n: int, seed: int = 0, *, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, true standard deviations that rise with them, and errors."""
    random = np.random.default_rng(seed)
    score = random.normal(size=n)
    sigma = 0.05 * np.exp(0.7 * np.tanh(score))
    return score, sigma, noise * sigma[:, None] * random.normal(size=(n, 3))


def isotonic(score, errors, *, is_sigma: bool = False, force_scale: float = 1.0, estimator: str = "rms"):
    sample = make_sample(score, errors, is_sigma=is_sigma, force_scale=force_scale)
    return fit_isotonic(sample, estimator)[0]


def test_finds_the_planted_map_on_new_atoms() -> None:
    score, _, errors = planted(2000)
    new, sigma, e = planted(4000, seed=1)
    found = isotonic(score, errors)(new)
    assert np.sqrt(np.mean(np.log(found / sigma) ** 2)) < 0.08
    assert miscalibration_area(e, np.repeat(found[:, None], 3, axis=1)) < 0.01
    assert coverage(e, np.repeat(found[:, None], 3, axis=1), 0.95) == pytest.approx(0.95, abs=0.01)


def test_blind_to_how_the_score_is_spelt() -> None:
    """Between the outermost knots only the order counts, but for the straight lines between centres."""
    score, _, errors = planted(3000)
    inside = np.abs(score) < 1.2
    a, b = isotonic(score, errors)(score), isotonic(np.exp(score), errors)(np.exp(score))
    np.testing.assert_allclose(a[inside], b[inside], rtol=0.06)


def test_keeps_the_number_of_atoms_in_a_step() -> None:
    """Wild noise in few atoms gives few steps: no step is of fewer than MIN_BLOCK atoms."""
    for n in (90, 200, 1000):
        score, _, errors = planted(n)
        # One knot more stands at the edge of the set; it is no step.
        assert len(isotonic(score, errors).knots) <= n // MIN_BLOCK + 1


def test_errors_that_fall_with_the_score_give_a_constant_that_still_ranks() -> None:
    score, _, errors = planted(500)
    found, notes = fit_isotonic(make_sample(-score, errors, is_sigma=False, force_scale=1.0))
    given = found(np.sort(score))
    assert np.all(np.diff(given) > 0)
    np.testing.assert_allclose(given, np.sqrt(np.mean(errors**2)), rtol=5e-3)
    assert "don't rise" in notes[0]


@pytest.mark.parametrize("is_sigma", [True, False])
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_constant_score_gives_the_rms_error(is_sigma: bool, value: float) -> None:
    _, _, errors = planted(200)
    found = isotonic(np.full(200, value), errors, is_sigma=is_sigma)
    np.testing.assert_allclose(found(np.full(5, value)), np.sqrt(np.mean(errors**2)), rtol=1e-12)


def test_equal_scores_stay_together() -> None:
    random = np.random.default_rng(0)
    score = np.repeat([0.0, 1.0, 2.0], [5, 200, 70])
    errors = (1 + score)[:, None] * random.normal(size=(275, 3))
    found = isotonic(score, errors)
    assert set(np.round(found.knots, 1)) <= {0.0, 1.0, 2.0}
    assert found(np.array([1.0]))[0] == pytest.approx(2, rel=0.1)
    assert found(np.array([2.0]))[0] == pytest.approx(3, rel=0.15)


# --- outside of what was seen -----------------------------------------------------------------


def test_goes_on_rising_and_is_bounded() -> None:
    score, _, errors = planted(900)
    found = isotonic(score, errors)
    far = np.array([4.0, 5.0, 10.0, 100.0, 1e4, 1e8, np.inf])
    given = found(far)
    last = math.exp(found.log_sigma[-1])
    assert np.all(np.diff(given) > 0)
    assert given[0] > last and given[-1] == pytest.approx(CEILING * last, rel=1e-6)
    low = found(-far[[0, 1, 2, 3, 4, 6]])
    assert np.all(np.diff(low) < 0)
    assert low[-1] == pytest.approx(FLOOR * math.exp(found.log_sigma[0]), rel=1e-6)


def test_continues_with_the_slope_of_the_upper_half() -> None:
    """ln sigma = score exactly: a bit beyond the end it is still so."""
    random = np.random.default_rng(0)
    score = random.uniform(0, 2, 4000)
    found = isotonic(score, np.exp(score)[:, None] * random.normal(size=(4000, 3)))
    assert found(np.array([2.3]))[0] == pytest.approx(math.exp(2.3), rel=0.1)


@pytest.mark.parametrize("n", [1, 7, 8, 14, 29, 500])
@pytest.mark.parametrize("seed", range(4))
def test_without_a_rise_in_the_calibration_set_it_still_rises_beyond(n: int, seed: int) -> None:
    """Errors that have nothing to do with the score: nearly a constant inside, but no constant far outside."""
    random = np.random.default_rng(seed)
    score, errors = random.normal(size=n), 0.05 * random.normal(size=(n, 3))
    order = np.argsort(score)
    # As hard as it gets: the errors fall with the score.
    errors = errors[np.argsort(-np.sum(errors**2, axis=1))][np.argsort(order)]
    sample = make_sample(score, errors, is_sigma=False, force_scale=0.05)
    found = fit_map(sample, CalibrationConfig())[0]
    rms = 0.05 if n < MIN_ATOMS else float(np.sqrt(np.mean(errors**2)))
    inside = np.quantile(score, [0.05, 0.95]) if n > 1 else np.array([0.0, abs(score[0])])
    width = float(np.ptp(inside)) if n > 1 else max(abs(score[0]), 1.0)
    np.testing.assert_allclose(found(score), rms, rtol=5e-3)
    # Two widths outside: (1 + 2 / 2)^2 = 4 times as much, less what the bend takes.
    assert found(np.array([score.max() + 2 * width]))[0] > 3.5 * rms


def test_a_score_goes_on_as_a_power_not_exponentially() -> None:
    """ln sigma = score inside; from the edge on sigma grows by ``(1 + t / 2)^2``, which bends but little here."""
    random = np.random.default_rng(0)
    score = random.uniform(0, 2, 4000)
    found = isotonic(score, np.exp(score)[:, None] * random.normal(size=(4000, 3)))
    edge, last, slope = found.knots[-1], math.exp(found.log_sigma[-1]), found.slopes[1]
    for t in (0.5, 2.0, 6.0):
        ratio = found(np.array([edge + t / slope]))[0] / last
        rise = 2 * math.log1p(t / 2)
        assert ratio == pytest.approx(math.exp(rise / math.sqrt(1 + (rise / math.log(CEILING)) ** 2)), rel=1e-9)
    assert ratio < 0.05 * math.exp(6.0)


def test_standard_deviations_are_continued_in_proportion_at_least() -> None:
    random = np.random.default_rng(0)
    sigma = random.uniform(0.01, 0.1, 900)
    errors = 0.05 * random.normal(size=(900, 3))  # nothing to do with sigma
    found = isotonic(sigma, errors, is_sigma=True)
    edge = math.exp(found.knots[-1])
    a, b = found(np.array([edge, 3 * edge]))
    assert b / a == pytest.approx(3, rel=0.03)


# --- what must hold for anything --------------------------------------------------------------

numbers = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(numbers, min_size=1, max_size=60),
    st.lists(numbers, min_size=2, max_size=30),
    st.booleans(),
    st.integers(0, 10),
)
def test_never_falls_and_stays_finite(scores: list[float], new: list[float], is_sigma: bool, seed: int) -> None:
    score, query = np.array(scores), np.sort(np.array(new))
    if is_sigma:
        score, query = np.abs(score), np.sort(np.abs(query))
    errors = np.random.default_rng(seed).standard_t(2, size=(len(score), 3))
    given = isotonic(score, errors, is_sigma=is_sigma)(query)
    assert np.all(np.isfinite(given)) and np.all(given > 0)
    assert np.all(np.diff(given) >= 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 400), st.integers(0, 100), st.floats(-3, 3), st.booleans())
def test_ties_only_where_scores_tie(n: int, seed: int, trend: float, is_sigma: bool) -> None:
    random = np.random.default_rng(seed)
    score = random.normal(size=n)
    errors = np.exp(trend * score)[:, None] * random.normal(size=(n, 3))
    score = np.exp(score) if is_sigma else score
    new = np.linspace(score.min() - np.ptp(score), score.max() + 5 * np.ptp(score), 300)
    given = isotonic(score, errors, is_sigma=is_sigma)(np.unique(np.abs(new)) if is_sigma else new)
    assert np.all(np.diff(given) > 0)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-4, 1e4), st.integers(0, 20), st.booleans(), st.sampled_from(["rms", "absolute", "crps"]))
def test_sigma_of_c_times_the_energy_is_c_times_sigma(c: float, seed: int, is_sigma: bool, estimator: str) -> None:
    score, sigma, errors = planted(150, seed)
    raw, factor = (sigma, c) if is_sigma else (score, 1.0)
    new = np.linspace(0.01, 1, 20)
    before = isotonic(raw, errors, is_sigma=is_sigma, estimator=estimator)(new)
    after = isotonic(factor * raw, c * errors, is_sigma=is_sigma, force_scale=c, estimator=estimator)(factor * new)
    np.testing.assert_allclose(after, c * before, rtol=1e-8)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-100, 100), st.integers(0, 20))
def test_scores_have_no_unit_and_no_origin(scale: float, shift: float, seed: int) -> None:
    score, _, errors = planted(150, seed)
    new = np.linspace(-6, 6, 30)
    before = isotonic(score, errors)(new)
    after = isotonic(scale * score + shift, errors)(scale * new + shift)
    np.testing.assert_allclose(after, before, rtol=1e-6)


def test_estimators_set_the_level_of_heavy_tails() -> None:
    """With Student errors `rms` meets the mean square, `absolute` the mean absolute z (but for its floor)."""
    random = np.random.default_rng(0)
    score = random.normal(size=3000)
    errors = np.exp(score)[:, None] * random.standard_t(4, size=(3000, 3))
    rms, absolute = (isotonic(score, errors, estimator=name)(score) for name in ("rms", "absolute"))
    assert np.mean(rms**2) == pytest.approx(np.mean(errors**2), rel=1e-9)
    assert math.sqrt(math.pi / 2) * np.mean(np.abs(errors) / absolute[:, None]) == pytest.approx(1, rel=5e-3)
    assert np.all(absolute < rms)


def test_a_useless_score_does_no_harm_to_the_likelihood() -> None:
    """Fitted on 60 small structures, a random score costs less than 1 % of the likelihood of a constant."""
    random = np.random.default_rng(5)
    errors, new = 0.03 * random.normal(size=(1600, 3)), 0.03 * random.normal(size=(4000, 3))
    config = CalibrationConfig()
    map_ = fit_calibration(
        random.normal(size=1600), errors, np.full(1600, 6), is_sigma=False, force_scale=1.0, config=config
    )
    sigma = map_(random.normal(size=4000), np.full(4000, 6))[:, None]

    def nll(s) -> float:
        return float(np.mean(0.5 * (new / s) ** 2 + np.log(s)))

    constant = nll(np.sqrt(np.mean(errors**2)))
    assert nll(sigma) < constant + 0.01 * abs(constant)
