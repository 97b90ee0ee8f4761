"""What a campaign has cost, from its progress events and label reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StageCost:
    """Cost of one stage in one iteration, all its jobs together; seconds."""

    stage: str
    iteration: int | None
    jobs: int
    wall_s: float
    cpu_s: float
    gpu_s: float


def stage_costs(events: Sequence[Mapping[str, Any]], last: int | None = None) -> list[StageCost]:
    """Sum the finished jobs by stage and iteration, in the order in which they first finished.

    A job that was killed leaves no ``finished`` event, so its seconds are not in the sum. ``last``
    leaves out what belongs to later iterations.
    """
    sums: dict[tuple[str, int | None], list[float]] = {}
    for event in events:
        if event.get("event") != "finished" or not event.get("stage"):
            continue
        iteration = event.get("iteration")
        if last is not None and isinstance(iteration, int) and iteration > last:
            continue
        row = sums.setdefault((str(event["stage"]), iteration), [0, 0.0, 0.0, 0.0])
        for column, value in enumerate((1, *(event.get(key) for key in ("wall_s", "cpu_s", "gpu_s")))):
            row[column] += float(value or 0.0)
    return [
        StageCost(stage, iteration, int(jobs), wall, cpu, gpu)
        for (stage, iteration), (jobs, wall, cpu, gpu) in sums.items()
    ]


def labelling_cpu_s(shard_reports: Sequence[Mapping[str, Any]]) -> float:
    """Return the processor time of the labels of all batches, failed attempts included, s."""
    return sum(float(report.get("cpu_s") or 0.0) for report in shard_reports)


def hours(
    costs: Sequence[StageCost], shard_reports: Sequence[Mapping[str, Any]], reference_cpu_s: float = 0.0
) -> dict[str, float]:
    """Return ``cpu_hours``, ``gpu_hours`` (of finished stages) and ``dft_cpu_hours``.

    The last is the cost of the labels wherever they were made: of the batches, and (``reference_cpu_s``) of
    the profiles.
    """
    return {
        "cpu_hours": sum(cost.cpu_s for cost in costs) / 3600,
        "gpu_hours": sum(cost.gpu_s for cost in costs) / 3600,
        "dft_cpu_hours": (labelling_cpu_s(shard_reports) + reference_cpu_s) / 3600,
    }
