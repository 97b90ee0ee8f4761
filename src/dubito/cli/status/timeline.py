"""What each iteration took so far: by stage in processor time, by phase on the clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from dubito.cli.status.cost import busy, spent
from dubito.cli.status.jobs import FINISHED, LABEL, RUNNING, TRAIN, UNSEEN, Run

# The order of the stages of an iteration; others (reports) run beside.
ORDER = (
    "explore_structures", "score_candidates", "select_batch", "predict_batch", LABEL,
    "build_dataset", TRAIN, "merge_ensemble", "fit_uncertainty", "predict_structures", "evaluate", "choose_driver",
    "decide",
)  # fmt: skip
_ONE_JOB = frozenset({"select_batch", "build_dataset", "merge_ensemble", "evaluate", "choose_driver", "decide"})
# What an iteration consists of on the clock: exploring and selecting; labels; the dataset; training; all after it.
PHASES = ("before", "labelling", "between", "training", "after")
# On one machine nothing waits in a queue: a longer pause means that nobody was driving.
_LOCAL_PAUSE_S = 120.0


@dataclass
class StageCost:
    """The runs of one stage in one iteration: jobs that finished, and all time (s) with what was lost."""

    finished: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    runs: list[Run] = field(default_factory=list)


@dataclass(frozen=True)
class Phase:
    """Clock time (s) of one phase of an iteration so far, and whether that is all of it."""

    seconds: float
    is_over: bool


@dataclass(frozen=True)
class Timeline:
    """All iterations; clock times are without the pauses in which nobody drove."""

    stages: dict[int, dict[str, StageCost]]
    phases: dict[int, dict[str, Phase]]
    decided: frozenset[int]


def timeline_of(runs: Sequence[Run], now: float) -> Timeline:
    """Sort the runs of a campaign into its iterations."""
    stages: dict[int, dict[str, StageCost]] = {}
    for run in runs:
        stage, iteration, _ = run.job
        if iteration is None or stage not in ORDER:
            continue
        row, took = stages.setdefault(iteration, {}).setdefault(stage, StageCost()), spent(run, now)
        row.runs.append(run)
        row.finished += run.state == FINISHED
        row.wall_s, row.cpu_s, row.gpu_s = row.wall_s + took.wall_s, row.cpu_s + took.cpu_s, row.gpu_s + took.gpu_s
    pauses = _pauses(runs, now)
    phases = {k: _phases(by_stage, pauses, now) for k, by_stage in stages.items()}
    done = frozenset(k for k, by_stage in stages.items() if by_stage.get("decide", StageCost()).finished)
    return Timeline(stages, phases, done)


def _pauses(runs: Sequence[Run], now: float) -> list[tuple[float, float]]:
    """Return the intervals in which nobody drove, as far as it can be told: those of campaigns without Slurm."""
    if any(run.slurm_job for run in runs):
        return []
    at_work = busy(runs, now)
    gaps = ((before[1], after[0]) for before, after in pairwise(at_work))
    return [gap for gap in gaps if gap[1] - gap[0] > _LOCAL_PAUSE_S]


def _phases(stages: dict[str, StageCost], pauses: list[tuple[float, float]], now: float) -> dict[str, Phase]:
    """Return the phases that have begun, by name (see PHASES)."""
    runs = [run for row in stages.values() for run in row.runs]
    last = max(run.began + spent(run, now).wall_s for run in runs)
    label, train, end = (_span(stages.get(stage), now) for stage in (LABEL, TRAIN, ORDER[-1]))
    # Each phase ends where the next begins; one that has not ended lasts until the latest sign of life.
    marks = [
        (min(run.began for run in runs), True),
        (label[0], True),
        (label[1], is_over(stages, LABEL)),
        (train[0], True),
        (train[1], is_over(stages, TRAIN)),
        (end[1], is_over(stages, ORDER[-1])),
    ]
    phases = {}
    for name, (start, has_begun), (stop, is_done) in zip(PHASES, marks, marks[1:], strict=False):
        if start is None or not has_begun:
            continue
        until = last if stop is None or not is_done else stop
        lost = sum(max(0.0, min(until, e) - max(start, b)) for b, e in pauses)
        phases[name] = Phase(max(0.0, until - start - lost), stop is not None and is_done)
    return phases


def _span(row: StageCost | None, now: float) -> tuple[float | None, float | None]:
    """Return when the first run of a stage began and when the last one ended, or how far it is."""
    if row is None:
        return None, None
    return min(run.began for run in row.runs), max(run.began + spent(run, now).wall_s for run in row.runs)


def is_over(stages: Mapping[str, StageCost], stage: str) -> bool:
    """Say whether a stage of an iteration is done: a later one has begun, or its only job has ended."""
    row = stages.get(stage)
    if stage in _ONE_JOB and row is not None and row.finished and not running(row):
        return True
    return any(stages[later].runs for later in ORDER[ORDER.index(stage) + 1 :] if later in stages)


def running(row: StageCost | None) -> list[Run]:
    """Return the runs of a stage that are under way."""
    return [] if row is None else [run for run in row.runs if run.state in (RUNNING, UNSEEN)]
