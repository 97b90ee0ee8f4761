"""From raw doubt to standard deviations: factors, strata, what is saved, what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from dubito.config.methods import CalibrationConfig
from dubito.core.errors import DataError, ModelError
from dubito.uncertainty.calibration import (
    FACTOR_RANGE,
    MIN_ATOMS,
    Calibration,
    fit_by_strata,
    fit_calibration,
    scale_factor,
)

ESTIMATORS = ["rms", "likelihood", "absolute", "crps"]
CARBON = 6


def gaussian(n: int, *, factor: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return standard deviations that vary tenfold, and errors ``factor`` times as large as they say."""
    random = np.random.default_rng(seed)
    sigma = np.exp(random.uniform(math.log(0.01), math.log(0.1), n))
    return sigma, factor * sigma[:, None] * random.normal(size=(n, 3))


def fit(raw, errors, numbers=None, *, is_sigma=True, force_scale=1.0, **config) -> Calibration:
    numbers = np.full(len(raw), CARBON) if numbers is None else numbers
    return fit_calibration(
        raw, errors, numbers, is_sigma=is_sigma, force_scale=force_scale, config=CalibrationConfig(**config)
    )


# --- the factor -------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_finds_the_factor_of_gaussian_errors(estimator: str) -> None:
    sigma, errors = gaussian(20000, factor=2.5)
    assert scale_factor(errors, sigma, estimator) == pytest.approx(2.5, rel=0.02)


def test_closed_forms() -> None:
    sigma, errors = np.array([1.0, 2.0]), np.array([[1.0, -1, 1], [4, 4, -4]])
    assert scale_factor(errors, sigma, "rms") == pytest.approx(math.sqrt((1 + 16) / (1 + 4)))
    assert scale_factor(errors, sigma, "likelihood") == pytest.approx(math.sqrt((1 + 4) / 2))
    assert scale_factor(errors, sigma, "absolute") == pytest.approx(math.sqrt(math.pi / 2) * 1.5)
    # One |z| = 1: 2 phi(1 / f) = 1 / sqrt(pi), so f = 1 / sqrt(ln 2).
    assert scale_factor(errors[:1], sigma[:1], "crps") == pytest.approx(1 / math.sqrt(math.log(2)))


def test_crps_factor_minimises_the_crps() -> None:
    random = np.random.default_rng(3)
    sigma = random.lognormal(size=200)
    errors = sigma[:, None] * random.standard_t(3, size=(200, 3))

    def crps(factor: float) -> float:
        s = factor * sigma[:, None]
        z = errors / s
        density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        return float(np.mean(s * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))))

    found = scale_factor(errors, sigma, "crps")
    assert crps(found) < min(crps(found * 1.01), crps(found / 1.01))


def test_rms_is_not_misled_by_a_spread_of_two_members() -> None:
    """The variance of two members is unbiased, the mean of z^2 is nu / (nu - 2) = 3 of perfect ones."""
    random = np.random.default_rng(0)
    members = random.normal(size=(2, 40000, 3))
    sigma = np.sqrt(members.var(axis=0, ddof=1).mean(axis=1))
    errors = random.normal(size=(40000, 3))
    assert scale_factor(errors, sigma, "rms") == pytest.approx(1, abs=0.02)
    assert scale_factor(errors, sigma, "likelihood") > 1.5


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_one_vanishing_sigma_changes_little(estimator: str) -> None:
    sigma, errors = gaussian(500)
    spoilt = np.append(sigma, 1e-12)
    with_it = scale_factor(np.vstack([errors, [[0.05] * 3]]), spoilt, estimator)
    # The likelihood is ruled by it, though bounded: its z would be 5e10.
    assert with_it == pytest.approx(
        scale_factor(errors, sigma, estimator), rel=0.5 if estimator == "likelihood" else 0.05
    )


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.sampled_from(ESTIMATORS), st.integers(0, 5))
def test_factors_follow_the_units(c: float, d: float, estimator: str, seed: int) -> None:
    sigma, errors = gaussian(50, seed=seed)
    expected = scale_factor(errors, sigma, estimator) * c / d
    assert scale_factor(c * errors, d * sigma, estimator) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("planted", [1e-6, 1e6])
@pytest.mark.parametrize("kind", ["scale", "isotonic"])
def test_a_factor_out_of_range_is_applied_all_the_same_and_warned_of(
    planted: float, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut to the range, sigma would be wrong by what was cut off."""
    sigma, errors = gaussian(100, factor=planted)
    with caplog.at_level("WARNING", logger="dubito"):
        found = fit(sigma, errors, kind=kind, force_scale=max(planted, 1.0) * 1e-3)
    assert found.factor == pytest.approx(planted, rel=0.2)
    assert not FACTOR_RANGE[0] <= found.factor <= FACTOR_RANGE[1]
    given = found(sigma, np.full(100, CARBON))
    assert np.sqrt(np.mean(given**2)) == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-6)
    assert [note for note in found.notes if "outside" in note]
    assert "look for a fault" in caplog.text


def test_an_ordinary_factor_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    sigma, errors = gaussian(100, factor=50.0)
    with caplog.at_level("WARNING", logger="dubito"):
        fit(sigma, errors)
    assert not caplog.text


@pytest.mark.parametrize("c", [1e-3, 1.0, 1e3])
def test_no_doubt_is_calibrated_to_zero(c: float) -> None:
    """An atom without neighbours has a raw deviation of exactly 0; its sigma is a thousandth of the rms error."""
    sigma, errors = gaussian(200)
    found = fit(sigma, c * errors)
    floor = 1e-3 * c * np.sqrt(np.mean(errors**2))
    numbers = np.full(2, CARBON)
    np.testing.assert_allclose(found(np.array([0.0, 1e-9]), numbers), floor, rtol=1e-12)
    above = sigma[found.factor * sigma > floor]
    assert len(above) == len(sigma)
    np.testing.assert_array_equal(found(above, np.full(200, CARBON)), found.factor * above)
    arrays, about = found.state()
    assert Calibration.from_state(arrays, about)(np.zeros(1), np.ones(1, int))[0] == found(np.zeros(1), np.ones(1))[0]


def test_energies_get_the_factor_of_standard_deviations_whatever_maps_the_forces() -> None:
    sigma, errors = gaussian(300, factor=3)
    assert fit(sigma, errors, kind="isotonic").factor == fit(sigma, errors, kind="scale").factor != 1


# --- strata -----------------------------------------------------------------------------------


def test_elements_get_their_own_calibration() -> None:
    sigma, errors = gaussian(400)
    numbers = np.repeat([1, 6], 200)
    errors[200:] *= 4
    found = fit(sigma, errors, numbers, strata="element")(sigma, numbers) / sigma
    assert found[:200] == pytest.approx(1, rel=0.1)
    assert found[200:] == pytest.approx(4, rel=0.1)
    pooled = fit(sigma, errors, numbers, strata="none")(sigma, numbers) / sigma
    assert np.ptp(pooled) < 1e-12


def test_a_rare_element_gets_the_pooled_calibration_and_a_note() -> None:
    sigma, errors = gaussian(430)
    numbers = np.concatenate([np.ones(400, int), np.full(30, 7)])
    found = fit(sigma, errors, numbers, strata="element")
    pooled = fit(sigma, errors, numbers, strata="none")
    np.testing.assert_array_equal(found(sigma[400:], numbers[400:]), pooled(sigma[400:], numbers[400:]))
    np.testing.assert_array_equal(found(sigma, np.full(430, 92)), pooled(sigma, numbers))
    assert [note for note in found.notes if "stratum 7: 30 atoms" in note]
    assert not [note for note in found.notes if "stratum 1" in note]


def test_auto_stratifies_scores_and_not_standard_deviations() -> None:
    sigma, errors = gaussian(400)
    numbers = np.repeat([1, 6], 200)
    errors[200:] *= 4
    assert set(fit(sigma, errors, numbers).maps.by) == set()
    assert set(fit(sigma, errors, numbers, is_sigma=False).maps.by) == {1, 6}


def test_strata_of_any_name() -> None:
    sigma, errors = gaussian(400)
    errors[200:] *= 3
    names = np.repeat(["300 K", "1200 K"], 200)
    found = fit_by_strata(sigma, errors, names, is_sigma=True, force_scale=1.0, config=CalibrationConfig(kind="scale"))
    ratio = found(sigma, names) / sigma
    assert ratio[300] / ratio[100] == pytest.approx(3, rel=0.15)
    assert found(sigma, np.full(400, "900 K"))[0] / sigma[0] == pytest.approx(math.sqrt(5), rel=0.1)
    with pytest.raises(DataError, match="one for each atom"):
        fit_by_strata(sigma, errors, names[:5], is_sigma=True, force_scale=1.0, config=CalibrationConfig())


# --- what is saved ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["scale", "isotonic"])
@pytest.mark.parametrize("strata", ["none", "element"])
@pytest.mark.parametrize("is_sigma", [True, False])
def test_restored_is_identical(kind: str, strata: str, is_sigma: bool) -> None:
    sigma, errors = gaussian(300)
    numbers = np.tile([1, 6, 8], 100)
    numbers[:90] = 1
    found = fit(sigma, errors, numbers, kind=kind, strata=strata, is_sigma=is_sigma)
    arrays, about = found.state()
    restored = Calibration.from_state(arrays, json.loads(json.dumps(about)))
    new = np.concatenate([np.linspace(0, 1, 50), [np.inf]])
    for number in (1, 6, 8, 9):
        np.testing.assert_array_equal(restored(new, np.full(51, number)), found(new, np.full(51, number)))
    assert (restored.factor, restored.n_atoms, restored.notes) == (found.factor, found.n_atoms, found.notes)


def test_identity_changes_nothing() -> None:
    raw = np.array([0.0, 0.1, 5.0])
    np.testing.assert_array_equal(Calibration.identity()(raw, np.ones(3, int)), raw)
    arrays, about = Calibration.identity().state()
    np.testing.assert_array_equal(Calibration.from_state(arrays, about)(raw, np.ones(3, int)), raw)


def test_a_state_that_lacks_something_is_a_key_error() -> None:
    arrays, about = Calibration.identity().state()
    for spoilt in (({}, about), (arrays, {"factor": 1.0})):
        with pytest.raises(KeyError):
            Calibration.from_state(*spoilt)


# --- too little, or nothing sensible ----------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, MIN_ATOMS - 1])
def test_too_few_atoms_are_noted(n: int) -> None:
    sigma, errors = gaussian(n)
    new = np.array([0.02, 0.1])
    found = fit(sigma, errors)
    np.testing.assert_array_equal(found(new, np.ones(2, int)), new)
    assert f"{n} unseen atoms" in found.notes[0]
    score = fit(sigma, errors, is_sigma=False, force_scale=0.7)
    seen = sigma if n else new
    assert score(seen, np.ones(len(seen), int)) == pytest.approx(0.7, rel=2e-3)
    assert np.diff(score(new, np.ones(2, int))) > 0
    if n:
        # Beyond the few that were seen it rises all the same.
        assert score(sigma.max() + 3 * new[:1], np.ones(1, int)) > 1.05 * 0.7


def test_standard_deviations_of_zero_everywhere_become_the_rms_error() -> None:
    _, errors = gaussian(100)
    found = fit(np.zeros(100), errors)
    assert found(np.zeros(3), np.full(3, CARBON)) == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert found.factor == 1
    assert "all raw doubt is zero" in found.notes[0]


@pytest.mark.parametrize("kind", ["scale", "isotonic"])
@pytest.mark.parametrize("is_sigma", [True, False])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_errors_of_zero_give_small_positive_numbers(kind: str, is_sigma: bool, estimator: str) -> None:
    sigma, _ = gaussian(100)
    found = fit(sigma, np.zeros((100, 3)), kind=kind, is_sigma=is_sigma, estimator=estimator)
    given = found(sigma, np.full(100, CARBON))
    assert np.all(given > 0) and np.all(given < np.maximum(sigma, 1e-5))


def test_infinite_doubt_is_left_out_of_the_fit_and_given_a_finite_number() -> None:
    sigma, errors = gaussian(200)
    spoilt = np.append(sigma, np.inf)
    for kind in ("scale", "isotonic"):
        clean = fit(sigma, errors, kind=kind)
        found = fit(spoilt, np.vstack([errors, [[1.0, 1, 1]]]), kind=kind)
        numbers = np.full(201, CARBON)
        np.testing.assert_array_equal(found(sigma, numbers[1:]), clean(sigma, numbers[1:]))
        given = found(spoilt, numbers)
        assert np.isfinite(given[-1]) and given[-1] > 100 * given[:-1].max()
        assert "infinite" in found.notes[0]


def test_refusals() -> None:
    sigma, errors = gaussian(50)
    numbers = np.full(50, CARBON)
    bad = sigma.copy()
    bad[3] = np.nan
    with pytest.raises(ModelError, match="NaN"):
        fit(bad, errors)
    with pytest.raises(ModelError, match="NaN"):
        fit(sigma, errors)(bad, numbers)
    with pytest.raises(ModelError, match="below 0"):
        fit(-sigma, errors)
    with pytest.raises(ModelError, match="below 0"):
        fit(sigma, errors)(-sigma, numbers)
    with pytest.raises(ModelError, match=r"uncertainty\.calibration\.kind: isotonic"):
        fit(-sigma, errors, is_sigma=False, kind="scale")
    # Scores that were positive on the calibration set, and are not on others.
    with pytest.raises(ModelError, match=r"uncertainty\.calibration\.kind: isotonic"):
        fit(sigma, errors, is_sigma=False, kind="scale")(-sigma, numbers)
    with pytest.raises(DataError, match="belong together"):
        fit(sigma, errors[:10])
    with pytest.raises(DataError, match="not a finite number"):
        fit(sigma, errors * np.inf)
    with pytest.raises(DataError, match="force scale"):
        fit(sigma, errors, force_scale=0.0)
