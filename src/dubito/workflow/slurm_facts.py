"""What Slurm knows: how a job ended, and the most that a job may ask for. Everything here only looks.

Only the driver asks: jobs on nodes would ask hundreds of times what one process needs to know.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dubito.core.logs import get_logger
from dubito.workflow.attempts import (
    ALIVE,
    CANCELLED,
    COMPLETED,
    ENDING,
    NEAR_LIMIT,
    NODE_FAIL,
    OUT_OF_MEMORY,
    TIMEOUT,
    UNKNOWN,
    nearly_all,
)

log = get_logger(__name__)

# Job states of squeue(1) that are an end, and what they mean here. DEADLINE is a time limit of another kind.
_ENDS: Final = {
    "COMPLETED": COMPLETED,
    "COMPLETING": ENDING,
    "OUT_OF_MEMORY": OUT_OF_MEMORY,
    "TIMEOUT": TIMEOUT,
    "DEADLINE": TIMEOUT,
    "NODE_FAIL": NODE_FAIL,
    "BOOT_FAIL": NODE_FAIL,
    "CANCELLED": CANCELLED,
    "PREEMPTED": CANCELLED,
    "REVOKED": CANCELLED,
    "FAILED": UNKNOWN,
}
_OOM_EXIT: Final = "0:125"
_WAIT_S: Final = 20.0
# After a question without an answer the next is asked no sooner.
_AGAIN_S: Final = 60.0


def ended_as(job: str) -> str | None:
    """Return how a Slurm job ended, or that it is ``alive``; None when Slurm is not here or does not answer.

    A job that Slurm has forgotten (``MinJobAge`` after its end) is ``unknown``. When the kernel kills a process of
    the job step for its memory, the job itself counts as FAILED; the step's exit code 0:125 tells.
    """
    done = _ask(["scontrol", "--details", "--oneliner", "show", "job", job])
    if done is None:
        return None
    if done.returncode:
        return UNKNOWN if "Invalid job id" in done.stderr + done.stdout else None
    names = "JobState|ExitCode|DerivedExitCode|RunTime|TimeLimit"
    fields = dict(re.findall(rf"(?:^|\s)({names})=(\S+)", done.stdout))
    state = fields.get("JobState")
    if state is None:
        return None
    if state == "FAILED" and _OOM_EXIT in (fields.get("DerivedExitCode"), fields.get("ExitCode")):
        return OUT_OF_MEMORY
    if state == "FAILED" and _is_near_limit(fields.get("RunTime", ""), fields.get("TimeLimit", "")):
        return NEAR_LIMIT
    return _ENDS.get(state, ALIVE)


def _is_near_limit(lasted: str, limit: str) -> bool:
    """Say whether a job had used up its time but for the minutes that a profile leaves for an orderly end."""
    minutes, most = minutes_of(lasted), minutes_of(limit)
    return minutes is not None and most is not None and minutes >= nearly_all(most)


@dataclass(frozen=True)
class Limits:
    """The most that a job in a partition can get; None: as much as it likes, or not known."""

    mem_mb: int | None = None
    runtime_min: int | None = None

    def wider(self, other: Limits) -> Limits:
        """Return what fits one of two partitions."""
        return Limits(_most(self.mem_mb, other.mem_mb), _most(self.runtime_min, other.runtime_min))


class Partitions:
    """The limits of the cluster's partitions, asked for once."""

    def __init__(self) -> None:
        self._known: dict[str, Limits] | None = None
        self._default = ""
        self._asked = -_AGAIN_S

    def limits(self, partition: str | None) -> Limits:
        """Return the limits of a partition (several by commas: of the most generous), else of the default one.

        A request beyond them would wait for ever, and nobody would be told.
        """
        known = self._all()
        names = [name for name in (partition or "").split(",") if name in known] or [self._default]
        found = [known[name] for name in names if name in known]
        if not found:
            return Limits()
        widest = found[0]
        for one in found[1:]:
            widest = widest.wider(one)
        return widest

    def _all(self) -> dict[str, Limits]:
        if self._known is not None:
            return self._known
        if time.monotonic() - self._asked < _AGAIN_S:
            return {}
        self._asked = time.monotonic()
        done = _ask(["sinfo", "--noheader", "--exact", "--format=%P|%l|%m"])
        if done is None or done.returncode:
            return {}
        self._default, self._known = parse_partitions(done.stdout)
        return self._known


def parse_partitions(text: str) -> tuple[str, dict[str, Limits]]:
    """Read ``sinfo --format=%P|%l|%m``: return the default partition, and the limits of each over its nodes."""
    default, found = "", dict[str, Limits]()
    for line in text.splitlines():
        name, _, rest = line.strip().partition("|")
        limit, _, memory = rest.partition("|")
        if name.endswith("*"):
            name = default = name.rstrip("*")
        number = re.match(r"\d+", memory)
        one = Limits(int(number.group()) if number else None, minutes_of(limit))
        found[name] = found[name].wider(one) if name in found else one
    return default, found


def minutes_of(text: str) -> int | None:
    """Return a time of Slurm (``days-hours:minutes:seconds``, any of it) in whole minutes; None: without limit."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if match is None:
        return None
    days, first, second, third = (None if part is None else int(part) for part in match.groups())
    if days is not None:  # days-hours[:minutes[:seconds]]
        return days * 1440 + (first or 0) * 60 + (second or 0)
    if third is not None:  # hours:minutes:seconds
        return (first or 0) * 60 + (second or 0)
    return first  # minutes[:seconds]


def _most(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)


def _ask(command: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(list(command), capture_output=True, text=True, timeout=_WAIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.debug("%s: %s", command[0], error)
        return None
