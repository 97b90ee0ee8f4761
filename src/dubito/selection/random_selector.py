"""Any candidate with equal chance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from dubito.selection.base import Pool


class RandomSelector:
    """Any, with equal chance: the control that the others have to beat."""

    name: ClassVar[str] = "random"
    reason: ClassVar[str] = "random"

    def order(self, pool: Pool, rng: np.random.Generator) -> Iterator[int]:
        """See :class:`dubito.selection.base.Selector`."""
        # From the ids in order, so that the order of the pool does not matter.
        return iter(rng.permutation(pool.by_id()).tolist() if len(pool) else [])
