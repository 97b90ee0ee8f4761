"""Where the time of a training step goes.

    python benchmarks/parts.py        # a minute; --short is the same

Batches of 3BPA, one thread, CPU time of each part (medians). The compiled network's sweeps, and around them what is
done in torch. Writes benchmarks/results/parts.json.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from _batches import molecules
from _publish import publish

from dubito.config.model import ModelConfig
from dubito.config.training import TrainingConfig
from dubito.data.graphs import select
from dubito.data.statistics import fit_statistics
from dubito.data.structures import Structures
from dubito.model.fused.function import CompiledCall
from dubito.model.potential import Potential
from dubito.training.loop import Trainer
from dubito.training.loss import mean_squared_errors, weighted

STEPS, WARM = 30, 5
Times = dict[str, list[float]]


class Clock:
    """CPU time by part; the compiled sweeps are taken out of whatever calls them."""

    def __init__(self) -> None:
        self.times: Times = defaultdict(list)
        self.inside = 0.0
        for name, part in (("evaluate", "forward and reverse sweep"), ("differentiate", "tangent and curvature sweep")):
            self._watch(name, part)

    def _watch(self, name: str, part: str) -> None:
        original = getattr(CompiledCall, name)

        def timed(call: Any, *arguments: Any, **options: Any) -> Any:
            start = time.thread_time()
            out = original(call, *arguments, **options)
            spent = time.thread_time() - start
            self.times[part].append(spent)
            self.inside += spent
            return out

        setattr(CompiledCall, name, timed)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure a part, without the sweeps inside it."""
        start, before = time.thread_time(), self.inside
        yield
        self.times[name].append(time.thread_time() - start - (self.inside - before))


def step(trainer: Trainer, clock: Clock, index: torch.Tensor) -> None:
    """Do what :meth:`Trainer._train_epoch` does with a batch."""
    data, potential = trainer.train_set, trainer.potential
    with clock.part("gather the batch"):
        graph, atoms, pairs = select(data.graph, index)
        geometry = data.geometry.select(pairs)
        targets = data.targets.select(index, atoms)
    with clock.part("radial networks, readout (torch)"):
        result = potential.evaluate(graph, geometry, create_graph=True)
    with clock.part("loss"):
        errors = mean_squared_errors(result, targets, graph)
        loss = weighted(errors, trainer.force_scale, trainer.config).sum()
    with clock.part("their derivatives (torch)"):
        trainer.parameters.differentiate(loss)
    with clock.part("clipping, Adam, average"):
        trainer.parameters.clip(trainer.config.gradient_clip)
        trainer.adam.step(trainer.schedule.learning_rate())
        trainer.average.lerp_(trainer.parameters.rows, 0.01)


def measure(structures: Structures, l_max: int, batch: int, members: int, clock: Clock) -> dict[str, Any]:
    """Return the medians of a step's parts in ms."""
    potential = Potential(ModelConfig(l_max=l_max, r_max_angstrom=5.0), fit_statistics(structures, 5.0), members)
    rows = list(range(members))
    potential.initialise(0, rows)
    trainer = Trainer(potential, structures, structures[:1], TrainingConfig(batch_size=batch), seed=0, members=rows)
    for i in range(STEPS + WARM):
        if i == WARM:
            clock.times.clear()
        step(trainer, clock, (torch.arange(batch) + i) % len(structures))
    parts = {name: 1e3 * statistics.median(times) for name, times in clock.times.items()}
    whole = sum(parts.values())
    compiled = sum(value for name, value in parts.items() if "sweep" in name)
    return {
        "l_max": l_max,
        "batch": batch,
        "members": members,
        "step_ms": round(whole, 2),
        "compiled_share": round(compiled / whole, 2),
        "parts_ms": {name: round(value, 3) for name, value in sorted(parts.items(), key=lambda item: -item[1])},
    }


def main() -> None:
    """Measure, write and print."""
    if set(sys.argv[1:]) - {"--short", "--full"}:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    batch = molecules(64)
    structures = Structures.build(
        [batch.numbers] * len(batch.positions),
        list(batch.positions),
        labels__energy=batch.energy,
        labels__forces=batch.forces.reshape(-1, 3),
        labels__mask=True,
    )
    clock = Clock()
    cases = [(1, 5, 1), (1, 5, 4), (2, 5, 1), (2, 5, 4), (3, 5, 1), (2, 32, 1), (2, 32, 4)]
    table = [measure(structures, *case, clock) for case in cases]
    publish("parts", {"structures": batch.name, "threads": 1, "steps": STEPS, "table": table})


if __name__ == "__main__":
    main()
