"""The selectors that come with dubito."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from dubito.selection.base import Pool


class TopUncertainty:
    """The most doubtful first."""

    name: ClassVar[str] = "top_uncertainty"
    reason: ClassVar[str] = "uncertainty"

    def order(self, pool: Pool, rng: np.random.Generator) -> Iterator[int]:
        """See :class:`dubito.selection.base.Selector`."""
        return iter(pool.by_score())


class RandomSelector:
    """Any, with equal chance: the control that the others have to beat."""

    name: ClassVar[str] = "random"
    reason: ClassVar[str] = "random"

    def order(self, pool: Pool, rng: np.random.Generator) -> Iterator[int]:
        """See :class:`dubito.selection.base.Selector`."""
        # From the ids in order, so that the order of the pool does not matter.
        return iter(rng.permutation(np.argsort(pool.ids)).tolist() if len(pool) else [])


class FarthestPoint:
    """Among the doubtful half, always the one farthest from all labelled and chosen ones.

    Farthest-first traversal (Gonzalez 1985, https://doi.org/10.1016/0304-3975(85)90224-5). The less
    doubtful half follows in the order of doubt, should the batch not be full.
    """

    name: ClassVar[str] = "farthest_point"
    reason: ClassVar[str] = "diverse"

    def order(self, pool: Pool, rng: np.random.Generator) -> Iterator[int]:
        """See :class:`dubito.selection.base.Selector`."""
        ranked = pool.by_score()
        doubtful = np.array(ranked[: -(-len(ranked) // 2)], dtype=int)
        nearest = pool.nearest.astype("f8").copy()
        left = np.ones(len(doubtful), bool)
        for _ in range(len(doubtful)):
            # `doubtful` is in the order of doubt, so the first of equals is the most doubtful.
            best = int(np.argmax(np.where(left, nearest[doubtful], -np.inf)))
            left[best] = False
            yield int(doubtful[best])
            np.minimum(nearest, pool.distances(int(doubtful[best])), out=nearest)
        yield from ranked[len(doubtful) :]
