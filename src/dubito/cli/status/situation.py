"""In one word and one sentence: where the campaign stands, and who drives it."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dubito.cli.status.files import CampaignFiles
from dubito.cli.status.jobs import FINISHED, RUNNING, UNSEEN, Run
from dubito.cli.status.problems import OPEN, Problem
from dubito.cli.status.queue import Queue
from dubito.cli.status.values import number, text, whole
from dubito.cli.status.words import ago, clock, duration, one_line
from dubito.core.locks import is_alive, process_start

# A driver on another machine that has given no sign for so long may be dead.
SILENCE_S = 3600.0
# The last report is written after the decision to stop.
_WRITING_S = 300.0
PAUSED = "paused"
_AFTER_THE_END = ("write_report", "publish_report")


@dataclass(frozen=True)
class Snakemake:
    """The process that drives; ``alive`` is None where it can't be seen from this machine."""

    pid: int
    host: str
    since: float | None
    alive: bool | None
    command: str


@dataclass(frozen=True)
class Situation:
    """One word for scripts, and the same in words."""

    state: str
    words: str
    reason: str
    is_running: bool


def snakemake_of(files: CampaignFiles) -> Snakemake | None:
    """Return the process that drives, or did when it was killed; None when the last one ended by itself."""
    said = files.snakemake()
    if not said:
        return None
    alive: bool | None = None
    if said["host"] == socket.gethostname():
        known = isinstance(said.get("process_start"), str)
        alive = is_alive(said) if known else process_start(int(said["pid"])) is not None
    command = one_line(text(said.get("command")))
    return Snakemake(int(said["pid"]), text(said["host"]), number(said.get("time")), alive, command)


def decision_of(files: CampaignFiles, runs: Sequence[Run]) -> Mapping[str, Any]:
    """Return what ended or paused the campaign; empty while it goes on (or did, after its limits were raised)."""
    summary = files.summary()
    if summary.get("state") == PAUSED:
        return summary
    begun = max((run.job[1] for run in runs if run.job[1] is not None), default=-1)
    for k in reversed(files.iterations()):
        decision = files.of_iteration(k, "decision.json")
        if decision:
            return decision if decision.get("stop") is True and k >= begun else {}
    # The iterations were moved away.
    last = whole(summary.get("iterations"))
    is_last = last is not None and begun < last
    return summary if is_last and text(summary.get("state")) not in ("", "running") else {}


def situation_of(
    driver: Snakemake | None,
    runs: Sequence[Run],
    queue: Queue,
    problems: Sequence[Problem],
    decision: Mapping[str, Any],
    last_sign: float,
    now: float,
) -> Situation:
    """Judge the signs of life."""
    jobs = [run for run in runs if run.state in (RUNNING, UNSEEN)]
    at_work = [run for run in jobs if run.job[0] not in _AFTER_THE_END]
    alive = driver.alive if driver is not None else False
    ended = text(decision.get("state"))
    reason = one_line(text(decision.get("reason")))
    quiet_s = now - last_sign
    if ended and not at_work and not queue.jobs and not (alive or (alive is None and quiet_s < _WRITING_S)):
        return Situation(ended, ended, reason, False)
    if alive:
        return Situation("running", "running" if runs else "starting", "", True)
    lives = any(run.state == RUNNING for run in jobs) or bool(queue.jobs)
    if alive is None and driver is not None:
        if lives or quiet_s < SILENCE_S:
            words = f"running, as far as can be seen from here (last sign {ago(last_sign, now)})"
            return Situation("running", words, "", True)
        words = f"not running, it seems: no sign from {driver.host} for {duration(quiet_s)}"
        return Situation("unseen", words, "", False)
    if lives or (jobs and quiet_s < SILENCE_S):
        words = "its Snakemake was killed, its jobs go on" if driver else "running, but no Snakemake is known to drive"
        return Situation("orphaned", words, "", True)
    return _stopped(driver, runs, problems, reason)


def _stopped(driver: Snakemake | None, runs: Sequence[Run], problems: Sequence[Problem], reason: str) -> Situation:
    """Say why nothing runs."""
    if driver is not None:
        return Situation("killed", "not running: its Snakemake was killed", reason, False)
    stuck = [problem for problem in problems if problem.fate == OPEN]
    if any(problem.kind == "failed" for problem in stuck):
        return Situation("failed", "not running: stopped by a failed job", reason, False)
    if stuck:
        return Situation("killed", "not running: killed", reason, False)
    if not any(run.state == FINISHED for run in runs):
        return Situation("fresh", "not running: no job has ended yet", reason, False)
    return Situation("stopped", "not running: ended before it was done", reason, False)


def driver_words(driver: Snakemake | None, now: float) -> str:
    """Return what the headline says of the process that drives."""
    if driver is None:
        return ""
    since = "" if driver.since is None else f" since {clock(driver.since, now)} ({duration(now - driver.since)})"
    if driver.alive is False:
        return f"Snakemake (process {driver.pid} on {driver.host}, started {clock(driver.since or 0, now)}) died"
    return f"Snakemake{since}, process {driver.pid} on {driver.host}"
