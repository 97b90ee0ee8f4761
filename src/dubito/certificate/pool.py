"""Scores of a whole pool, known as counts below any score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.core.errors import DataError

Array = NDArray[Any]


@dataclass(frozen=True)
class StratumScores:
    """Scores of one stratum of a pool.

    Attributes
    ----------
    n : structures in the stratum
    quantiles : ascending scores, (q,): all of them (q = n), or q equally spaced order statistics, the first and the
        last included
    """

    n: int
    quantiles: Array

    @classmethod
    def of(cls, scores: Sequence[float] | Array) -> StratumScores:
        """Return the stratum of which all scores are known."""
        return cls(len(scores), np.sort(np.asarray(scores, "f8")))

    def at_least(self, thresholds: Array) -> Array:
        """Return how many structures have a score of at most each threshold, (t,), counted conservatively.

        Of order statistics between those kept nothing is known: they count as above. Whichever way their places were
        rounded, the true number is no smaller.
        """
        passed = np.searchsorted(self.quantiles, thresholds, side="right")
        if len(self.quantiles) == self.n:
            return np.asarray(passed)
        step = (self.n - 1) / (len(self.quantiles) - 1)
        return np.where(passed > 0, np.floor((passed - 1) * step + 1e-9).astype(int) + 1, 0)

    def at_most(self, thresholds: Array) -> Array:
        """Return how many structures can have a score of at most each threshold, (t,): never too few."""
        passed = np.searchsorted(self.quantiles, thresholds, side="right")
        if len(self.quantiles) == self.n:
            return np.asarray(passed)
        step = (self.n - 1) / (len(self.quantiles) - 1)
        return np.where(passed < len(self.quantiles), np.ceil(passed * step - 1e-9).astype(int), self.n)


def read_pool_scores(said: Mapping[str, Mapping[str, Any]]) -> dict[str, StratumScores]:
    """Return the strata of a manifest's ``pool_scores``.

    Raises
    ------
    DataError
        When counts and quantiles don't belong together.
    """
    pool = {}
    for name, entry in said.items():
        n, quantiles = int(entry["n"]), np.asarray(entry["quantiles"], "f8")
        whole = len(quantiles) == n or 2 <= len(quantiles) < n
        if n < 1 or not whole or np.isnan(quantiles).any() or (np.diff(quantiles) < 0).any():
            raise DataError(
                f"The pool scores of '{name}' in the manifest are not in order: {n} structures and {len(quantiles)} "
                "ascending scores were found, expected as many scores as structures or at least 2 fewer-spaced ones. "
                "Delete the manifest (selection.json) and start the campaign again."
            )
        pool[name] = StratumScores(n, quantiles)
    return pool
