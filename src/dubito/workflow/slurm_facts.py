"""What Slurm knows: how a job ended, and the most that a job may ask for. Everything here only looks.

Only the driver asks: jobs on nodes would ask hundreds of times what one process needs to know.
"""

from __future__ import annotations

import re
import time
from typing import Final

from dubito.core.slurm.asking import minutes, run
from dubito.core.slurm.limits import Job, Kind, Limit, Site, read_site
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
    USUAL_WARNING_MIN,
    nearly_all,
)

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


def ended_as(job: str, warning_min: float = USUAL_WARNING_MIN) -> str | None:
    """Return how a Slurm job ended, or that it is ``alive``; None when Slurm is not here or does not answer.

    ``warning_min`` is how long before its limit the profile has a job warned, minutes.

    A job that Slurm has forgotten (``MinJobAge`` after its end) is ``unknown``. When the kernel kills a process of
    the job step for its memory, the job itself counts as FAILED; the step's exit code 0:125 tells.
    """
    answer = run(["scontrol", "--details", "--oneliner", "show", "job", job], _WAIT_S)
    if answer.rc != 0:
        return UNKNOWN if "Invalid job id" in answer.err + answer.out else None
    names = "JobState|ExitCode|DerivedExitCode|RunTime|TimeLimit|StartTime"
    fields = dict(re.findall(rf"(?:^|\s)({names})=(\S+)", answer.out))
    state = fields.get("JobState")
    if state is None:
        return None
    if state == "FAILED" and _OOM_EXIT in (fields.get("DerivedExitCode"), fields.get("ExitCode")):
        return OUT_OF_MEMORY
    if state == "FAILED" and fields.get("StartTime") == "Unknown":
        return CANCELLED  # it never started: neither memory nor time was wanting
    if state == "FAILED" and _is_near_limit(fields.get("RunTime", ""), fields.get("TimeLimit", ""), warning_min):
        return NEAR_LIMIT
    return _ENDS.get(state, ALIVE)


def _is_near_limit(lasted: str, limit: str, warning_min: float) -> bool:
    """Say whether a job had used up its time but for the minutes that a profile leaves for an orderly end."""
    used, most = minutes(lasted), minutes(limit)
    return used is not None and most is not None and used >= nearly_all(most, warning_min)


class KnownSite:
    """The limits of the cluster and of this user's accounts, asked for once."""

    def __init__(self) -> None:
        self._site: Site | None = None
        self._found: dict[tuple[Kind, Job], Limit | None] = {}
        self._asked = -_AGAIN_S

    def most(self, kind: Kind, job: Job) -> Limit | None:
        """Return the most that a job can get, None where nothing limits it or nothing is known.

        A request beyond it would be refused, or wait for ever, and nobody would be told. Of a partition that does not
        exist nothing is known: the limits of another would be wrong.
        """
        if (kind, job) not in self._found:
            site = self._known()
            if site is None:
                return None
            self._found[kind, job] = site.most(kind, job)
        return self._found[kind, job]

    def _known(self) -> Site | None:
        if self._site is not None:
            return self._site
        if time.monotonic() - self._asked < _AGAIN_S:
            return None
        self._asked = time.monotonic()
        site = read_site(timeout_s=_WAIT_S)
        self._site = site if site.cluster.partitions else None
        return self._site
