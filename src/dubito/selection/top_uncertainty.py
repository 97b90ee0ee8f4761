"""The most doubtful first: query by committee (Seung et al. 1992, https://doi.org/10.1145/130385.130417)."""

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
