"""The largest threshold whose expected share of wrong structures among the accepted ones is bounded.

Conformal selection: Jin and Candes, JMLR 24(244), 2023, arXiv:2210.01408 (deterministic conformal p-values and the
step-up rule of Benjamini and Hochberg, https://doi.org/10.1111/j.2517-6161.1995.tb02031.x).

The guarantee. The pool is finite; ``n`` control structures are drawn from it uniformly and without replacement; the
``m`` others are the rest. A structure is accepted when its score is at most ``lambda``, the largest score of the pool
with ``(1 + bad control at or below) / (n + 1) <= risk * (rest at or below) / m``. Then the expectation, over the draw
of the control slice, of the share of bad structures among the accepted ones of the rest (0 if none is) is at most
``risk``. Nothing is assumed of scores or errors: frames of one trajectory may be as alike as they want, ties in the
scores count against acceptance. Proof: move one bad accepted structure of the rest into the control slice; neither
lambda nor the number accepted changes, and among the n + 1 that it could have been exchanged with,
``1 + bad control at or below`` are bad and accepted. Lower bounds on the number accepted, such as from quantiles of the
pool, keep every step. The control structures themselves are not part of the share: their errors are known.

With groups (Mondrian), a group's ratio must also be at most ``risk`` times the share accepted of the whole rest. The
same exchange within a group then bounds the expectation in each group and, summed over groups, in the whole rest (Wang
and Ramdas, https://doi.org/10.1111/rssb.12489: ``(n + 1) / (1 + bad)`` is an e-value).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dubito.certificate.pool import Array, StratumScores
from dubito.core.errors import DataError

_ROUNDING = 1e-12


@dataclass(frozen=True)
class Group:
    """Strata that share a threshold: their pool (control included) and their control slice.

    Attributes
    ----------
    name : what the report calls it
    members : names of the strata
    pool : one entry for each member
    scores : of the control structures, (n,), +inf where there is none
    bad : whether their error exceeds the tolerance or is unknown, (n,)
    """

    name: str
    members: tuple[str, ...]
    pool: tuple[StratumScores, ...]
    scores: Array
    bad: Array

    @property
    def n_control(self) -> int:
        """Control structures, failed ones included."""
        return len(self.scores)

    @property
    def n_pool(self) -> int:
        """Structures of the pool, control included."""
        return sum(part.n for part in self.pool)

    @property
    def n_rest(self) -> int:
        """Structures of the pool that the statement is about: all but the control slice."""
        return self.n_pool - self.n_control


@dataclass(frozen=True)
class Accepted:
    """What is accepted of a group.

    Attributes
    ----------
    threshold : largest accepted score; None: nothing is accepted
    n_rest : accepted of the rest of the pool, counted conservatively
    n_rest_most : the same, at most
    n_control, n_bad : control structures at or below the threshold, and bad ones among them
    ratio : ``(1 + n_bad) / (n + 1)``; where nothing is accepted, that of accepting everything
    """

    threshold: float | None
    n_rest: int
    n_rest_most: int
    n_control: int
    n_bad: int
    ratio: float


class _Table:
    """Counts of one group at every score that can be its threshold, ascending."""

    def __init__(self, group: Group) -> None:
        if group.n_rest < 0:
            raise DataError(
                f"The control slice of '{group.name}' has {group.n_control} structures, its pool only {group.n_pool}: "
                "manifest and pool don't belong together. Delete the manifest (selection.json) and start again."
            )
        scores = np.unique(np.concatenate([part.quantiles for part in group.pool] or [np.zeros(0)]))
        self.group, self.thresholds = group, scores[np.isfinite(scores)]
        self.n_control = np.searchsorted(np.sort(group.scores), self.thresholds, side="right")
        self.n_bad = np.searchsorted(np.sort(group.scores[group.bad]), self.thresholds, side="right")
        nothing = np.zeros(len(self.thresholds), int)
        low = sum((part.at_least(self.thresholds) for part in group.pool), nothing)
        high = sum((part.at_most(self.thresholds) for part in group.pool), nothing)
        self.n_rest = np.clip(low - self.n_control, 0, group.n_rest)
        self.n_rest_most = np.clip(high - self.n_control, 0, group.n_rest)
        self.ratio = (1 + self.n_bad) / (group.n_control + 1)

    def last(self, risk: float, whole_share: float) -> int:
        """Return the row of the largest threshold that keeps the risk; -1: none does."""
        share = self.n_rest / max(1, self.group.n_rest)
        keeps = (self.ratio <= risk * np.minimum(share, whole_share) * (1 + _ROUNDING)) & (self.n_rest > 0)
        return int(np.flatnonzero(keeps)[-1]) if keeps.any() else -1

    def accepted(self, row: int) -> Accepted:
        if row < 0:
            ratio = (1 + int(self.group.bad.sum())) / (self.group.n_control + 1)
            return Accepted(None, 0, 0, 0, 0, ratio)
        return Accepted(
            threshold=float(self.thresholds[row]),
            n_rest=int(self.n_rest[row]),
            n_rest_most=int(self.n_rest_most[row]),
            n_control=int(self.n_control[row]),
            n_bad=int(self.n_bad[row]),
            ratio=float(self.ratio[row]),
        )


def select_thresholds(groups: Sequence[Group], risk: float) -> list[Accepted]:
    """Return what can be accepted of each group so that the risk is kept in each and in all together.

    The thresholds are the largest for which all conditions hold at once: starting from none refused, a group that asks
    for a larger share of the whole than is accepted is lowered, until nothing changes.

    Raises
    ------
    DataError
        When a group has more control structures than its pool has structures.
    """
    tables = [_Table(group) for group in groups]
    n_rest = sum(group.n_rest for group in groups)
    share = 1.0
    while True:
        rows = [table.last(risk, share) for table in tables]
        found = [table.accepted(row) for table, row in zip(tables, rows, strict=True)]
        now = sum(one.n_rest for one in found) / max(1, n_rest)
        if now >= share or now == 0.0:
            return found
        share = now


def bound_of(accepted: Sequence[Accepted], groups: Sequence[Group]) -> float:
    """Return the estimate of the share of bad structures among all accepted ones that was held against the risk.

    At most 1. It is chosen after the fact, so that it bounds nothing by itself: the expected share is at most the risk.
    Where nothing is accepted it is the estimate for accepting everything.
    """
    n_rest, n_accepted = sum(group.n_rest for group in groups), sum(one.n_rest for one in accepted)
    taking = [one.ratio for one in accepted if one.threshold is not None]
    if not taking or not n_accepted:
        return min(1.0, max((one.ratio for one in accepted), default=1.0))
    return min(1.0, max(taking) * n_rest / n_accepted)


def labels_to_hold(group: Group, risk: float, min_accepted_fraction: float) -> int:
    """Return the control labels with which the certificate would hold if every further one were right.

    The smallest ``n`` with ``(1 + bad at or below) / (n + 1) <= risk * share`` for a threshold that accepts at least
    ``min_accepted_fraction``; more than there are when it does not hold yet.
    """
    table = _Table(group)
    share = table.n_rest / max(1, group.n_rest)
    enough = share >= min_accepted_fraction * (1 - _ROUNDING)
    bad = np.append(table.n_bad[enough], group.bad.sum())
    part = np.append(share[enough], 1.0)
    return max(1, int(np.min(np.ceil((1 + bad) / (risk * part) - 1 - 1e-9))))
