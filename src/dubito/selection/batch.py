"""From a pool to a batch: gates, duplicate guard, control slice, selection, budget.

The control slice is drawn at random from the gated pool *before* anything is selected, so that it
stands for the pool: errors measured on it are those of the structures the campaign visits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dubito.config.sanity import SanityConfig
from dubito.config.selection import SelectionConfig
from dubito.core.random import generator
from dubito.data.fingerprints import Fingerprints, fingerprints
from dubito.data.sanity import NOT_FINITE, SanityCheck
from dubito.data.structures import Array, Structures
from dubito.selection.base import Pool
from dubito.selection.registry import make_selector

# Reason codes of rejected candidates, besides those of `data.sanity`.
DUPLICATE_LABELLED = "duplicate_labelled"
DUPLICATE_BATCH = "duplicate_in_batch"
DUPLICATE_POOL = "duplicate_in_pool"
BELOW_MIN_SCORE = "below_min_score"
SKIPPED_TOP = "skipped_top"
OVER_BUDGET = "over_budget"

INITIAL = "initial"
CONTROL = "control"


@dataclass(frozen=True)
class Rejection:
    """One candidate that was not selected for a cause: index, reason code, number behind it."""

    index: int
    reason: str
    value: float


@dataclass(frozen=True)
class Batch:
    """What is to be labelled: indices of candidates with the reason for each, and the rejected."""

    chosen: list[int]
    reasons: list[str]
    rejected: list[Rejection]

    def counts(self) -> dict[str, int]:
        """Return how many candidates were rejected for each reason."""
        return dict(sorted(Counter(r.reason for r in self.rejected).items()))


def choose_batch(
    candidates: Structures,
    *,
    labelled: Structures,
    config: SelectionConfig,
    sanity: SanityConfig,
    seed: int,
    iteration: int,
    scores: Array | None = None,
    energy: Array | None = None,
    forces: Array | None = None,
    features: Array | None = None,
    remaining: int | None = None,
) -> Batch:
    """Choose what to label.

    Parameters
    ----------
    candidates : the pool, ``n`` structures
    labelled : all structures labelled so far
    scores : (n,) higher is more doubtful; None (iteration 0): everything that passes the gates and is
        no duplicate is taken, with the reason "initial"
    energy, forces : (n,) eV and (N, 3) eV/Å, predicted; None: not gated
    features : (n, d) to measure diversity with; None: fingerprints
    remaining : labels the budget still allows; None: no limit

    Notes
    -----
    The same arguments give the same batch, whatever the order of the candidates. With ``features``,
    diversity is measured against the control slice and the batch, not against labelled structures.
    """
    search = _Search(candidates, labelled, config)
    search.gate(SanityCheck(sanity, labelled), energy, forces, scores)
    search.drop_known()
    rng = generator(seed, "selection", iteration)
    if scores is None:
        search.take(rng.permutation(search.open_by_id()).tolist(), INITIAL, remaining)
        search.reject(search.open_by_id(), OVER_BUDGET)
        # In the order they came: neighbours of a file are often neighbours in space.
        search.chosen.sort()
        return search.batch()
    n_control, n_select = _quota(config, remaining)
    search.take(generator(seed, "control", iteration).permutation(search.open_by_id()).tolist(), CONTROL, n_control)
    search.narrow(scores)
    selector = make_selector(config.selector)
    rows = search.open_by_id()
    pool = Pool(
        ids=[search.ids[i] for i in rows],
        scores=scores[rows],
        fingerprints=search.prints.take(rows),
        nearest=search.nearest[rows] if features is None else _from_features(features, rows, search.chosen),
        features=None if features is None else features[rows],
    )
    search.take((int(rows[i]) for i in selector.order(pool, rng)), selector.reason, n_select)
    return search.batch()


def _quota(config: SelectionConfig, remaining: int | None) -> tuple[int, int]:
    """Return how many structures the control slice and the selection may have."""
    n_select = config.n_select
    n_control = max(1, round(config.control_fraction * n_select)) if config.control_fraction > 0 else 0
    if remaining is not None and n_select + n_control > remaining:
        remaining = max(0, remaining)
        share = round(remaining * n_control / (n_select + n_control))
        n_control = min(remaining, max(1, share)) if n_control else 0
        n_select = remaining - n_control
    return n_control, n_select


def _from_features(features: Array, rows: Array, chosen: list[int]) -> Array:
    """Return the distance of candidates to the nearest chosen one in the space of features."""
    if not chosen:
        return np.full(len(rows), np.inf)
    out: Array = np.min([np.linalg.norm(features[rows] - features[i], axis=1) for i in chosen], axis=0)
    return out


class _Search:
    """The state of a selection: which candidates are open, chosen or rejected, and why."""

    def __init__(self, candidates: Structures, labelled: Structures, config: SelectionConfig) -> None:
        self.candidates, self.labelled, self.config = candidates, labelled, config
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

    def gate(self, check: SanityCheck, energy: Array | None, forces: Array | None, scores: Array | None) -> None:
        """Reject what is not sane, has no finite score, or is the same candidate twice."""
        verdict = check.check(self.candidates, energy=energy, forces=forces)
        for i in np.flatnonzero(~verdict.sane):
            self.open[i] = False
            self.rejected.append(Rejection(int(i), verdict.reasons[i], float(verdict.values[i])))
        if scores is not None:
            self.reject(np.flatnonzero(self.open & ~np.isfinite(scores)), NOT_FINITE)
        first: dict[str, int] = {}
        twice = [i for i in np.flatnonzero(self.open) if first.setdefault(self.ids[i], int(i)) != i]
        self.reject(np.array(twice, dtype=int), DUPLICATE_POOL, np.zeros(len(self.ids)))

    def drop_known(self) -> None:
        """Reject candidates that are as good as labelled already."""
        self.nearest = self.prints.nearest(fingerprints(self.labelled))
        known = set(self.labelled.ids)
        same = np.array([name in known for name in self.ids], bool)
        self.nearest[same] = 0.0
        self.reject(np.flatnonzero(self.open & (same | self._close(self.nearest))), DUPLICATE_LABELLED, self.nearest)

    def narrow(self, scores: Array) -> None:
        """Reject the most doubtful share, often unphysical, and what is not doubtful enough."""
        ranked = sorted(np.flatnonzero(self.open), key=lambda i: (-scores[i], self.ids[i]))
        # 0.29 * 100 is 28.999…; rounding down must not turn it into 28.
        top = int(self.config.skip_top_fraction * len(ranked) + 1e-9)
        self.reject(np.array(ranked[:top], dtype=int), SKIPPED_TOP, scores)
        self.reject(np.flatnonzero(self.open & (scores < self.config.min_score)), BELOW_MIN_SCORE, scores)

    def take(self, order: Iterable[int], reason: str, limit: int | None) -> None:
        """Choose candidates in the given order until ``limit`` are chosen, leaving out duplicates."""
        count = 0
        for i in order:
            if count == limit:
                return
            if not self.open[i]:
                continue
            if self._close(self.nearest[i]):
                self.reject(np.array([i]), DUPLICATE_BATCH, self.nearest)
                continue
            self.open[i] = False
            self.chosen.append(int(i))
            self.reasons.append(reason)
            np.minimum(self.nearest, self.prints.to_one(self.prints, i), out=self.nearest)
            count += 1

    def _close(self, distance: Array) -> Array:
        threshold = self.config.duplicate_distance_angstrom
        out: Array = np.asarray(distance <= threshold if threshold > 0 else np.zeros(np.shape(distance), bool))
        return out

    def batch(self) -> Batch:
        """Return the result."""
        return Batch(self.chosen, self.reasons, self.rejected)
