"""Langevin molecular dynamics from labelled structures, many walkers as one batch.

All walkers are predicted together at each step, since one large batch costs little more than one
structure. A walker that stops leaves the batch, so the cost shrinks with it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import ClassVar

import numpy as np

from dubito.config.sampling import LangevinConfig
from dubito.config.sanity import SanityConfig
from dubito.core.errors import ModelError
from dubito.core.logs import get_logger
from dubito.data.prediction import Prediction
from dubito.data.sanity import REASONS, SanityCheck, Verdict
from dubito.data.structures import Array, Structures
from dubito.metrics.reduce import worst_atom
from dubito.sampling.base import COMPLETED, Sampled
from dubito.sampling.starts import sane_starts
from dubito.sampling.walkers import Walkers
from dubito.uncertainty.base import Predictor

log = get_logger(__name__)

UNCERTAINTY = "uncertainty"
# Biased walkers draw the same numbers: jobs are numbered through all samplers, so no two walkers share a stream, and
# walkers with and without a bias can be compared in pairs.
_STREAM = "langevin"
STOPS = (UNCERTAINTY, COMPLETED, *REASONS)


class LangevinSampler:
    """See :class:`dubito.sampling.base.Sampler`."""

    name: ClassVar[str] = "langevin"

    def __init__(self, config: LangevinConfig, sanity: SanityConfig) -> None:
        self.config, self.sanity = config, sanity

    def sample(self, predictor: Predictor, labelled: Structures, *, seed: int, iteration: int, job: int = 0) -> Sampled:
        """Propagate walkers until each has stopped.

        A walker stops where the largest rms force-error length of an atom exceeds
        ``stop_uncertainty_ev_per_angstrom`` (that structure is saved), where it leaves the sane region
        (then the last sane structure is saved), or after ``n_steps``.

        Raises
        ------
        DataError
            When no labelled structure is sane enough to start from.
        ModelError
            When the method gives no force uncertainty.
        """
        check = SanityCheck(self.sanity, labelled)
        starts = sane_starts(labelled, check, self.config.n_walkers, seed, _STREAM, iteration, job)
        ladder, n = self.config.temperatures_K, self.config.n_walkers
        temperatures = [ladder[(job * n + w) % len(ladder)] for w in range(n)]
        walkers = Walkers.start(
            starts,
            temperatures,
            timestep_fs=self.config.timestep_fs,
            friction_per_fs=self.config.friction_per_fs,
            scope=(seed, _STREAM, iteration, job),
        )
        flight = self.fly(predictor, check, walkers)
        counts = {reason: flight.stops[reason] for reason in STOPS if flight.stops[reason]}
        log.info("%d walkers made %d steps and %d candidates; %s", n, flight.steps, len(flight.rows), counts)
        labels = [f"{self.name}_{kelvin:g}K" for kelvin in temperatures]
        return Sampled(flight.candidates(starts, labels, iteration, job), counts, flight.steps, n)

    def fly(self, predictor: Predictor, check: SanityCheck, walkers: Walkers) -> Flight:
        """Propagate walkers to their end."""
        flight = Flight(self.config, predictor, check, walkers)
        flight.run()
        return flight


class Flight:
    """One run of a batch of walkers, with what it saves and why its walkers stop."""

    def __init__(self, config: LangevinConfig, predictor: Predictor, check: SanityCheck, walkers: Walkers) -> None:
        self.config, self.predictor, self.check, self.walkers = config, predictor, check, walkers
        self.bound = check.bind(walkers.structures)
        self.stops: Counter[str] = Counter()
        self.steps = 0
        self.rows: list[tuple[int, int]] = []
        self.positions: list[Array] = []
        self.last_saved: dict[int, int] = {}

    def run(self) -> None:
        """Propagate until no walker is left or all steps are done."""
        config, walkers = self.config, self.walkers
        prediction, walkers.forces = self.evaluate()
        self._judge(prediction, 0)
        tenth = max(1, config.n_steps // 10)
        for step in range(1, config.n_steps + 1):
            if not len(walkers):
                return
            self.steps += len(walkers)
            self._drift(step)
            if not len(walkers):
                return
            prediction, forces = self.evaluate()
            walkers.kick(forces)
            self._judge(prediction, step)
            if step % config.save_every_steps == 0 or step == config.n_steps:
                for i in range(len(walkers)):
                    self._save(i, step, walkers.structures.positions)
            if step % tenth == 0:
                log.info("step %d of %d: %d walkers on their way", step, config.n_steps, len(walkers))
        self.stops[COMPLETED] += len(walkers)

    def evaluate(self) -> tuple[Prediction, Array]:
        """Return the prediction, which judges the walkers, and the forces (N, 3) eV/Å that move them."""
        prediction = self.predictor.predict(self.walkers.structures)
        return prediction, prediction.forces

    def _drift(self, step: int) -> None:
        """Move; walkers whose geometry is no longer sane leave before anything is predicted."""
        positions = self.walkers.drift()
        verdict = self.bound.geometry(positions)
        bad = ~verdict.sane
        if bad.any():
            atoms = bad[self.walkers.structures.structure_of_atom]
            # Positions that are not numbers must not enter a structure, not even one about to leave.
            positions = np.where(atoms[:, None], self.walkers.structures.positions, positions)
        self.walkers.move(positions)
        self._leave(verdict.reasons, step)

    def _judge(self, prediction: Prediction, step: int) -> None:
        """Let walkers leave that are beyond the energy or force ceiling, or in doubt."""
        if "forces" not in prediction.uncertainty:
            raise ModelError(
                "Exploring needs a force uncertainty in eV/Å to stop walkers, but the method given by "
                "uncertainty.acquire_with has none. Choose 'ensemble' there."
            )
        verdict: Verdict = self.bound.values(prediction.energy, prediction.forces)
        doubt = worst_atom(prediction.uncertainty["forces"], prediction.ptr)
        # Written so that a doubt that is not a number counts as too much.
        doubtful = ~(doubt <= self.config.stop_uncertainty_ev_per_angstrom)
        self._leave(
            [reason or (UNCERTAINTY if d else "") for reason, d in zip(verdict.reasons, doubtful, strict=True)],
            step,
        )

    def _leave(self, reasons: list[str], step: int) -> None:
        """Take walkers with a reason out of the batch; keep the last structure worth keeping."""
        gone = np.array([bool(reason) for reason in reasons], bool)
        if not gone.any():
            return
        for i in np.flatnonzero(gone):
            self.stops[reasons[i]] += 1
            if reasons[i] == UNCERTAINTY:
                self._save(int(i), step, self.walkers.structures.positions)
            else:
                self._save(int(i), step - 1, self.walkers.previous)
        self.walkers.keep(~gone)
        self.bound = self.check.bind(self.walkers.structures)

    def _save(self, i: int, step: int, positions: Array) -> None:
        """Save walker ``i`` of the batch, unless it is where it started or was just saved."""
        walker, ptr = int(self.walkers.number[i]), self.walkers.structures.ptr
        if step > self.last_saved.get(walker, 0):
            self.last_saved[walker] = step
            self.rows.append((walker, step))
            self.positions.append(positions[ptr[i] : ptr[i + 1]].copy())

    def candidates(self, starts: Structures, labels: list[str], iteration: int, job: int) -> Structures:
        """Return what was saved, walker by walker in the order of time; ``labels`` name each walker's sampler."""
        if not self.rows:
            return Structures.empty()
        order = sorted(range(len(self.rows)), key=lambda k: self.rows[k])
        number = np.array([self.rows[k][0] for k in order])
        found = replace(starts[number], columns={}, positions=np.concatenate([self.positions[k] for k in order]))
        ids = starts.ids
        return found.with_columns(
            origin__source="explore_structures",
            origin__iteration=iteration,
            origin__parent=[ids[w] for w in number],
            origin__sampler=[labels[w] for w in number],
            origin__trajectory=[f"iter{iteration:03d}_job{job}_walker{w}" for w in number],
        )
