"""What the campaign has cost so far, jobs without a result included."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dubito.cli.status.jobs import FINISHED, RUNNING, UNSEEN, Run
from dubito.cli.status.values import amount, number, whole

# The stages whose jobs compute reference labels.
DFT_STAGES = ("label_structures", "prepare_reference")


@dataclass(frozen=True)
class Spent:
    """Time of one run, s; ``is_known`` is false for one that ended without a word nobody knows when."""

    wall_s: float
    cpu_s: float
    gpu_s: float
    is_known: bool


@dataclass(frozen=True)
class Cost:
    """Hours of all jobs. Those of jobs that run, or died without a word, are estimated from their wall time."""

    cpu_hours: float
    gpu_hours: float
    dft_cpu_hours: float
    wall_hours: float
    running_cpu_hours: float
    lost_jobs: int
    lost_cpu_hours: float
    lost_gpu_hours: float
    lost_unknown_jobs: int
    epochs_repeated: int


def spent(run: Run, now: float) -> Spent:
    """Return what one run took, as it said itself or from the times of its events."""
    for event in (run.end, run.died):
        if event is not None and number(event.raw.get("wall_s")) is not None:
            wall, cpu, gpu = (amount(event.raw.get(key)) for key in ("wall_s", "cpu_s", "gpu_s"))
            return Spent(wall, cpu, gpu, is_known=True)
    end = now if run.state in (RUNNING, UNSEEN) else run.last_sign if run.died is None else run.died.time
    if run.end is not None:
        end = run.end.time
    if end is None or run.start is None:
        return Spent(0.0, 0.0, 0.0, is_known=False)
    wall = max(0.0, end - run.start.time)
    threads = whole(run.value("threads")) or 1
    return Spent(wall, wall * threads, wall * amount(run.value("gpus")), is_known=True)


def cost_of(runs: Sequence[Run], now: float) -> Cost:
    """Sum the runs of a campaign."""
    cpu = gpu = dft = running = lost_cpu = lost_gpu = 0.0
    lost = unknown = epochs = 0
    for run in runs:
        took = spent(run, now)
        cpu, gpu = cpu + took.cpu_s, gpu + took.gpu_s
        dft += took.cpu_s if run.job[0] in DFT_STAGES else 0.0
        if run.is_trouble:
            lost, lost_cpu, lost_gpu = lost + 1, lost_cpu + took.cpu_s, lost_gpu + took.gpu_s
            unknown += not took.is_known
        elif run.state != FINISHED:
            running += took.cpu_s
        if run.resumed is not None:
            reached, at = (amount(run.resumed.raw.get(key)) for key in ("reached", "epoch"))
            epochs += int(max(0.0, reached - at))
    wall = sum(end - start for start, end in busy(runs, now))
    seconds = (cpu, gpu, dft, wall, running, lost_cpu, lost_gpu)
    cpu, gpu, dft, wall, running, lost_cpu, lost_gpu = (value / 3600 for value in seconds)
    return Cost(cpu, gpu, dft, wall, running, lost, lost_cpu, lost_gpu, unknown, epochs)


def busy(runs: Iterable[Run], now: float) -> list[tuple[float, float]]:
    """Return the intervals (seconds since 1970) in which at least one job ran."""
    spans = sorted((run.began, run.began + spent(run, now).wall_s) for run in runs)
    merged: list[tuple[float, float]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return merged
