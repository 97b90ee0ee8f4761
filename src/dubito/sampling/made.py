"""Structures that a sampler without dynamics made in one go: judged, counted, and given their origin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from dubito.core.logs import get_logger
from dubito.data.sanity import REASONS, SanityCheck
from dubito.data.structures import Array, Structures
from dubito.sampling.base import COMPLETED, Sampled
from dubito.uncertainty.base import Predictor

log = get_logger(__name__)


@dataclass
class Made:
    """Displaced copies of structures, collected one by one.

    Attributes
    ----------
    parents : the structures that the copies are of; row ``parent[k]`` is that of copy ``k``
    """

    parents: Structures
    parent: list[int] = field(default_factory=list)
    positions: list[Array] = field(default_factory=list)
    samplers: list[str] = field(default_factory=list)
    trajectories: list[str] = field(default_factory=list)

    def add(self, parent: int, positions: Array, sampler: str, trajectory: str) -> None:
        """Add a copy of structure ``parent`` at ``positions``, (atoms, 3) Å."""
        self.parent.append(parent)
        self.positions.append(positions)
        self.samplers.append(sampler)
        self.trajectories.append(trajectory)

    def judged(
        self,
        predictor: Predictor,
        check: SanityCheck,
        iteration: int,
        *,
        stops: Counter[str] | None = None,
        steps: int = 0,
        parent_ids: Sequence[str] | None = None,
    ) -> Sampled:
        """Predict what has a sane geometry, and return what is sane in energy and forces, too.

        Doubt refuses nothing: structures are independent of each other, so that one far beyond doubt spoils no other,
        and selection has an upper end of its own.

        Parameters
        ----------
        stops, steps : structures that were given up before, by reason, and predictions made before
        parent_ids : ids that ``origin/parent`` gives in place of those of ``parents``
        """
        counts: Counter[str] = Counter(stops or {})
        ids = self.parents.ids if parent_ids is None else parent_ids
        made = self._structures(ids, iteration)
        given_up = sum(counts.values())
        geometry = check.check(made)
        counts.update(reason for reason in geometry.reasons if reason)
        made, predicted = made[geometry.sane], int(geometry.sane.sum())
        if predicted:
            prediction = predictor.predict(made)
            values = check.bind(made).values(prediction.energy, prediction.forces)
            counts.update(reason or COMPLETED for reason in values.reasons)
            made = made[values.sane]
        ordered = {reason: counts[reason] for reason in (COMPLETED, *REASONS) if counts[reason]}
        log.info("%d structures made, %d candidates; %s", len(self.parent), len(made), ordered)
        return Sampled(made, ordered, steps + predicted, given_up + len(self.parent), "structures made")

    def _structures(self, ids: Sequence[str], iteration: int) -> Structures:
        if not self.parent:
            return Structures.empty()
        rows = np.array(self.parent)
        copies = replace(self.parents[rows], columns={}, positions=np.concatenate(self.positions))
        return copies.with_columns(
            origin__source="explore_structures",
            origin__iteration=iteration,
            origin__parent=[ids[row] for row in rows],
            origin__sampler=self.samplers,
            origin__trajectory=self.trajectories,
        )
