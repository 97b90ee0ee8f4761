"""Always the candidate farthest from everything known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from dubito.selection.base import Pool


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
        doubtful = np.array(pool.doubtful_half(), dtype=int)
        nearest = pool.nearest.astype("f8").copy()
        left = np.ones(len(doubtful), bool)
        for _ in range(len(doubtful)):
            # `doubtful` is in the order of doubt, so the first of equals is the most doubtful.
            best = int(np.argmax(np.where(left, nearest[doubtful], -np.inf)))
            left[best] = False
            yield int(doubtful[best])
            np.minimum(nearest, pool.distances(int(doubtful[best])), out=nearest)
        yield from ranked[len(doubtful) :]
