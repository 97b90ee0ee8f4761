"""What every selector takes and gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from dubito.data.fingerprints import Fingerprints
from dubito.data.structures import Array


@dataclass(frozen=True)
class Pool:
    """Candidates that a selector may choose from.

    Attributes
    ----------
    ids : (n,) content ids
    scores : (n,) higher is more doubtful
    fingerprints : of the candidates; of none where there are features
    nearest : (n,) distance to the nearest structure that is labelled or already chosen; infinite
        where there is none. In Å with fingerprints, in the features' unit with features
    features : (n, d) per-structure features to measure distances with, or None: fingerprints
    known_features : (m, d) features of what is labelled or already chosen; None with fingerprints
    known_fingerprints : the same with fingerprints; None: nothing is known, or there are features
    n_select : how many the batch still wants, for selectors that must know
    """

    ids: list[str]
    scores: Array
    fingerprints: Fingerprints
    nearest: Array
    features: Array | None = None
    known_features: Array | None = None
    known_fingerprints: Fingerprints | None = None
    n_select: int = 16

    def __len__(self) -> int:
        return len(self.ids)

    def distances(self, index: int) -> Array:
        """Return the distance of every candidate to candidate ``index``, (n,)."""
        if self.features is None:
            return self.fingerprints.to_one(self.fingerprints, index)
        out: Array = np.linalg.norm(self.features - self.features[index], axis=1)
        return out

    def by_id(self) -> Array:
        """Return the candidates in the order of their ids, which does not depend on how the pool came about."""
        out: Array = np.argsort(np.array(self.ids, dtype="S64"), kind="stable")
        return out

    def by_score(self) -> list[int]:
        """Return the candidates from the most doubtful to the least; ties by id."""
        return sorted(range(len(self)), key=lambda i: (-self.scores[i], self.ids[i]))

    def doubtful_half(self) -> list[int]:
        """Return the more doubtful half, the larger one where the number is odd, most doubtful first."""
        ranked = self.by_score()
        return ranked[: -(-len(ranked) // 2)]


class Selector(Protocol):
    """Orders candidates by preference; the batch takes them one by one, leaving out duplicates."""

    name: ClassVar[str]
    reason: ClassVar[str]

    def order(self, pool: Pool, rng: np.random.Generator) -> Iterator[int]:
        """Yield each candidate once, best first. Equal pools and generators give equal orders."""
        ...
