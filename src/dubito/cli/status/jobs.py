"""The runs of each job, told from the events: which are under way, which ended and how."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from dubito.cli.status.progress import Event, JobKey
from dubito.cli.status.queue import Queue
from dubito.cli.status.values import amount, number, text, whole
from dubito.core.locks import is_alive, process_start

FINISHED, FAILED, INTERRUPTED, DIED, KILLED = "finished", "failed", "interrupted", "died", "killed"
# Too few labels to go on: nobody's fault, and said by the headline.
PAUSED = "paused"
RUNNING, UNSEEN = "running", "unseen"
LABEL, TRAIN = "label_structures", "train_ensemble"
_ENDS = (FINISHED, FAILED, INTERRUPTED, PAUSED)
# squeue's answer may be older than a job's first words.
_SETTLING_S = 60.0
# Slurm ends a job within this of its time limit (KillWait and OverTimeLimit are minutes at most).
_GRACE_S = 900.0


@dataclass(frozen=True)
class Run:
    """One run of a job: its start, its end (None: it said nothing yet), and what was said in between."""

    start: Event | None
    end: Event | None = None
    resumed: Event | None = None
    died: Event | None = None
    state: str = RUNNING
    # Of one that was killed without a word: when its log or its heartbeat was last written, seconds since 1970.
    last_sign: float | None = None

    @property
    def said(self) -> Event:
        """The event that says most of how it stands."""
        for event in (self.died, self.end, self.start):
            if event is not None:
                return event
        raise ValueError("a run has a start or an end")

    @property
    def job(self) -> JobKey:
        """Which job this is a run of."""
        return self.said.job

    @property
    def title(self) -> str:
        """What the run is called on the screen."""
        return title(*self.job)

    @property
    def began(self) -> float:
        """When it began, seconds since 1970."""
        if self.start is not None:
            return self.start.time
        return self.said.time - amount(self.said.raw.get("wall_s"))

    @property
    def slurm_job(self) -> str:
        """Its number in Slurm; empty where it has none."""
        events = (self.start, self.end, self.died)
        return next((text(e.raw.get("slurm_job")) for e in events if e is not None and e.raw.get("slurm_job")), "")

    @property
    def is_trouble(self) -> bool:
        """Whether it ended without its result."""
        return self.state in (FAILED, INTERRUPTED, DIED, KILLED)

    def value(self, key: str) -> object:
        """Return what its events say under a key."""
        events = (self.start, self.end, self.died)
        return next((e.raw[key] for e in events if e is not None and e.raw.get(key) is not None), None)


def title(stage: str, iteration: int | None, part: str) -> str:
    """Return what a job is called on the screen."""
    where = "" if iteration is None else f", iteration {iteration}"
    return f"{stage} {part}".strip() + where


def runs_of(events: Iterable[Event]) -> list[Run]:
    """Return the runs of all jobs in the order in which they began; those without an end have the state ``running``.

    A run that was followed by another of the same job without having said how it ended was killed.
    """
    runs: list[Run] = []
    latest: dict[JobKey, int] = {}
    for event in events:
        at = latest.get(event.job)
        if event.kind == "started":
            if at is not None and runs[at].state == RUNNING:
                runs[at] = replace(runs[at], state=KILLED)
            latest[event.job] = len(runs)
            runs.append(Run(event))
        elif event.kind == DIED:
            _classify(runs, latest, event)
        elif event.kind in _ENDS:
            if at is not None and runs[at].end is None:
                runs[at] = replace(runs[at], end=event, state=event.kind)
            else:
                latest[event.job] = len(runs)
                runs.append(Run(None, event, state=event.kind))
        elif event.kind == "resumed" and at is not None:
            runs[at] = replace(runs[at], resumed=event)
    return runs


def _classify(runs: list[Run], latest: dict[JobKey, int], event: Event) -> None:
    """Add what the driver found out of a job that ended, perhaps after its next run had begun."""
    number_ = text(event.raw.get("slurm_job"))
    at = latest.get(event.job)
    if number_:
        same = (i for i, run in enumerate(runs) if run.job == event.job and run.slurm_job == number_)
        at = next(same, at if at is not None and not runs[at].slurm_job else None)
    if at is None:  # it never came so far as to say that it started
        latest.setdefault(event.job, len(runs))
        runs.append(Run(None, died=event, state=DIED))
    elif runs[at].state in (RUNNING, KILLED):
        runs[at] = replace(runs[at], died=event, state=DIED)
    elif runs[at].state != FINISHED:
        runs[at] = replace(runs[at], died=event)


def judged(runs: Sequence[Run], queue: Queue, now: float, sign: Callable[[Run], float | None]) -> list[Run]:
    """Return the runs with the state of those without an end: ``running``, ``unseen`` or ``killed``.

    Parameters
    ----------
    sign : returns when the last run of a job gave its last sign of life
    """
    found = []
    for run in runs:
        if run.state == RUNNING:
            state = _liveness(run, queue, now)
            found.append(replace(run, state=state, last_sign=sign(run) if state == KILLED else None))
        else:
            found.append(run)
    return found


def _liveness(run: Run, queue: Queue, now: float) -> str:
    """Say whether a run goes on, as far as that can be seen from this machine."""
    start = run.said.raw
    if start.get("host") == socket.gethostname() and whole(start.get("pid")) is not None:
        return RUNNING if _process_lives(start) else KILLED
    if run.slurm_job and queue.answered:
        if run.slurm_job in queue.ids:
            return RUNNING
        return KILLED if now - run.began > _SETTLING_S else UNSEEN
    limit = number(start.get("runtime_min"))
    if run.slurm_job and limit is not None and now - run.began > 60 * limit + _GRACE_S:
        return KILLED
    return UNSEEN


def _process_lives(start: object) -> bool:
    if not isinstance(start, dict):
        return False
    pid = int(start["pid"])
    if isinstance(start.get("process_start"), str):
        return is_alive(start)
    return process_start(pid) is not None


def latest_runs(runs: Iterable[Run]) -> list[Run]:
    """Return the last run of each job, in the order in which those began."""
    last: dict[JobKey, Run] = {}
    for run in runs:
        last.pop(run.job, None)
        last[run.job] = run
    return list(last.values())
