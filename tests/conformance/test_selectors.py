"""All selectors keep the selectors' contract, and each does what its name says."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from dubito.config.selection import KNOWN_SELECTORS
from dubito.core.errors import ConfigError
from dubito.selection.base import Selector
from dubito.selection.max_det import NOISE
from dubito.selection.registry import SELECTORS, make_selector
from dubito.selection.vectors import vectors
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
        pool = replace(
            toy_pool(40, n_known=0), features=features, scores=np.where(cluster == 0, 9.0, 8.0) + rng.uniform(size=40)
        )
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


class TestThresholdWindow(SelectorTests):
    def make(self) -> Selector:
        return make_selector("threshold_window")

    def test_is_random_within_the_window(self) -> None:
        pool = toy_pool(30)
        assert self.ranked(pool) == [pool.ids[i] for i in make_selector("random").order(pool, np.random.default_rng(0))]


class TestClusteredTop(SelectorTests):
    def make(self) -> Selector:
        return make_selector("clustered_top")

    def test_takes_the_most_doubtful_of_each_cluster(self) -> None:
        # Four clusters in features; doubt is larger in some, so that top-k would take one cluster alone.
        rng = np.random.default_rng(0)
        cluster = np.tile(np.arange(4), 20)
        features = 10.0 * np.eye(4)[cluster] + rng.normal(scale=0.1, size=(80, 4))
        scores = 5.0 * (np.arange(80) < 40) + 0.5 * (cluster == 2) + rng.uniform(size=80) / 4
        pool = replace(toy_pool(80), features=features, known_features=np.zeros((0, 4)), scores=scores, n_select=4)
        first = list(self.make().order(pool, rng))[:4]
        assert {int(cluster[i]) for i in first} == {0, 1, 2, 3}
        for i in first:
            rivals = np.flatnonzero(cluster == cluster[i])
            assert i == rivals[np.argmax(scores[rivals])]
        assert {int(cluster[i]) for i in pool.by_score()[:4]} == {2}

    def test_the_second_of_each_cluster_follows(self) -> None:
        features = np.repeat([[0.0], [9.0]], 4, axis=0) + 0.01 * np.arange(8)[:, None]
        scores = np.array([8.0, 7, 6, 5, 4, 3, 2, 1])
        pool = replace(toy_pool(8), features=features, known_features=np.zeros((0, 1)), scores=scores, n_select=2)
        # The doubtful half is the first cluster alone: two clusters of it.
        assert list(self.make().order(pool, np.random.default_rng(0)))[4:] == [4, 5, 6, 7]


class TestMaxDet(SelectorTests):
    def make(self) -> Selector:
        return make_selector("max_det")

    def test_each_step_takes_the_largest_posterior_variance(self) -> None:
        pool = toy_pool(40, n_features=6, n_known=4)
        assert pool.features is not None
        assert pool.known_features is not None
        scale = np.sqrt(np.mean(np.sum(pool.features**2, axis=1)))
        points, known = pool.features / scale, list(pool.known_features / scale)
        left = set(range(40))
        for chosen in list(self.make().order(pool, np.random.default_rng(0)))[:12]:
            # From the definition of a Gaussian process with a linear kernel, in the space of structures.
            seen = np.array(known)
            inverse = np.linalg.inv(seen @ seen.T + NOISE * np.eye(len(seen)))
            variance = [p @ p - (seen @ p) @ inverse @ (seen @ p) for p in points]
            assert chosen == max(left, key=lambda i: variance[i])
            left.remove(chosen)
            known.append(points[chosen])

    def test_the_batch_has_nearly_the_largest_determinant(self) -> None:
        pool = toy_pool(9, n_features=3, n_known=0)
        assert pool.features is not None
        scale = np.sqrt(np.mean(np.sum(pool.features**2, axis=1)))
        kernel = (pool.features @ pool.features.T) / scale**2 + NOISE * np.eye(9)
        chosen = list(self.make().order(pool, np.random.default_rng(0)))[:3]
        best = max(np.linalg.det(kernel[np.ix_(rows, rows)]) for rows in combinations(range(9), 3))
        # Greedy is no worse than 1 / 3!^2 of the best (Civril and Magdon-Ismail 2009), and mostly close to it.
        assert np.linalg.det(kernel[np.ix_(chosen, chosen)]) > 0.5 * best

    def test_shuns_what_is_labelled(self) -> None:
        pool = toy_pool(20, n_features=4, n_known=0)
        assert pool.features is not None
        known = np.repeat(pool.features[:10], 30, axis=0)
        ranked = list(self.make().order(replace(pool, known_features=known), np.random.default_rng(0)))
        alone = list(self.make().order(pool, np.random.default_rng(0)))
        assert ranked[:4] != alone[:4]


class TestLargestClusterMaximumDistance(SelectorTests):
    def make(self) -> Selector:
        return make_selector("lcmd")

    def test_each_step_follows_the_definition(self) -> None:
        pool = toy_pool(40, n_features=3, n_known=4)
        assert pool.features is not None
        assert pool.known_features is not None
        points, centers = pool.features, list(pool.known_features)
        left = set(range(40))
        for chosen in list(self.make().order(pool, np.random.default_rng(0)))[:20]:
            squares = np.array([[np.sum((p - c) ** 2) for c in centers] for p in points])
            nearest, sizes = squares.argmin(axis=1), np.zeros(len(centers))
            for i in left:
                sizes[nearest[i]] += squares[i].min()
            inside = [i for i in left if nearest[i] == sizes.argmax()]
            assert chosen == max(inside, key=lambda i: squares[i].min())
            left.remove(chosen)
            centers.append(points[chosen])

    def test_a_crowd_counts_more_than_one_that_is_far(self) -> None:
        # Forty at distance 1 of one centre, a lone one at distance 3 of another: 40 against 9.
        rng = np.random.default_rng(0)
        angle = rng.uniform(0, 2 * np.pi, 40)
        features = np.concatenate([np.stack([np.cos(angle), np.sin(angle)], axis=1), [[103.0, 0.0]]])
        known = np.array([[0.0, 0.0], [100.0, 0.0]])
        pool = replace(toy_pool(41), features=features, known_features=known, nearest=np.ones(41), scores=np.ones(41))
        assert next(self.make().order(pool, rng)) != 40
        far = make_selector("farthest_point")
        assert next(far.order(replace(pool, nearest=np.append(np.ones(40), 3.0), scores=features[:, 0]), rng)) == 40


def test_fingerprints_become_points_that_keep_formulas_apart() -> None:
    # Ammonia and water alternate: nothing of one tells anything of the other.
    pool = toy_pool(40, n_known=6)
    points, known = vectors(pool)
    rows = pool.by_id()
    group = pool.fingerprints.group[rows]
    across = points[group == 0] @ points[group == 1].T
    within = points[group == 0] @ points[group == 0].T
    assert np.abs(across).max() < 1e-6
    np.testing.assert_allclose(np.diag(within), 1.0, atol=1e-6)
    assert known.shape == (6, points.shape[1])
    # With all as landmarks the kernel itself comes back.
    prints = pool.fingerprints.take(rows[group == 0])
    distances = np.stack([prints.to_one(prints, i) for i in range(len(prints))])
    order, expected = np.argsort(distances, axis=None), within.ravel()
    assert (np.diff(expected[order]) < 1e-6).all()


def test_registry_and_configuration_know_the_same() -> None:
    assert set(KNOWN_SELECTORS) == set(SELECTORS.own)
    for name in SELECTORS.known():
        assert make_selector(name).name == name


def test_unknown_selector_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'top_uncertain' is not a known selector\. Did you mean 'top_uncertainty'"):
        make_selector("top_uncertain")
