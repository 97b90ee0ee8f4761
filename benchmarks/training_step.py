"""Time of a training step: one member, four vectorised, four one after another; interleaved in one run.

    python benchmarks/training_step.py

Writes benchmarks/results/training_step.json and prints it as one line. Times are medians in ms of a step (forward,
forces, loss, backward, optimiser) on a batch of ammonia molecules with the demo's network, one thread.
"""

from __future__ import annotations

import statistics
import time

import torch
from _publish import publish

from dubito.config.model import ModelConfig
from dubito.config.training import TrainingConfig
from dubito.data.statistics import fit_statistics
from dubito.model.potential import Potential
from dubito.testing.structures import rattled, toy_labels
from dubito.training.loop import Trainer
from dubito.training.loss import weighted

REPEATS, BATCHES = 30, (5, 32)


def make_trainer(n_members: int, batch: int, l_max: int) -> Trainer:
    """Return a trainer whose whole training set is one batch."""
    train = toy_labels(rattled(batch, molecules="ammonia"))
    potential = Potential(ModelConfig(l_max=l_max), fit_statistics(train, 4.0), n_members)
    members = list(range(n_members))
    potential.initialise(0, members)
    return Trainer(potential, train, train[:1], TrainingConfig(batch_size=batch), seed=0, members=members)


def step(trainer: Trainer) -> float:
    """Do one optimiser step and return its wall time in ms."""
    start = time.perf_counter()
    errors = trainer.train_set.errors(trainer.potential, torch.arange(trainer.train_set.n), train=True)
    trainer.parameters.differentiate(weighted(errors, trainer.force_scale, trainer.config).sum())
    trainer.parameters.clip(10.0)
    trainer.adam.step(trainer.schedule.learning_rate())
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    """Measure, write and print."""
    torch.set_num_threads(1)
    table = {}
    for l_max in (1, 2):
        for batch in BATCHES:
            one, four = make_trainer(1, batch, l_max), make_trainer(4, batch, l_max)
            apart = [make_trainer(1, batch, l_max) for _ in range(4)]
            times: dict[str, list[float]] = {"one": [], "four_vectorised": [], "four_in_turn": []}
            for repeat in range(REPEATS + 5):
                sample = {"one": step(one), "four_vectorised": step(four), "four_in_turn": sum(map(step, apart))}
                if repeat >= 5:
                    for name, value in sample.items():
                        times[name].append(value)
            ratio = [a / b for a, b in zip(times["four_in_turn"], times["four_vectorised"], strict=True)]
            cost = [a / b for a, b in zip(times["four_vectorised"], times["one"], strict=True)]
            table[f"l_max {l_max}, batch {batch}"] = {
                **{f"{name}_ms": round(statistics.median(values), 2) for name, values in times.items()},
                "in_turn_over_vectorised": round(statistics.median(ratio), 2),
                "vectorised_over_one": round(statistics.median(cost), 2),
            }
    content = {
        "table": table,
        "repeats": REPEATS,
        "threads": 1,
    }
    publish("training_step", content)


if __name__ == "__main__":
    main()
