"""The interval of the miss rate: exact crossing probabilities, simultaneous coverage, against Clopper and Pearson."""

from __future__ import annotations

import time
from math import comb

import numpy as np
import pytest

from dubito.certificate.band import crossing_above, crossing_below, simultaneous_band
from dubito.certificate.interval import miss_rate
from dubito.certificate.pool import StratumScores
from dubito.certificate.threshold import Group, select_thresholds
from dubito.core.errors import DataError
from dubito.metrics.binomial import clopper_pearson


def test_crossing_has_its_closed_forms():
    assert crossing_above(np.array([0.3]), 5) == pytest.approx(0.7**5)
    assert crossing_below(np.array([0.1]), 5) == pytest.approx(1 - 0.9**5)
    # Two numbers: the smaller above 0.2, or the larger above 0.5.
    assert crossing_above(np.array([0.2, 0.5]), 2) == pytest.approx(1 - (0.5**2 - 0.3**2))
    # Daniels: all order statistics above the line k / n * c are missed with probability c.
    n, c = 12, 0.4
    assert crossing_below(np.arange(1, n + 1) / n * c, n) == pytest.approx(c)
    # The last order statistic alone, by a bound of 1 on all others' far side.
    assert crossing_above(np.array([1.0, 1.0, 0.5][::-1]), 3) == pytest.approx(0.5**3)


@pytest.mark.parametrize(("n", "k"), [(20, 0), (40, 3), (100, 9), (7, 7)])
def test_band_holds_at_all_counts_at_once_as_often_as_it_says(n, k):
    band = simultaneous_band(n, k)
    order = np.sort(np.random.default_rng(n).random((40_000, n)), axis=1)
    over = (order[:, : k + 1] > band.high[: order[:, : k + 1].shape[1]]).any(axis=1)
    under = (order[:, :k] < band.low[1:]).any(axis=1) if k else np.zeros(len(order), bool)
    assert over.mean() == pytest.approx(0.025, abs=0.003)
    assert under.mean() == pytest.approx(0.025 if k else 0.0, abs=0.003)


@pytest.mark.parametrize(("n", "k"), [(20, 0), (40, 1), (100, 4), (200, 9), (60, 20)])
def test_never_narrower_than_clopper_pearson_and_nearly_as_narrow_without_events(n, k):
    band = simultaneous_band(n, k)
    for count in range(k + 1):
        low, high = clopper_pearson(count, n)
        assert band.low[count] <= low + 1e-12
        assert band.high[count] >= high - 1e-12
    assert band.high[0] <= 1.16 * clopper_pearson(0, n)[1]
    assert (np.diff(band.high) >= 0).all()
    if k == 0:
        assert band.high[0] == pytest.approx(1 - 0.025 ** (1 / n))


@pytest.mark.parametrize(("n", "k"), [(1000, 339), (1000, 700)])
def test_large_slices_take_less_than_two_seconds_and_stay_valid(n, k):
    simultaneous_band.cache_clear()
    before = time.process_time()
    band = simultaneous_band(n, k)
    assert time.process_time() - before < 2.0
    order = np.sort(np.random.default_rng(k).random((4000, n)), axis=1)
    over = (order[:, : k + 1] > band.high).any(axis=1).mean()
    under = (order[:, :k] < band.low[1:]).any(axis=1).mean()
    assert max(over, under) <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / 4000)
    assert min(over, under) > 0.005  # nor is it much wider than asked


@pytest.mark.parametrize(("n", "k", "level"), [(0, 0, 0.95), (5, 6, 0.95), (5, 2, 1.0), (5, -1, 0.95)])
def test_impossible_bands_are_refused(n, k, level):
    with pytest.raises(DataError, match="No band"):
        simultaneous_band(n, k, level)


@pytest.mark.parametrize(("n_pool", "n_control", "risk", "informative"), [(60, 20, 0.3, 0.0), (2000, 60, 0.2, 1.0)])
def test_interval_covers_although_the_threshold_was_chosen_on_the_same_labels(n_pool, n_control, risk, informative):
    """On pools with as many wrong ones as make choosing most tempting; Clopper-Pearson at the threshold falls short."""
    rng, hits, naive, taken = np.random.default_rng(4), 0, 0, 0
    scores = np.arange(n_pool, dtype="f8")
    pool = (StratumScores.of(scores),)
    for _ in range(600):
        bad = rng.random(n_pool) < 0.3 * (scores / n_pool) ** informative
        rows = rng.choice(n_pool, n_control, replace=False)
        group = Group("md", ("md",), pool, scores[rows], bad[rows])
        (one,) = select_thresholds([group], risk)
        if one.threshold is None:
            continue
        taken += 1
        rest = np.setdiff1d(np.arange(n_pool), rows)
        truth = bad[rest[scores[rest] <= one.threshold]].mean()
        found = miss_rate([group], [one], risk)
        assert found.value is not None
        assert found.low <= found.value <= found.high
        hits += found.low <= truth <= found.high
        low, high = clopper_pearson(one.n_bad, one.n_control)
        naive += low <= truth <= high
    assert taken > 100
    assert hits / taken >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / taken)
    assert hits >= naive


def test_interval_of_an_endless_pool_is_the_share_over_the_accepted_part():
    n, pool = 40, np.linspace(0, 1, 1_000_001)
    scores = np.linspace(0.01, 0.99, n)
    bad = scores > 0.9
    group = Group("md", ("md",), (StratumScores.of(pool),), scores, bad)
    (one,) = select_thresholds([group], 0.05)
    found = miss_rate([group], [one], 0.05)
    band = simultaneous_band(n, 1)
    share = one.n_rest / group.n_rest
    assert found.high == pytest.approx(band.high[one.n_bad] / share, rel=1e-3)
    assert found.value == pytest.approx(one.n_bad / n / share, rel=1e-3)
    assert found.n_accepted == one.n_control == 36


def test_several_groups_share_the_level():
    """Two groups of 40: each has a band of 97.5 %, so that both hold at once with 95 %."""
    scores, pool = np.linspace(0, 1, 40), StratumScores.of(np.linspace(0, 1, 10_040))
    groups = [Group(name, (name,), (pool,), scores, np.zeros(40, bool)) for name in "ab"]
    found = miss_rate(groups, select_thresholds(groups, 0.05), 0.05)
    high = simultaneous_band(40, 1, 0.975).high[0]
    assert found.high == pytest.approx(high * 10_040 / 10_000)
    assert found.n_accepted == 80


def test_all_counts_are_possible_without_limit():
    """The band over all counts is one for the whole distribution: the law of the counts sums to one."""
    n = 6
    exact = sum(comb(n, j) * 0.4**j * 0.6 ** (n - j) for j in range(1, n + 1))
    assert crossing_below(np.array([0.4]), n) == pytest.approx(exact)
