"""The state of a selection: which candidates are open, chosen or rejected, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dubito.data.fingerprints import Fingerprints, fingerprints
from dubito.data.sanity import Verdict
from dubito.data.structures import Array, Structures
from dubito.selection.reasons import DUPLICATE_BATCH, DUPLICATE_LABELLED, DUPLICATE_POOL


@dataclass(frozen=True)
class Rejection:
    """One candidate that was not selected for a cause: index, reason code, number behind it."""

    index: int
    reason: str
    value: float


@dataclass(frozen=True)
class Copy:
    """A candidate that was drawn, but is as good as one drawn before: index, and that of the one that is labelled."""

    index: int
    of: int


class Search:
    """The candidates of a pool, and what has become of each.

    Parameters
    ----------
    candidates : the pool
    labelled : all structures labelled so far
    duplicate_distance_angstrom : two structures nearer than this are the same; 0: only exact copies are

    Attributes
    ----------
    open : (n,) bool, neither chosen nor rejected
    nearest : (n,) Å, rms difference to the nearest labelled or chosen structure
    """

    def __init__(self, candidates: Structures, labelled: Structures, duplicate_distance_angstrom: float) -> None:
        self.candidates, self.labelled = candidates, labelled
        self.duplicate_distance = duplicate_distance_angstrom
        self.ids = candidates.ids
        self.open = np.ones(len(candidates), bool)
        self.chosen: list[int] = []
        self.reasons: list[str] = []
        self.rejected: list[Rejection] = []
        self.prints: Fingerprints = fingerprints(candidates)
        self.nearest = np.full(len(candidates), np.inf)

    def open_by_id(self) -> Array:
        """Return the open candidates in the order of their ids."""
        rows = np.flatnonzero(self.open)
        out: Array = rows[np.argsort(np.array(self.ids, dtype="S32")[rows], kind="stable")]
        return out

    def reject(self, rows: Array, reason: str, values: Array | None = None) -> None:
        """Reject open candidates."""
        for i in np.sort(rows):
            self.open[i] = False
            self.rejected.append(Rejection(int(i), reason, np.nan if values is None else float(values[i])))

    def gate(self, verdict: Verdict) -> None:
        """Reject what is not sane."""
        for i in np.flatnonzero(~verdict.sane):
            self.open[i] = False
            self.rejected.append(Rejection(int(i), verdict.reasons[i], float(verdict.values[i])))

    def drop_copies(self) -> None:
        """Reject candidates that are there twice, byte by byte."""
        # Of two samplers that found the same the first by name keeps it, whatever the order of the pool.
        samplers = self.candidates.text("origin/sampler")
        first: dict[str, int] = {}
        for i in sorted(np.flatnonzero(self.open), key=lambda i: (samplers[i], i)):
            first.setdefault(self.ids[i], int(i))
        twice = [i for i in np.flatnonzero(self.open) if first[self.ids[i]] != i]
        self.reject(np.array(twice, dtype=int), DUPLICATE_POOL, np.zeros(len(self.ids)))

    def drop_known(self) -> None:
        """Reject candidates that are as good as labelled already."""
        self.nearest = self.prints.nearest(fingerprints(self.labelled))
        known = set(self.labelled.ids)
        same = np.array([name in known for name in self.ids], bool)
        self.nearest[same] = 0.0
        self.reject(np.flatnonzero(self.open & (same | self._close(self.nearest))), DUPLICATE_LABELLED, self.nearest)

    def take(self, order: Iterable[int], reason: str, limit: int | None) -> None:
        """Choose candidates in the given order until ``limit`` are chosen, leaving out duplicates."""
        count = 0
        if limit == 0:
            return
        for i in order:
            if not self.open[i]:
                continue
            if self._close(self.nearest[i]):
                self.reject(np.array([i]), DUPLICATE_BATCH, self.nearest)
                continue
            self._choose(i, reason)
            count += 1
            if count == limit:
                return

    def draw(self, drawn: Iterable[int], reason: str) -> list[Copy]:
        """Choose all that were drawn, but for near-copies of those drawn before them; return these.

        A copy is rejected as a duplicate, but no other candidate takes its place: with one the draw would favour
        whatever has few copies. Nothing must be chosen before.
        """
        copies: list[Copy] = []
        for i in drawn:
            if not self._close(self.nearest[i]):
                self._choose(i, reason)
                continue
            self.reject(np.array([i]), DUPLICATE_BATCH, self.nearest)
            # Of what was labelled before nothing is this near any more, so it is one of those chosen here.
            distances = self.prints.to_one(self.prints, i)[self.chosen]
            copies.append(Copy(int(i), self.chosen[int(np.argmin(distances))]))
        return copies

    def _choose(self, i: int, reason: str) -> None:
        self.open[i] = False
        self.chosen.append(int(i))
        self.reasons.append(reason)
        np.minimum(self.nearest, self.prints.to_one(self.prints, i), out=self.nearest)

    def _close(self, distance: Array) -> Array:
        threshold = self.duplicate_distance
        out: Array = np.asarray(distance <= threshold if threshold > 0 else np.zeros(np.shape(distance), bool))
        return out
