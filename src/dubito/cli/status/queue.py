"""What Slurm says of the campaign's jobs, asked once, briefly, and never relied on."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dubito.cli.status.reasons import Node, Request, in_words, is_held, minutes_of, needs_nodes
from dubito.cli.status.words import clip, one_line

TIMEOUT_S = 5.0
# id, state, reason, CPUs, memory, time limit, seconds since submission, partition, folder, comment
_FORMAT = "%i|%T|%r|%C|%m|%l|%V|%P|%Z|%k"
_FIELDS = 10
_COMMENT = re.compile(r"rule_(?P<stage>[a-z_]+?)_wildcards_(?P<rest>.*)")
_REST = re.compile(r"(?P<iteration>\d{3})(?:_(?P<part>.*))?")


@dataclass(frozen=True)
class QueuedJob:
    """A job of the campaign in Slurm's queue; ``submitted`` is local time as Slurm prints it."""

    slurm_job: str
    state: str
    reason: str
    words: str
    never: bool
    held: bool
    stage: str
    iteration: int | None
    part: str
    partition: str
    submitted: str


@dataclass(frozen=True)
class Queue:
    """Slurm's answer: whether there is one, why not, all job numbers of the user, the campaign's jobs."""

    answered: bool = False
    problem: str | None = None
    ids: frozenset[str] = frozenset()
    jobs: tuple[QueuedJob, ...] = ()

    @property
    def pending(self) -> list[QueuedJob]:
        """The campaign's jobs that wait."""
        return [job for job in self.jobs if job.state == "PENDING"]


@dataclass
class Asking:
    """A question to Slurm that is answered while other things are read."""

    name: str
    workdir: Path
    owner: str | None = None
    asked: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._queue = Queue(problem=f"squeue gave no answer within {TIMEOUT_S:g} s")
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    @property
    def is_answered(self) -> bool:
        """Whether waiting is over."""
        return not self._thread.is_alive()

    def answer(self, wait_s: float = TIMEOUT_S + 1) -> Queue:
        """Return the answer, or what is the matter, after at most ``wait_s`` seconds."""
        self._thread.join(wait_s)
        return self._queue

    def _ask(self) -> None:
        if shutil.which("squeue") is None:
            self._queue = Queue(problem="squeue is not on this machine")
            return
        try:
            who = ["-u", self.owner] if self.owner else ["--me"]
            said = _run(["squeue", *who, "--noheader", "-o", _FORMAT])
        except subprocess.TimeoutExpired:
            return
        except (OSError, _Refusal) as error:
            self._queue = Queue(problem=f"squeue failed: {_short(str(error))}")
            return
        self._queue = _parse(said, self.name, self.workdir)


def owner_of(folder: Path) -> str | None:
    """Return the user whose campaign it is when that is somebody else (who may look all the same), else None."""
    try:
        about = folder.stat()
        return None if about.st_uid == os.getuid() else pwd.getpwuid(about.st_uid).pw_name
    except (OSError, KeyError):
        return None


def _short(fault: str) -> str:
    """Return the first line of what a command said, without the names of its parts."""
    first = next((line for line in fault.splitlines() if line.strip()), "")
    return clip(one_line(re.sub(r"^(\w+:\s*)?(\w+[ :]+)?error:\s*", "", first)), 200)


class _Refusal(Exception):
    """What a command said when it failed."""


def _run(command: list[str], timeout_s: float = TIMEOUT_S) -> str:
    """Run a command; a process group of its own, so that all of it can be ended and Ctrl-C does not reach it."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        start_new_session=True,
    )  # fmt: skip
    try:
        answer, fault = process.communicate(timeout=timeout_s)
    except BaseException:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode != 0:
        raise _Refusal(fault.strip() or f"exit code {process.returncode}")
    return answer


def _parse(answer: str, name: str, workdir: Path) -> Queue:
    """Return the campaign's jobs: those of its folder whose comment (Snakemake's) names it."""
    ids, rows = set(), []
    for line in answer.splitlines():
        fields = [value.strip() for value in line.split("|", _FIELDS - 1)]
        if len(fields) != _FIELDS:
            continue
        ids.add(fields[0])
        if fields[8] == str(workdir):
            rows.append(fields)
    named = [(row, job) for row in rows if (job := _job(row[9], name)) is not None]
    wanting = any(row[1] == "PENDING" and needs_nodes(row[2]) for row, _ in named)
    nodes = _nodes() if wanting else []
    return Queue(True, None, frozenset(ids), tuple(_queued(row, job, nodes) for row, job in named))


def _job(comment: str, name: str) -> tuple[str, int | None, str] | None:
    """Return stage, iteration and part of a comment such as ``rule_label_structures_wildcards_ammonia_001_004``."""
    found = _COMMENT.fullmatch(comment)
    if found is None or not (found["rest"] == name or found["rest"].startswith(f"{name}_")):
        return None
    rest = found["rest"][len(name) + 1 :]
    inner = _REST.fullmatch(rest)
    if inner is None:
        # Of no iteration: the references. Anything else belongs to a campaign whose name begins alike.
        return (found["stage"], None, rest) if found["stage"].startswith(("prepare_", "publish_")) else None
    return found["stage"], int(inner["iteration"]), inner["part"] or ""


def _queued(row: list[str], job: tuple[str, int | None, str], nodes: list[Node]) -> QueuedJob:
    number, state, reason, cpus, memory, limit, submitted, partition = row[:8]
    request = Request(partition, cpus, memory, limit)
    words, never = in_words(reason, request, nodes) if state == "PENDING" else ("", False)
    held = state == "PENDING" and is_held(reason)
    return QueuedJob(number, state, reason, words, never, held, *job, partition, submitted)


def _nodes() -> list[Node]:
    """Return what the partitions offer; nothing when Slurm does not say."""
    try:
        answer = _run(["sinfo", "--noheader", "--exact", "-o", "%P|%c|%m|%l"])
    except (OSError, subprocess.TimeoutExpired, _Refusal):
        return []
    nodes = []
    for line in answer.splitlines():
        fields = [value.strip() for value in line.split("|")]
        if len(fields) == 4 and fields[1].isdigit() and fields[2].isdigit():
            nodes.append(Node(fields[0].rstrip("*"), int(fields[1]), int(fields[2]), minutes_of(fields[3])))
    return nodes
