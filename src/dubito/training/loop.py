"""The training loop: explicit, resumable, all members of a group together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dubito.config.training import TrainingConfig
from dubito.core import interrupt
from dubito.core.errors import ModelError
from dubito.core.heartbeat import beat, last_beat, training_heartbeat
from dubito.core.interrupt import Interrupted
from dubito.core.logs import get_logger
from dubito.core.progress import job_event
from dubito.core.random import generator
from dubito.data.graphs import build_graph, select
from dubito.data.structures import Structures
from dubito.model.potential import Potential
from dubito.training.checkpoint import load_checkpoint, save_checkpoint
from dubito.training.history import Epoch
from dubito.training.loss import Errors, make_targets, mean_squared_errors, weighted
from dubito.training.optimizer import Adam, FlatParameters
from dubito.training.schedule import Schedule

log = get_logger(__name__)

# A member whose loss stops being finite is taken back this often before it is given up.
MAX_ROLLBACKS = 5
# Validation is evaluated in pieces of this many structures.
VALIDATION_BATCH = 64


class _Set:
    """A labelled set with its graph and geometry, which don't change during training."""

    def __init__(self, structures: Structures, potential: Potential) -> None:
        device = next(potential.parameters()).device
        self.n = len(structures)
        self.graph = build_graph(
            structures, potential.species, potential.config.r_max_angstrom, potential.dtype, device
        )
        self.geometry = potential.geometry(self.graph)
        self.targets = make_targets(structures, potential)

    def errors(self, potential: Potential, index: Tensor, *, train: bool) -> Errors:
        graph, atoms, pairs = select(self.graph, index)
        result = potential.evaluate(graph, self.geometry.select(pairs), create_graph=train)
        return mean_squared_errors(result, self.targets.select(index, atoms), graph)


class Trainer:
    """Train the members of a potential on labelled structures.

    Parameters
    ----------
    potential : weights are changed in place; at the end they are the best averaged ones
    train, valid : labelled structures; ``valid`` decides rates, stopping and the best weights
    members : the ensemble's numbers of the potential's rows
    folder, fingerprint : where the checkpoint lives and what it must belong to; None: no checkpoint
    """

    def __init__(
        self,
        potential: Potential,
        train: Structures,
        valid: Structures,
        config: TrainingConfig,
        *,
        seed: int,
        members: list[int],
        folder: Path | None = None,
        fingerprint: str = "",
    ) -> None:
        self.potential, self.config, self.seed, self.members = potential, config, seed, members
        self.folder, self.fingerprint = folder, fingerprint
        self.train_set, self.valid_set = _Set(train, potential), _Set(valid, potential)
        self.force_scale = potential.statistics.force_scale_ev_per_angstrom
        self.parameters = FlatParameters(potential)
        self.adam = Adam(self.parameters, amsgrad=config.amsgrad)
        self.average = self.parameters.rows.clone()
        self.best = self.parameters.rows.clone()
        self.snapshot = self.parameters.rows.clone()
        self.rollbacks = torch.zeros(potential.n_members, dtype=torch.int64)
        self.history: list[Epoch] = []
        self.epoch = self.saved_epoch = 0
        self.steps_per_epoch = math.ceil(self.train_set.n / config.batch_size)
        self.n_epochs = max(config.max_epochs, math.ceil(config.min_steps / self.steps_per_epoch))
        self.schedule = Schedule(potential.n_members, config, self.n_epochs)
        # Called after each epoch; tests interrupt here, stages report progress.
        self.on_epoch: Callable[[Trainer], None] = lambda trainer: None

    # --- the loop -----------------------------------------------------------------------------

    def run(self) -> list[Epoch]:
        """Train to the end, from the checkpoint if there is one; return the history.

        Raises
        ------
        ModelError
            When a member can't be trained because its loss stops being finite again and again.
        Interrupted
            When a signal asked to stop (:mod:`dubito.core.interrupt`), after the last complete epoch was saved.
        """
        self._resume()
        while self.epoch < self.n_epochs and bool(self.schedule.active.any()):
            start = time.perf_counter()
            complete = self._state()
            try:
                better, train, valid = self._one_epoch()
            except Interrupted:
                self._save(complete)
                log.warning("asked to stop in epoch %d; epoch %d is saved", self.epoch + 1, complete["epoch"])
                raise
            self.best[better] = self.average[better]
            self.epoch += 1
            self._record(train, valid, time.perf_counter() - start)
            self._beat()
            if self.epoch % self.config.checkpoint_every_epochs == 0:
                self._checkpoint()
            self.on_epoch(self)
        lost = (self.rollbacks > MAX_ROLLBACKS) | ~torch.isfinite(self.schedule.best)
        if bool(lost.any()):
            names = [self.members[i] for i in torch.nonzero(lost).flatten().tolist()]
            raise ModelError(
                f"Members {names} could not be trained: their loss stopped being finite again and again. Lower "
                "training.learning_rate, and look for absurd labels (very large forces) in the dataset. An ensemble "
                "with an untrained member would be wrong without showing it, so none is written."
            )
        self.parameters.rows.copy_(self.best)
        self._checkpoint()
        return self.history

    def _one_epoch(self) -> tuple[Tensor, Errors, Errors]:
        """Return the members that are better than ever (bool), and the errors."""
        self.snapshot.copy_(self.parameters.rows)
        train = self._train_epoch()
        valid = self._validate()
        return self.schedule.update(weighted(valid, self.force_scale, self.config)), train, valid

    def _train_epoch(self) -> Errors:
        order = torch.from_numpy(generator(self.seed, "batches", self.epoch).permutation(self.train_set.n))
        order = order.to(self.parameters.rows.device)
        total_energy = total_forces = torch.zeros(self.potential.n_members, dtype=torch.float64)
        for batch in torch.split(order, self.config.batch_size):
            interrupt.check()
            errors = self.train_set.errors(self.potential, batch, train=True)
            self.parameters.differentiate(weighted(errors, self.force_scale, self.config).sum())
            norm = self.parameters.clip(self.config.gradient_clip)
            broken = ~torch.isfinite(norm).cpu()
            if bool(broken.any()):
                self._roll_back(broken)
            rate = self.schedule.learning_rate()
            self.adam.step(rate.to(self.parameters.rows.device))
            # Early on, and after a roll-back, the average must not remember the start.
            steps = self.adam.steps
            fresh = 1 - ((1 + steps) / (10 + steps)).clamp(max=self.config.ema_decay)
            self.average.lerp_(self.parameters.rows, fresh.to(self.average.dtype)[:, None])
            share = len(batch) / self.train_set.n
            total_energy = total_energy + share * errors.energy.detach().double().cpu()
            total_forces = total_forces + share * errors.forces.detach().double().cpu()
        return Errors(total_energy, total_forces)

    def _roll_back(self, broken: Tensor) -> None:
        """Take members with a gradient that is not finite back to the start of the epoch, more slowly."""
        self.rollbacks += broken.long()
        names = [self.members[i] for i in torch.nonzero(broken).flatten().tolist()]
        log.warning("epoch %d: members %s lost their footing (gradient not finite); taken back", self.epoch, names)
        self.parameters.gradient[broken] = 0.0
        self.parameters.rows[broken] = self.snapshot[broken]
        self.average[broken] = self.snapshot[broken]
        self.adam.reset(broken)
        self.schedule.slow_down(broken)
        self.schedule.stop(broken & (self.rollbacks > MAX_ROLLBACKS))

    def _validate(self) -> Errors:
        """Return the validation errors of the averaged weights."""
        current = self.parameters.rows.clone()
        self.parameters.rows.copy_(self.average)
        device = current.device
        energy = forces = torch.zeros(self.potential.n_members, dtype=torch.float64)
        atoms_in_all = self.valid_set.graph.n_atoms
        for batch in torch.split(torch.arange(self.valid_set.n, device=device), VALIDATION_BATCH):
            interrupt.check()
            errors = self.valid_set.errors(self.potential, batch, train=False)
            ptr = self.valid_set.graph.atom_ptr
            atoms = int(ptr[batch[-1] + 1] - ptr[batch[0]])
            energy = energy + errors.energy.double().cpu() * (len(batch) / self.valid_set.n)
            forces = forces + errors.forces.double().cpu() * (atoms / atoms_in_all)
        self.parameters.rows.copy_(current)
        return Errors(energy, forces)

    def _record(self, train: Errors, valid: Errors, wall_s: float) -> None:
        rate = self.schedule.learning_rate()
        losses = [weighted(e, self.force_scale, self.config) for e in (train, valid)]
        for row, member in enumerate(self.members):
            self.history.append(
                Epoch(
                    self.epoch,
                    member,
                    float(rate[row]),
                    float(losses[0][row]),
                    float(losses[1][row]),
                    float(train.forces[row].sqrt()),
                    float(valid.forces[row].sqrt()),
                    float(train.energy[row].sqrt()),
                    float(valid.energy[row].sqrt()),
                    wall_s,
                )
            )

    # --- state --------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        """Return a copy of all that a checkpoint needs but the history, of which it has the length."""
        return {
            "epoch": self.epoch,
            "rows": self.parameters.rows.clone(),
            "average": self.average.clone(),
            "best": self.best.clone(),
            "rollbacks": self.rollbacks.clone(),
            "adam": {name: tensor.clone() for name, tensor in self.adam.state().items()},
            "schedule": {name: tensor.clone() for name, tensor in self.schedule.state().items()},
            "history": len(self.history),
        }

    def _checkpoint(self) -> None:
        self._save(self._state())

    def _save(self, state: dict[str, Any]) -> None:
        """Write a state, unless nothing has been trained since the checkpoint before."""
        if self.folder is None or (state["epoch"] == self.saved_epoch and state["epoch"] < self.n_epochs):
            return
        history = [list(vars(line).values()) for line in self.history[: state["history"]]]
        save_checkpoint(self.folder, self.fingerprint, {**state, "history": history})
        self.saved_epoch = state["epoch"]

    def _beat(self) -> None:
        if self.folder is not None:
            path = training_heartbeat(self.folder)
            beat(path, epoch=self.epoch, of=self.n_epochs, fingerprint=self.fingerprint)

    def _say_resumed(self) -> None:
        """Record where this training goes on, and how far an earlier job had come with it."""
        known = last_beat(training_heartbeat(self.folder)) if self.folder is not None else None
        reached = int(known["epoch"]) if known and known.get("fingerprint") == self.fingerprint else 0
        if max(self.epoch, reached) > 0:
            job_event("resumed", epoch=self.epoch, reached=max(self.epoch, reached))

    def _resume(self) -> None:
        state = load_checkpoint(self.folder, self.fingerprint) if self.folder else None
        if state is None:
            self._say_resumed()
            return
        self.epoch = self.saved_epoch = state["epoch"]
        self.parameters.rows.copy_(state["rows"])
        self.average.copy_(state["average"])
        self.best.copy_(state["best"])
        self.rollbacks.copy_(state["rollbacks"])
        self.adam.restore(state["adam"])
        self.schedule.restore(state["schedule"])
        self.history = [Epoch(*line) for line in state["history"]]
        self._say_resumed()
        log.info("training goes on after epoch %d", self.epoch)
