"""Bounds with a guarantee: coverage by simulation, closed forms, statements when data are too few."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dubito.core.errors import DataError, ModelError
from dubito.uncertainty.calibration import fit_conformal, fit_conformal_quantile, structures_needed
from dubito.uncertainty.calibration.quantile import fit_quantile


def molecules(random: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return doubt, sizes of errors and bounds of n molecules of 1 to 6 atoms whose errors are alike within each."""
    counts = random.integers(1, 7, n)
    ptr = np.concatenate([[0], np.cumsum(counts)])
    sigma = random.lognormal(sigma=0.5, size=ptr[-1])
    common = np.repeat(random.lognormal(sigma=0.8, size=n), counts)
    return sigma, sigma * common * np.abs(random.standard_t(3, size=ptr[-1])), ptr


def covered(bound: np.ndarray, sizes: np.ndarray, ptr: np.ndarray, per: str) -> np.ndarray:
    """Return for each molecule whether all its atoms, or what share of them, lie within the bound."""
    inside = sizes <= bound
    reduce = np.minimum.reduceat(inside, ptr[:-1]) if per == "structure" else np.add.reduceat(inside, ptr[:-1])
    return reduce if per == "structure" else reduce / np.diff(ptr)


@pytest.mark.parametrize(("level", "needed"), [(0.5, 1), (0.68, 3), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_how_many_are_needed(level: float, needed: int) -> None:
    assert structures_needed(level) == needed
    ones = np.ones(needed)
    assert fit_conformal(ones, ones, None, level).factor == 1
    few = fit_conformal(ones[1:], ones[1:], None, level)
    assert math.isinf(few.factor)
    assert f"at least {needed} are needed" in few.statement
    assert np.all(np.isinf(few(np.array([0.0, 1.0]))))


def test_closed_form() -> None:
    sizes = np.arange(1.0, 100)
    assert fit_conformal(sizes, np.full(99, 2.0), None, 0.9).factor == 90 / 2
    ptr = np.arange(0, 100, 3)
    assert fit_conformal(sizes, np.ones(99), ptr, 0.9).factor == 3 * math.ceil(34 * 0.9)
    # Every structure weighs 1 / 34, an atom of it a third of that.
    assert fit_conformal(sizes, np.ones(99), ptr, 0.9, per="atom").factor == math.ceil(34 * 0.9 * 3)


@pytest.mark.parametrize(("per", "n", "level"), [("structure", 25, 0.9), ("structure", 60, 0.95), ("atom", 25, 0.9)])
def test_coverage_is_guaranteed_on_average(per: str, n: int, level: float) -> None:
    """Over 2000 calibration sets; per structure it is exactly ceil((n + 1) level) / (n + 1)."""
    random = np.random.default_rng(0)
    shares = []
    for _ in range(2000):
        sigma, sizes, ptr = molecules(random, n)
        factor = fit_conformal(sizes, sigma, ptr, level, per=per)
        new, e, bounds = molecules(random, 20)
        shares.append(covered(factor(new), e, bounds, per).mean())
    error = np.std(shares) / math.sqrt(len(shares))
    assert np.mean(shares) > level - 3 * error
    if per == "structure":
        assert np.mean(shares) == pytest.approx(math.ceil((n + 1) * level) / (n + 1), abs=3.5 * error)
    assert np.mean(shares) < level + 1 / (n + 1) + 3 * error


def test_the_simulation_would_find_a_quantile_without_correction() -> None:
    """The plain quantile of 25 scores covers less than it says; so does one that takes atoms for structures."""
    random = np.random.default_rng(0)
    plain, atoms = [], []
    for _ in range(1000):
        sigma, sizes, ptr = molecules(random, 25)
        z = sizes / sigma
        new, e, bounds = molecules(random, 20)
        plain.append(covered(np.quantile(np.maximum.reduceat(z, ptr[:-1]), 0.9) * new, e, bounds, "structure").mean())
        atoms.append(covered(fit_conformal(sizes, sigma, None, 0.9)(new), e, bounds, "structure").mean())
    assert np.mean(plain) < 0.89
    assert np.mean(atoms) < 0.85


def test_zero_sigma() -> None:
    ones = np.ones(30)
    sigma = np.append(ones, 0.0)
    assert fit_conformal(np.append(ones, 0.0), sigma, None, 0.9).factor == 1
    assert math.isinf(fit_conformal(np.ones(31), np.zeros(31), None, 0.9).factor)


def test_bad_input() -> None:
    ones = np.ones(20)
    with pytest.raises(DataError, match="between 0 and 1"):
        fit_conformal(ones, ones, None, 95)
    with pytest.raises(DataError, match="don't match"):
        fit_conformal(ones, ones[1:], None, 0.9)
    with pytest.raises(DataError, match="negative"):
        fit_conformal(-ones, ones, None, 0.9)
    with pytest.raises(DataError, match="NaN"):
        fit_conformal(np.nan * ones, ones, None, 0.9)
    with pytest.raises(DataError, match="end at atom 10"):
        fit_conformal(ones, ones, np.array([0, 10]), 0.9)
    with pytest.raises(DataError, match="two structures"):
        fit_conformal_quantile(ones, ones, np.array([0, 20]), 0.9, seed=0)
    with pytest.raises(ModelError, match="NaN"):
        fit_conformal_quantile(np.nan * ones, ones, None, 0.9, seed=0)
    with pytest.raises(DataError, match="finite doubt"):
        fit_quantile(np.full(5, np.inf), np.ones(5), 0.9)


# --- quantile regression ----------------------------------------------------------------------


def test_quantile_of_a_constant_doubt_is_the_empirical_quantile() -> None:
    y = np.random.default_rng(0).exponential(size=101)
    line = fit_quantile(np.full(101, 7.0), y, 0.9)
    assert line(np.array([7.0]))[0] == pytest.approx(np.sort(y)[90])


@pytest.mark.parametrize("level", [0.1, 0.5, 0.95])
def test_quantile_of_an_exact_line_is_the_line(level: float) -> None:
    x = np.random.default_rng(0).uniform(-2, 2, 80)
    new = np.linspace(-4, 4, 9)
    np.testing.assert_allclose(fit_quantile(x, 3 + 2 * x, level)(new), 3 + 2 * new, atol=1e-9)


def test_quantile_rises_even_where_errors_fall() -> None:
    random = np.random.default_rng(0)
    x = random.uniform(0, 1, 300)
    line = fit_quantile(x, (2 - x) * random.exponential(size=300), 0.9)
    assert np.all(np.diff(line(np.linspace(-1, 2, 50))) >= 0)


def test_quantile_follows_the_doubt_and_the_units() -> None:
    """The 90 % quantile of |N(0, x^2)| is 1.645 x."""
    random = np.random.default_rng(0)
    x = random.uniform(0.5, 2, 3000)
    y = np.abs(x * random.normal(size=3000))
    line = fit_quantile(x, y, 0.9)
    np.testing.assert_allclose(line(x), 1.645 * x, rtol=0.12)
    np.testing.assert_allclose(fit_quantile(1e3 * x - 5, 1e-4 * y, 0.9)(1e3 * x - 5), 1e-4 * line(x), rtol=1e-6)


@pytest.mark.parametrize("per", ["structure", "atom"])
def test_conformalised_quantile_covers_on_average(per: str) -> None:
    random = np.random.default_rng(1)
    shares, level = [], 0.9
    for repeat in range(300):
        bound = fit_conformal_quantile(*molecules(random, 40), level, seed=repeat, per=per)
        new, e, bounds = molecules(random, 40)
        shares.append(covered(bound(new), e, bounds, per).mean())
    error = np.std(shares) / math.sqrt(len(shares))
    assert level - 3 * error < np.mean(shares) < level + 1 / 21 + 3 * error


def test_conformalised_quantile_adapts() -> None:
    """Where the error's quantile is not proportional to the doubt, its bound is tighter than a factor's."""
    random = np.random.default_rng(2)
    x = random.uniform(0, 1, 4000)
    y = np.abs((1 + 0.5 * x) * random.normal(size=4000))
    bound, factor = fit_conformal_quantile(x, y, None, 0.9, seed=0), fit_conformal(y, x, None, 0.9)
    assert np.mean(bound(x)) < 0.5 * np.mean(factor(x))
    assert bound(np.array([np.inf]))[0] == np.inf
    assert np.isfinite(bound(np.array([-np.inf]))[0])


def test_conformalised_quantile_is_deterministic_and_says_when_there_is_too_little() -> None:
    doubt, sizes, ptr = molecules(np.random.default_rng(3), 37)
    a, b = (fit_conformal_quantile(doubt, sizes, ptr, 0.95, seed=4) for _ in range(2))
    np.testing.assert_array_equal(a(doubt), b(doubt))
    assert (a.n_structures, a.n_needed) == (19, 19)
    assert np.all(np.isfinite(a(doubt)))
    few = fit_conformal_quantile(doubt[: ptr[20]], sizes[: ptr[20]], ptr[:21], 0.95, seed=4)
    assert np.all(np.isinf(few(doubt)))
