"""Jobs that ended without their result: how, why, where to read on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dubito.cli.status.cost import spent
from dubito.cli.status.jobs import DIED, FAILED, FINISHED, INTERRUPTED, KILLED, RUNNING, UNSEEN, Run, latest_runs
from dubito.cli.status.values import number, text
from dubito.cli.status.words import duration, one_line

SLURM_LOGS = Path("results", "slurm_logs")
_DIED = {
    "out_of_memory": "out of memory",
    "timeout": "ran out of its time limit",
    "node_fail": "its node failed",
    "cancelled": "was cancelled (scancel)",
    "unknown": "ended without a word",
}
# What is not over: stands as it is, runs again, was made good.
OPEN, AGAIN, OVER = "open", "runs_again", "over"


@dataclass(frozen=True)
class Problem:
    """A run without result; ``fate`` says whether the job is ``open``, ``runs_again`` or is ``over``."""

    kind: str
    stage: str
    iteration: int | None
    part: str
    title: str
    time: float
    after_s: float | None
    cause: str
    fate: str
    log: str | None
    slurm_job: str
    slurm_log: str | None


def problems_of(runs: Sequence[Run], workdir: Path, now: float) -> list[Problem]:
    """Return the runs that ended without result, the oldest first."""
    last = {run.job: run for run in latest_runs(runs)}
    decided = [(run.job[1], run.said.time) for run in runs if run.job[0] == "decide" and run.state == FINISHED]
    troubles = [run for run in runs if run.is_trouble]
    return [_problem(run, _fate(run, last[run.job], decided), workdir, now) for run in troubles]


def _fate(run: Run, last: Run, decided: list[tuple[int | None, float]]) -> str:
    # The campaign went past it: what this job was for is no longer wanted.
    iteration = -1 if run.job[1] is None else run.job[1]
    if any(k is not None and k >= iteration and when > last.said.time for k, when in decided):
        return OVER
    if last.state in (RUNNING, UNSEEN):
        return AGAIN
    return OPEN if run is last else OVER


def _problem(run: Run, fate: str, workdir: Path, now: float) -> Problem:
    took = spent(run, now)
    stage, iteration, part = run.job
    return Problem(
        kind=KILLED if run.state == DIED and run.died is None else run.state,
        stage=stage,
        iteration=iteration,
        part=part,
        title=run.title,
        time=run.said.time if run.last_sign is None else run.last_sign,
        after_s=took.wall_s if took.is_known else None,
        cause=cause_of(run),
        fate=fate,
        log=text(run.value("log")) or None,
        slurm_job=run.slurm_job,
        slurm_log=_slurm_log(run, workdir) if fate != OVER else None,
    )


def cause_of(run: Run) -> str:
    """Say in one line why a run ended."""
    said = run.end.raw if run.end is not None else {}
    words = one_line(text(said.get("error")) or text(said.get("reason")))
    if run.state == INTERRUPTED:
        return words or f"{text(said.get('signal')) or 'a signal'} asked it to stop; its state is kept"
    if run.died is not None:
        reason = text(run.died.raw.get("reason")) or "unknown"
        found = _DIED.get(reason, one_line(reason)) + _asked(run, reason)
        return f"{words} ({found})" if run.state == FAILED and words else found
    if run.state == KILLED:
        return "ended without a word (kill -9, out of memory, a lost node)"
    return words or "no reason was recorded"


def _asked(run: Run, reason: str) -> str:
    """Say what a job had that it ran out of."""
    memory, minutes = number(run.value("mem_mb")), number(run.value("runtime_min"))
    if reason == "out_of_memory" and memory is not None:
        return f" (it had {memory:.0f} MB)"
    if reason == "timeout" and minutes is not None:
        return f" ({duration(60 * minutes)})"
    return ""


def _slurm_log(run: Run, workdir: Path) -> str | None:
    """Return what Slurm kept of a job's output, if it is where the profile puts it."""
    if not run.slurm_job.replace("_", "").isdigit():
        return None
    folder = workdir / SLURM_LOGS / f"rule_{run.job[0]}"
    try:
        found = next(iter(sorted(folder.glob(f"*/{run.slurm_job}.log"))), None)
    except OSError:
        return None
    return None if found is None else str(found.relative_to(workdir))
