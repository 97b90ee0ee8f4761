"""All selectors keep the selectors' contract, and each does what its name says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dubito.config.selection import KNOWN_SELECTORS
from dubito.core.errors import ConfigError
from dubito.selection.base import Selector
from dubito.selection.registry import SELECTORS, make_selector
from dubito.testing.selector_suite import SelectorTests, toy_pool


class TestTopUncertainty(SelectorTests):
    def make(self) -> Selector:
        return make_selector("top_uncertainty")

    def test_most_doubtful_first(self) -> None:
        pool = toy_pool(30)
        order = list(self.make().order(pool, np.random.default_rng(0)))
        assert (np.diff(pool.scores[order]) <= 0).all()

    def test_ties_are_broken_by_id(self) -> None:
        pool = toy_pool(10, tied=True)
        assert self.ranked(pool) == sorted(pool.ids)


class TestRandom(SelectorTests):
    def make(self) -> Selector:
        return make_selector("random")

    def test_seed_changes_the_order(self) -> None:
        assert self.ranked(toy_pool(30), seed=0) != self.ranked(toy_pool(30), seed=1)

    def test_every_candidate_is_as_likely_first(self) -> None:
        pool = toy_pool(4)
        firsts = [next(self.make().order(pool, np.random.default_rng(s))) for s in range(2000)]
        # Binomial: 500 expected each, standard deviation 19.4.
        assert np.all(np.abs(np.bincount(firsts, minlength=4) - 500) < 5 * 19.4)


class TestFarthestPoint(SelectorTests):
    def make(self) -> Selector:
        return make_selector("farthest_point")

    def test_chooses_from_the_doubtful_half_first(self) -> None:
        pool = toy_pool(31)
        order = list(self.make().order(pool, np.random.default_rng(0)))
        assert pool.scores[order[:16]].min() >= np.median(pool.scores)

    def test_covers_clusters_that_top_uncertainty_misses(self) -> None:
        # Four clusters of features; the ten highest scores all lie in the first.
        rng = np.random.default_rng(0)
        cluster = np.repeat(np.arange(4), 10)
        features = 10.0 * cluster[:, None] + rng.normal(scale=0.1, size=(40, 2))
        pool = replace(toy_pool(40), features=features, scores=np.where(cluster == 0, 9.0, 8.0) + rng.uniform(size=40))
        doubtful = set(pool.by_score()[:20])
        reachable = {int(cluster[i]) for i in doubtful}
        first = list(self.make().order(pool, rng))[: len(reachable)]
        assert {int(cluster[i]) for i in first} == reachable
        assert {int(cluster[i]) for i in pool.by_score()[: len(reachable)]} == {0}

    def test_starts_far_from_what_is_labelled(self) -> None:
        nearest = np.linspace(0.1, 1.0, 20)
        pool = replace(toy_pool(20, tied=True), nearest=nearest)
        doubtful = pool.by_score()[:10]
        first = next(self.make().order(pool, np.random.default_rng(0)))
        assert first == max(doubtful, key=lambda i: nearest[i])


def test_registry_and_configuration_know_the_same() -> None:
    assert set(KNOWN_SELECTORS) == set(SELECTORS.own)
    for name in SELECTORS.known():
        assert make_selector(name).name == name


def test_unknown_selector_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'top_uncertain' is not a known selector\. Did you mean 'top_uncertainty'"):
        make_selector("top_uncertain")
