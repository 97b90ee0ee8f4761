"""Conformance suite of selectors: subclass, say how to make one, run with pytest."""

from __future__ import annotations

import numpy as np
import pytest

from dubito.core.random import generator
from dubito.data.fingerprints import fingerprints
from dubito.data.structures import Structures
from dubito.selection.base import Pool, Selector
from dubito.testing.structures import rattled


def toy_pool(n: int, *, seed: int = 0, order: list[int] | None = None, tied: bool = False) -> Pool:
    """Return a pool of ``n`` displaced molecules with random scores, in another ``order`` if given."""
    structures = rattled(n, seed=seed) if n else Structures.empty()
    scores = np.ones(n) if tied else generator(seed, "scores").uniform(size=n)
    rows = np.arange(n) if order is None else np.array(order)
    structures = structures[rows]
    return Pool(structures.ids, scores[rows], fingerprints(structures), np.full(n, np.inf))


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

    @pytest.mark.parametrize("n", [0, 1, 2, 7, 30])
    def test_yields_every_candidate_once(self, n: int) -> None:
        pool = toy_pool(n)
        assert sorted(self.ranked(pool)) == sorted(pool.ids)

    def test_is_deterministic(self) -> None:
        assert self.ranked(toy_pool(25)) == self.ranked(toy_pool(25))

    @pytest.mark.parametrize("tied", [False, True])
    def test_the_order_of_the_pool_does_not_matter(self, tied: bool) -> None:
        order = generator(5, "shuffled").permutation(25).tolist()
        assert self.ranked(toy_pool(25, tied=tied)) == self.ranked(toy_pool(25, order=order, tied=tied))

    def test_leaves_the_pool_alone(self) -> None:
        pool = toy_pool(12)
        before = pool.scores.copy(), pool.nearest.copy()
        self.ranked(pool)
        np.testing.assert_array_equal(pool.scores, before[0])
        np.testing.assert_array_equal(pool.nearest, before[1])
