"""What to do next: one command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dubito.cli.status.problems import OPEN, Problem
from dubito.cli.status.queue import Queue
from dubito.cli.status.situation import PAUSED, Situation, Snakemake


@dataclass(frozen=True)
class Advice:
    """What to do next, and the command in it (None: wait)."""

    words: str
    command: str | None


def advice_of(
    situation: Situation,
    driver: Snakemake | None,
    queue: Queue,
    problems: Sequence[Problem],
    start: str,
    report: Path | None,
    config: str,
) -> Advice:
    """Return what to do next.

    Parameters
    ----------
    start : the command that starts the campaign again
    config : ``--config FILE`` where it is needed
    """
    stuck = [job.slurm_job for job in queue.pending if job.never]
    if stuck:
        command = f"scancel {' '.join(stuck)}"
        return Advice(f"`{command}`, lower what the profile asks for, start again: `{start}`", command)
    held = [job.slurm_job for job in queue.pending if job.held]
    if held:
        return Advice(f"`scontrol release {' '.join(held)}` lets them go", f"scontrol release {' '.join(held)}")
    if situation.state == "orphaned":
        return _orphaned(queue, start)
    if situation.is_running:
        shown = f"; the report so far is {report}" if report else ""
        return Advice(f"wait; `dubito status{config} --watch` follows it{shown}", None)
    return _at_rest(situation, driver, problems, start, report, config)


def _orphaned(queue: Queue, start: str) -> Advice:
    jobs = " ".join(job.slurm_job for job in queue.jobs)
    if jobs:
        return Advice(f"wait until its jobs have ended (or `scancel {jobs}`), then start again: `{start}`", start)
    return Advice(f"`{start}` goes on; it waits for the jobs that still run", start)


def _at_rest(
    situation: Situation,
    driver: Snakemake | None,
    problems: Sequence[Problem],
    start: str,
    report: Path | None,
    config: str,
) -> Advice:
    if situation.state == "unseen" and driver is not None:
        command = f"ssh {driver.host} ps -p {driver.pid}"
        return Advice(f"`{command}` tells whether it lives; if not, start again: `{start}`", command)
    if situation.state == PAUSED:
        command = f"dubito retry{config} && {start}"
        return Advice(f"mend the cause, then `{command}`; labels that are made are kept", command)
    if situation.state in ("failed", "killed", "stopped", "fresh"):
        first = "read the log, mend the cause, then " if _is_failed(problems) else ""
        return Advice(f"{first}`{start}`; finished work is kept", start)
    if report is None:
        return Advice(f"`{start}` writes the report", start)
    return Advice(f"open {report} in a browser", None)


def start_command(driver: Snakemake | None, option: str, on_slurm: bool) -> str:
    """Return the command that starts the campaign again: as the last driver was, else as most are.

    Parameters
    ----------
    option : ``--configfile FILE`` where it is needed
    """
    if driver is not None and driver.command:
        program, _, arguments = driver.command.partition(" ")
        if "snakemake" in program:
            return f"snakemake {arguments}".strip()
    where = "--profile slurm" if on_slurm else "--cores 2"
    return f"snakemake {where}{option}"


def _is_failed(problems: Sequence[Problem]) -> bool:
    return any(problem.kind == "failed" and problem.fate == OPEN for problem in problems)
