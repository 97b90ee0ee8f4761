"""Proper scores against scipy, integrals, sampling and an independent library."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from dubito.core.errors import DataError
from dubito.metrics.scoring import (
    energy_score,
    gaussian_crps,
    gaussian_nll,
    isotropic_energy_score,
    isotropic_gaussian_nll,
    multivariate_student_nll,
    student_crps,
    student_nll,
)

errors = st.floats(-20, 20)
scales = st.floats(0.01, 30)


@given(errors, scales)
def test_gaussian_nll_is_the_log_density(e, s):
    assert gaussian_nll(e, s) == pytest.approx(-stats.norm.logpdf(e, scale=s), rel=1e-10, abs=1e-10)


@given(errors, scales, st.floats(0.3, 300))
def test_student_nll_is_the_log_density(e, s, df):
    assert student_nll(e, s, df) == pytest.approx(-stats.t.logpdf(e, df, scale=s), rel=1e-9, abs=1e-9)


def test_multivariate_scores_are_log_densities_also_with_many_degrees_of_freedom():
    rng = np.random.default_rng(0)
    e, s, df = rng.normal(size=(30, 3)), rng.lognormal(size=30), rng.uniform(0.5, 50, 30)
    gauss, student = isotropic_gaussian_nll(e, s), multivariate_student_nll(e, s, df)
    for k in range(30):
        shape = s[k] ** 2 * np.eye(3)
        assert gauss[k] == pytest.approx(-stats.multivariate_normal.logpdf(e[k], cov=shape))
        assert student[k] == pytest.approx(-stats.multivariate_t.logpdf(e[k], shape=shape, df=df[k]))
    assert gauss == pytest.approx(gaussian_nll(e, np.repeat(s[:, None], 3, axis=1)).sum(axis=1))
    for many in (1e6, 1e12):  # a difference of log gammas would have lost all digits
        assert multivariate_student_nll(e, s, many) == pytest.approx(gauss, rel=1e-4 if many < 1e9 else 1e-9)


def test_one_component_is_the_univariate_case():
    e, s = np.array([0.3, -2.0]), np.array([0.5, 1.5])
    assert multivariate_student_nll(e[:, None], s, 4.0) == pytest.approx(student_nll(e, s, 4.0))
    assert isotropic_gaussian_nll(e[:, None], s) == pytest.approx(gaussian_nll(e, s))


def crps_integral(distribution, e):
    low = integrate.quad(lambda x: distribution.cdf(x) ** 2, -np.inf, e, epsabs=1e-11)[0]
    return low + integrate.quad(lambda x: distribution.sf(x) ** 2, e, np.inf, epsabs=1e-11)[0]


@pytest.mark.parametrize("e", [-3.0, 0.0, 0.7, 12.0])
@pytest.mark.parametrize("s", [0.2, 2.0])
def test_crps_is_its_integral(e, s):
    assert gaussian_crps(e, s) == pytest.approx(crps_integral(stats.norm(scale=s), e), rel=1e-6)
    for df in (1.5, 3.0, 40.0):
        assert student_crps(e, s, df) == pytest.approx(crps_integral(stats.t(df, scale=s), e), rel=1e-5)


def test_crps_agrees_with_scoringrules():
    scoringrules = pytest.importorskip("scoringrules", reason="the independent library is in the dev extra")
    rng = np.random.default_rng(1)
    e, s, df = rng.normal(size=200) * 3, rng.lognormal(size=200), rng.uniform(1.2, 60, 200)
    assert gaussian_crps(e, s) == pytest.approx(scoringrules.crps_normal(e, 0.0, s), abs=1e-10)
    assert student_crps(e, s, df) == pytest.approx(scoringrules.crps_t(e, df, 0.0, s), abs=1e-9)


def test_crps_of_a_sharp_forecast_is_the_error():
    e = np.array([-2.0, 0.5])
    assert gaussian_crps(e, np.full(2, 1e-9)) == pytest.approx(np.abs(e), rel=1e-8)
    assert student_crps(e, np.full(2, 1e-9), 3.0) == pytest.approx(np.abs(e), rel=1e-8)


@pytest.mark.parametrize("m", [1, 2, 7])
def test_energy_score_agrees_with_scoringrules(m):
    scoringrules = pytest.importorskip("scoringrules", reason="the independent library is in the dev extra")
    rng = np.random.default_rng(2)
    samples, observed = rng.normal(size=(m, 20, 3)), rng.normal(size=(20, 3))
    moved = np.moveaxis(samples, 0, 1)  # theirs: (..., members, variables)
    theirs = scoringrules.es_ensemble(observed, moved, m_axis=-2, v_axis=-1)
    assert energy_score(samples, observed) == pytest.approx(theirs, abs=1e-12)
    if m > 1:
        theirs = scoringrules.es_ensemble(observed, moved, m_axis=-2, v_axis=-1, estimator="fair")
        assert energy_score(samples, observed, fair=True) == pytest.approx(theirs, abs=1e-12)


def test_energy_score_of_vectors_turns_with_them():
    rng = np.random.default_rng(3)
    samples, observed = rng.normal(size=(5, 8, 3)), rng.normal(size=(8, 3))
    turn = stats.special_ortho_group.rvs(3, random_state=4)
    assert energy_score(samples @ turn, observed @ turn) == pytest.approx(energy_score(samples, observed), abs=1e-12)


def test_energy_score_of_a_gaussian_is_what_fair_samples_tend_to():
    rng = np.random.default_rng(5)
    sigma, e = np.array([0.3, 1.0, 2.0, 1.0]), np.array([[1.0, 0, 0], [0, 0, 0], [0.5, -2, 1], [0, 9, 0]])
    samples = sigma[:, None] * rng.normal(size=(2000, 4, 3))
    assert isotropic_energy_score(e, sigma) == pytest.approx(energy_score(samples, e, fair=True), rel=0.03)


@given(scales, st.floats(0.0, 30))
def test_energy_score_of_a_gaussian_follows_its_integral(s, length):
    # Over a shell of radius x, the mean distance to a point at r is max + min^2 / (3 max), as for a charged shell.
    r = length / s

    def shell(x):
        far, near = max(x, r), min(x, r)
        return math.sqrt(2 / math.pi) * x**2 * math.exp(-(x**2) / 2) * (far + near**2 / (3 * far))

    edges = [1e-12, min(max(r, 1e-6), 12.0), 13.0]
    mean = sum(integrate.quad(shell, a, b, epsabs=1e-12)[0] for a, b in itertools.pairwise(edges))
    expected = s * (mean - 2 / math.sqrt(math.pi))
    assert isotropic_energy_score([[0, length, 0]], [s])[0] == pytest.approx(expected, rel=1e-9, abs=1e-9 * s)


def test_fair_score_of_small_ensembles_is_unbiased_and_the_plain_one_is_not():
    rng = np.random.default_rng(6)
    truth = rng.normal(size=(40000, 3))
    small, expected = rng.normal(size=(3, 40000, 3)), isotropic_energy_score(truth, np.ones(40000)).mean()
    assert energy_score(small, truth, fair=True).mean() == pytest.approx(expected, abs=0.02)
    assert energy_score(small, truth).mean() > expected + 0.2


SCORES = {
    "nll": lambda e, s: gaussian_nll(e[:, 0], s),
    "vector nll": isotropic_gaussian_nll,
    "crps": lambda e, s: gaussian_crps(e[:, 0], s),
    "energy": isotropic_energy_score,
}
STUDENT_SCORES = {
    "nll": lambda e, s: student_nll(e[:, 0], s, 5.0),
    "vector nll": lambda e, s: multivariate_student_nll(e, s, 5.0),
    "crps": lambda e, s: student_crps(e[:, 0], s, 5.0),
}


@pytest.mark.parametrize("student", [False, True])
def test_every_score_is_proper_best_for_the_true_width(student):
    rng = np.random.default_rng(7)
    sigma = rng.lognormal(size=20000)
    e = sigma[:, None] * rng.normal(size=(20000, 3))
    if student:
        e /= np.sqrt(rng.chisquare(5, (20000, 1)) / 5)
    for name, score in (STUDENT_SCORES if student else SCORES).items():
        right = score(e, sigma).mean()
        assert all(score(e, f * sigma).mean() > right for f in (0.6, 0.8, 1.25, 1.6)), name
        assert score(e, np.full_like(sigma, np.sqrt(np.mean(sigma**2)))).mean() > right, name


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_an_uncertainty_without_a_density_is_refused(bad):
    e, s = np.ones((2, 3)), np.array([1.0, bad])
    for score in (*SCORES.values(), *STUDENT_SCORES.values()):
        with pytest.raises(DataError, match="1 of 2 uncertainties"):
            score(e, s)


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="must be equal"):
        gaussian_nll(np.ones(3), np.ones(2))
    with pytest.raises(DataError, match=r"\(N, d\) and \(N,\)"):
        isotropic_gaussian_nll(np.ones((3, 3)), np.ones((3, 3)))
    with pytest.raises(DataError, match="Degrees of freedom"):
        student_nll(1.0, 1.0, 0.0)
    with pytest.raises(DataError, match="above 1"):
        student_crps(1.0, 1.0, 1.0)
    with pytest.raises(DataError, match="give one number or as many"):
        multivariate_student_nll(np.ones((3, 3)), np.ones(3), np.ones(2))
    with pytest.raises(DataError, match="3 components"):
        isotropic_energy_score(np.ones((2, 2)), np.ones(2))
    with pytest.raises(DataError, match="2 or more"):
        energy_score(np.ones((1, 2, 3)), np.ones((2, 3)), fair=True)
    with pytest.raises(DataError, match="don't fit observed"):
        energy_score(np.ones((2, 2, 3)), np.ones((3, 3)))


def test_a_failed_prediction_scores_no_number():
    e = np.array([[1.0, 0, 0], [np.nan, 0, 0]])
    for score in (*SCORES.values(), *STUDENT_SCORES.values()):
        found = score(e, np.ones(2))
        assert np.isfinite(found[0]) and math.isnan(found[1])
