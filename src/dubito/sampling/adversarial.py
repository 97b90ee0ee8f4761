"""Displacements up the doubt until it has a given size: structures that are wrong by as much as one asks for.

From a labelled structure, shaken a little, each step goes along the gradient of

    ln sigma_E - E / kT,

sigma_E the standard deviation of the energy: Schwalbe-Koda et al. 2021 (https://doi.org/10.1038/s41467-021-25342-8)
maximise a variance times such a Boltzmann weight. Here nothing is maximised, since what is most doubtful is mostly
unphysical: the climb ends where the calibrated force doubt of an atom reaches a target (calibrated adversarial geometry
optimization, arXiv:2502.18314), and its last step is searched for the target itself. A climb that comes to its top
before goes on with T doubled: so each structure pays about as much energy as its way to the target takes.

The gradient needs no second derivatives (:mod:`dubito.uncertainty.deviations`): a step costs one evaluation.
That of the worst atom's own doubt, by differences, costs four: it got as many structures to the target for twice the
evaluations.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import ClassVar

import numpy as np

from dubito.config.biased_sampling import MAX_SEARCH, AdversarialConfig
from dubito.config.sanity import SanityConfig
from dubito.core.errors import ModelError
from dubito.core.logs import get_logger
from dubito.core.random import generator
from dubito.core.units import BOLTZMANN_EV_PER_K
from dubito.data.prediction import Prediction
from dubito.data.sanity import NOT_FINITE, REASONS, SanityCheck
from dubito.data.structures import Array, Structures
from dubito.metrics.reduce import atom_norm, structure_max
from dubito.sampling.base import Sampled
from dubito.sampling.starts import sane_starts
from dubito.uncertainty.base import Predictor
from dubito.uncertainty.deviations import Deviations, MemberPredictor, with_members

log = get_logger(__name__)

REACHED = "reached"
NOT_REACHED = "not_reached"
ABOVE_TARGET = "above_target"
STOPS = (REACHED, NOT_REACHED, ABOVE_TARGET, *REASONS)

# A candidate's doubt differs from the target by this share of it at most.
TOLERANCE = 0.05
# A step is shortened where the objective fell, lengthened again where it rose; below a share of the longest one a climb
# has come to its top, and goes on hotter.
_HOTTER = 2.0
_SHORTER, _LONGER = 0.5, 1.5
_SHORTEST = 1 / 16


class AdversarialSampler:
    """See :class:`dubito.sampling.base.Sampler`."""

    name: ClassVar[str] = "adversarial"

    def __init__(self, config: AdversarialConfig, sanity: SanityConfig) -> None:
        self.config, self.sanity = config, sanity

    def sample(self, predictor: Predictor, labelled: Structures, *, seed: int, iteration: int, job: int = 0) -> Sampled:
        """Displace structures until their doubt is the target; those that don't get there are counted, not kept.

        Raises
        ------
        DataError
            When no labelled structure is sane enough to start from.
        ModelError
            When the method can't tell members apart, or gives no force uncertainty.
        """
        members = with_members(predictor, self.name)
        check, n = SanityCheck(self.sanity, labelled), self.config.n_structures
        starts = sane_starts(labelled, check, n, seed, self.name, iteration, job)
        streams = [generator(seed, self.name, iteration, job, "structure", i) for i in range(n)]
        climb = Climb(self.config, members, check, starts, streams)
        climb.run()
        counts = {reason: climb.stops[reason] for reason in STOPS if climb.stops[reason]}
        log.info("%d structures, %d evaluations; %s", n, climb.evaluations, counts)
        return Sampled(self._candidates(climb, iteration, job), counts, climb.evaluations, n)

    def _candidates(self, climb: Climb, iteration: int, job: int) -> Structures:
        numbers = sorted(climb.found)
        if not numbers:
            return Structures.empty()
        found = replace(
            climb.starts[numbers], columns={}, positions=np.concatenate([climb.found[number] for number in numbers])
        )
        parents = climb.starts.ids
        return found.with_columns(
            origin__source="explore_structures",
            origin__iteration=iteration,
            origin__parent=[parents[number] for number in numbers],
            origin__sampler=f"{self.name}_{self.config.target_error_ev_per_angstrom:g}",
            origin__trajectory=[f"iter{iteration:03d}_job{job}_structure{number}" for number in numbers],
        )


class Climb:
    """The structures of a job on their way, one batch that shrinks; all arrays are by number within the job.

    Attributes
    ----------
    numbers : those still on their way
    trial : (k, 3) Å each, where they are evaluated next
    low, low_doubt : the last positions below the target; high, high_doubt : those above, None before there are any
    length : Å, of the next step; objective : of the last one
    found : positions whose doubt is the target
    evaluations : of structures, by all members
    """

    def __init__(
        self,
        config: AdversarialConfig,
        predictor: MemberPredictor,
        check: SanityCheck,
        starts: Structures,
        streams: list[np.random.Generator],
    ) -> None:
        self.config, self.predictor, self.check, self.streams = config, predictor, check, streams
        self.starts = replace(starts, columns={})
        n = len(starts)
        self.numbers = np.arange(n)
        self.trial = [starts.positions[a:b] for a, b in zip(starts.ptr[:-1], starts.ptr[1:], strict=True)]
        self.low, self.low_doubt = list(self.trial), np.full(n, np.nan)
        self.high: list[Array | None] = [None] * n
        self.high_doubt, self.searched = np.full(n, np.nan), np.zeros(n, int)
        self.length, self.objective = np.full(n, config.step_angstrom), np.full(n, -np.inf)
        self.kelvin = np.full(n, config.temperature_K)
        self.found: dict[int, Array] = {}
        self.stops: Counter[str] = Counter()
        self.evaluations = 0

    def run(self) -> None:
        """Climb and search until each structure has stopped."""
        for step in range(self.config.n_steps + MAX_SEARCH + 1):
            batch = self._sane_batch()
            if not len(batch):
                return
            numbers = self.numbers
            said, deviations = self.predictor.predict_members(batch)
            self.evaluations += len(batch)
            rows = self._judge(batch, said, labelled=step == 0)
            if step == 0:
                self._shake(numbers[rows])
            elif step < self.config.n_steps:
                self._climb(rows, numbers[rows], batch, said, deviations)
            else:
                # What is between two points by now may still be searched.
                self._leave(numbers[rows], NOT_REACHED)
        self._leave(self.numbers, NOT_REACHED)

    def _leave(self, numbers: Array | int, reason: str) -> None:
        self.stops[reason] += np.size(numbers)
        self.numbers = np.setdiff1d(self.numbers, numbers)

    def _sane_batch(self) -> Structures:
        """Return where structures are tried; those of an insane geometry leave before anything is predicted of them."""
        if not len(self.numbers):
            return Structures.empty()
        batch = replace(
            self.starts[self.numbers], positions=np.concatenate([self.trial[number] for number in self.numbers])
        )
        verdict = self.check.bind(batch).geometry(batch.positions)
        for number, reason in zip(self.numbers, verdict.reasons, strict=True):
            if reason:
                self._leave(int(number), reason)
        return batch[verdict.sane]

    def _judge(self, batch: Structures, said: Prediction, *, labelled: bool) -> Array:
        """Sort out structures by what was said of them; return the rows of those that go on climbing."""
        if "forces" not in said.uncertainty:
            raise ModelError(
                f"The sampler '{AdversarialSampler.name}' needs a force uncertainty in eV/Å to aim at, but the method "
                "given by uncertainty.acquire_with has none. Choose 'ensemble' there."
            )
        doubt = structure_max(atom_norm(said.uncertainty["forces"]), said.ptr)
        reasons = self.check.bind(batch).values(said.energy, said.forces).reasons
        target, climbing = self.config.target_error_ev_per_angstrom, []
        for row, number in enumerate(self.numbers.tolist()):
            reason = reasons[row] or ("" if np.isfinite(doubt[row]) else NOT_FINITE)
            near = abs(doubt[row] - target) <= TOLERANCE * target
            if reason or (labelled and (near or doubt[row] > target)):
                self._leave(number, reason or ABOVE_TARGET)
            elif near:
                self.found[number] = self.trial[number]
                self._leave(number, REACHED)
            elif self.high[number] is None and doubt[row] < target:
                self.low[number], self.low_doubt[number] = self.trial[number], doubt[row]
                climbing.append(row)
            else:
                self._search(number, doubt[row])
        return np.array(climbing, int)

    def _search(self, number: int, doubt: float) -> None:
        """Put the next trial on the line between the last points below and above the target."""
        target = self.config.target_error_ev_per_angstrom
        if doubt < target:
            self.low[number], self.low_doubt[number] = self.trial[number], doubt
        else:
            self.high[number], self.high_doubt[number] = self.trial[number], doubt
        low, high = self.low[number], self.high[number]
        self.searched[number] += 1
        if high is None or self.searched[number] > MAX_SEARCH:
            self._leave(number, NOT_REACHED)
            return
        share = (target - self.low_doubt[number]) / (self.high_doubt[number] - self.low_doubt[number])
        self.trial[number] = low + float(np.clip(share, 0.1, 0.9)) * (high - low)

    def _shake(self, numbers: Array) -> None:
        """Displace labelled structures at random: by symmetry doubt need not grow anywhere, and copies shall differ."""
        for number in numbers:
            drawn = self.streams[number].normal(size=self.trial[number].shape)
            self.trial[number] = self.low[number] + _no_longer_than(drawn, self.config.step_angstrom)

    def _climb(self, rows: Array, numbers: Array, batch: Structures, said: Prediction, deviations: Deviations) -> None:
        """Set the next trial of some rows of the batch, a step uphill."""
        sigma = np.maximum(deviations.energy_sigma(), np.finfo("f8").tiny)
        gradient = deviations.energy_sigma_gradient(batch.ptr) / np.repeat(sigma, batch.n_atoms)[:, None]
        longest = self.config.step_angstrom
        for row, number in zip(rows.tolist(), numbers.tolist(), strict=True):
            atoms, kt = slice(batch.ptr[row], batch.ptr[row + 1]), BOLTZMANN_EV_PER_K * self.kelvin[number]
            objective = float(np.log(sigma[row]) - said.energy[row] / kt)
            better = objective >= self.objective[number]
            self.length[number] = min(longest, self.length[number] * (_LONGER if better else _SHORTER))
            self.objective[number] = objective
            if self.length[number] < _SHORTEST * longest:
                self.kelvin[number] *= _HOTTER
                self.length[number], self.objective[number] = longest, -np.inf
            direction = gradient[atoms] + said.forces[atoms] / (BOLTZMANN_EV_PER_K * self.kelvin[number])
            if not np.any(direction):
                self._leave(number, NOT_REACHED)
            else:
                self.trial[number] = self.low[number] + _no_longer_than(direction, self.length[number])


def _no_longer_than(vectors: Array, length: float) -> Array:
    """Return vectors (k, 3) of one structure scaled so that the longest has a length."""
    out: Array = vectors * (length / np.max(atom_norm(vectors)))
    return out
