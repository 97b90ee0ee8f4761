"""Conformance suite of selectors: subclass, say how to make one, run with pytest.

Every test runs twice: with fingerprints, and with features of the network.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from dubito.core.random import generator
from dubito.data.fingerprints import fingerprints
from dubito.data.structures import Structures
from dubito.selection.base import Pool, Selector
from dubito.testing.structures import rattled


def toy_pool(
    n: int,
    *,
    seed: int = 0,
    order: list[int] | None = None,
    tied: bool = False,
    n_features: int | None = None,
    n_known: int = 3,
) -> Pool:
    """Return a pool of ``n`` displaced molecules with random scores, in another ``order`` if given.

    Parameters
    ----------
    tied : all scores are equal
    n_features : so many random features for each molecule; None: fingerprints
    n_known : so many structures are labelled already
    """
    structures = rattled(n, seed=seed) if n else Structures.empty()
    scores = np.ones(n) if tied else generator(seed, "scores").uniform(size=n)
    rows = np.arange(n) if order is None else np.array(order)
    structures = structures[rows]
    known = fingerprints(rattled(n_known, seed=seed + 1) if n_known else Structures.empty())
    prints = fingerprints(structures)
    pool = Pool(structures.ids, scores[rows], prints, prints.nearest(known), known_fingerprints=known, n_select=5)
    if n_features is None:
        return pool
    features = generator(seed, "features").normal(size=(n, n_features))[rows]
    around = generator(seed, "known features").normal(size=(n_known, n_features))
    away = np.linalg.norm(features[:, None] - around, axis=2)
    nearest = away.min(axis=1) if n_known else np.full(n, np.inf)
    return replace(pool, features=features, known_features=around, nearest=nearest, known_fingerprints=None)


BOTH = pytest.mark.parametrize("n_features", [None, 8])


class SelectorTests:
    """What every selector must do."""

    def make(self) -> Selector:
        """Return the selector under test."""
        raise NotImplementedError("say how to make the selector")

    def ranked(self, pool: Pool, seed: int = 0) -> list[str]:
        """Return the ids in the order the selector prefers them."""
        return [pool.ids[i] for i in self.make().order(pool, np.random.default_rng(seed))]

    def test_names_itself(self) -> None:
        selector = self.make()
        assert selector.name
        assert 0 < len(selector.reason.encode("ascii")) <= 32

    @BOTH
    @pytest.mark.parametrize("n", [0, 1, 2, 7, 30])
    @pytest.mark.parametrize("n_known", [0, 3])
    def test_yields_every_candidate_once(self, n: int, n_known: int, n_features: int | None) -> None:
        pool = toy_pool(n, n_features=n_features, n_known=n_known)
        assert sorted(self.ranked(pool)) == sorted(pool.ids)

    @BOTH
    def test_is_deterministic(self, n_features: int | None) -> None:
        assert self.ranked(toy_pool(25, n_features=n_features)) == self.ranked(toy_pool(25, n_features=n_features))

    @BOTH
    @pytest.mark.parametrize("tied", [False, True])
    def test_the_order_of_the_pool_does_not_matter(self, tied: bool, n_features: int | None) -> None:
        order = generator(5, "shuffled").permutation(25).tolist()
        first = toy_pool(25, tied=tied, n_features=n_features)
        assert self.ranked(first) == self.ranked(toy_pool(25, order=order, tied=tied, n_features=n_features))

    @BOTH
    def test_leaves_the_pool_alone(self, n_features: int | None) -> None:
        pool = toy_pool(12, n_features=n_features)
        arrays = [a for a in (pool.scores, pool.nearest, pool.features, pool.known_features) if a is not None]
        before = [array.copy() for array in arrays]
        self.ranked(pool)
        for array, old in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(array, old)

    @BOTH
    def test_copies_of_one_structure_do_no_harm(self, n_features: int | None) -> None:
        pool = toy_pool(9, n_features=n_features)
        rows = np.zeros(9, int)
        features = None if pool.features is None else pool.features[rows]
        same = replace(pool, fingerprints=pool.fingerprints.take(rows), features=features)
        assert sorted(self.ranked(same)) == sorted(pool.ids)

    def test_features_of_a_constant_do_no_harm(self) -> None:
        pool = replace(toy_pool(9, n_features=3), features=np.zeros((9, 3)), known_features=np.zeros((2, 3)))
        assert sorted(self.ranked(pool)) == sorted(pool.ids)

    def test_gives_the_first_hundred_of_many_without_looking_at_all_pairs(self) -> None:
        n = 4000
        rng = generator(0, "many")
        pool = toy_pool(1)
        many = replace(
            pool,
            ids=[f"{i:032x}" for i in rng.permutation(n)],
            scores=rng.uniform(size=n),
            fingerprints=pool.fingerprints.take(np.zeros(n, int)),
            nearest=np.full(n, 1.0),
            features=rng.normal(size=(n, 16)),
            known_features=rng.normal(size=(50, 16)),
            known_fingerprints=None,
            n_select=100,
        )
        first = list(islice(self.make().order(many, np.random.default_rng(0)), 100))
        assert len(set(first)) == 100
