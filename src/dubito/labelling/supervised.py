"""Labels made in a child process: what kills the program on one structure costs that structure alone.

Programs of quantum chemistry end in segmentation faults, floating point signals, ``abort`` and plain ``exit``, none of
which Python can catch. The child sends the structure it has in hand before it touches it; when it dies, the parent
records that one as crashed and starts another child for the rest. What was finished is in the label cache.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from dubito.core import interrupt
from dubito.core.errors import EnvironmentFault, MemoryFault
from dubito.core.heartbeat import beat
from dubito.core.logs import get_logger
from dubito.core.supervise import Say, in_child
from dubito.labelling.base import CRASHED
from dubito.labelling.cache import Failure
from dubito.labelling.watch import Watch

log = get_logger(__name__)

# The signals of a program that went wrong on its own. Others come from outside.
CRASHES: Final = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL")


class _Child(Watch):
    """Tells the parent about each structure."""

    def __init__(self, say: Say, forbidden: Mapping[str, Failure], made: set[str]) -> None:
        self.say, self.forbidden, self.made = say, forbidden, made

    def before(self, structure_id: str) -> Failure | None:
        interrupt.check("The labels made so far are in the cache.")
        if structure_id in self.forbidden:
            return self.forbidden[structure_id]
        self.say({"before": structure_id})
        return None

    def after(self, structure_id: str, *, failed: bool, reused: bool) -> bool:
        self.say({"after": structure_id, "failed": failed, "reused": reused})
        # What an earlier child of this job made was not known before the job.
        return reused and structure_id not in self.made


class _Progress:
    """What the parent knows, and shows in the heartbeat."""

    def __init__(self, heartbeat: Path | None, total: int) -> None:
        self.heartbeat, self.total = heartbeat, total
        self.done: set[str] = set()
        self.failed: set[str] = set()
        self.made: set[str] = set()
        self.in_flight: str | None = None
        self.since = time.monotonic()
        self.show()

    def hear(self, message: dict[str, Any]) -> None:
        if "before" in message:
            self.in_flight, self.since = message["before"], time.monotonic()
        else:
            key = message["after"]
            (self.failed if message["failed"] else self.done).add(key)
            if not message["reused"]:
                self.made.add(key)
            self.in_flight = None
        self.show()

    def show(self) -> None:
        if self.heartbeat is not None:
            beat(
                self.heartbeat,
                done=len(self.done),
                failed=len(self.failed),
                of=self.total,
                in_flight=self.in_flight,
                slurm_job=os.environ.get("SLURM_JOB_ID"),
            )


def label_in_child(
    work: Callable[[Watch], Any],
    total: int,
    *,
    heartbeat: Path | None = None,
    hopeless: Mapping[str, str] | None = None,
) -> Any:
    """Run ``work(watch)``, which labels ``total`` structures, in children until one of them gets to the end.

    Parameters
    ----------
    work : makes its labeller itself (a GPU must not be touched before the fork), passes ``watch`` to
        :func:`dubito.labelling.service.label_structures`, and returns JSON
    heartbeat : file that shows the progress and the structure in hand
    hopeless : structures that are not tried, and why

    Returns
    -------
    What ``work`` returned.

    Raises
    ------
    MemoryFault
        When the child was killed with SIGKILL: that is the kernel when memory runs out.
    EnvironmentFault
        When it died with no structure in hand, which no structure is to blame for, or of a signal from outside.
    Exception
        Whatever ``work`` raises, see :func:`dubito.core.supervise.in_child`.
    """
    forbidden = {key: Failure(CRASHED, why, attempts=0) for key, why in (hopeless or {}).items()}
    progress = _Progress(heartbeat, total)
    while True:
        ended = in_child(lambda say: work(_Child(say, forbidden, progress.made)), progress.hear)
        if ended.died_of is None:
            return ended.value
        key, wall = progress.in_flight, time.monotonic() - progress.since
        if key is None or not _is_crash(ended.died_of):
            raise _fault(ended.died_of, key)
        message = f"The program that makes the label ended with {ended.died_of} on this structure."
        log.warning("structure %s: %s The others go on in a new process", key, message)
        forbidden[key] = Failure(CRASHED, message, wall_time_s=wall)
        progress.in_flight = None


def _is_crash(died_of: str) -> bool:
    return died_of in CRASHES or died_of.startswith("exit code")


def _fault(died_of: str, key: str | None) -> EnvironmentFault:
    where = "before or after the labels" if key is None else f"while structure {key} was labelled"
    if died_of == "SIGKILL":
        return MemoryFault(
            f"The labelling process was killed (SIGKILL) {where}. That is what the system does when memory runs out: "
            "give the rule label_structures more mem_mb in the profile and start again (on a cluster the next attempt "
            "asks for more by itself). The labels before it are kept."
        )
    return EnvironmentFault(
        f"The labelling process ended with {died_of} {where}. Look at the log above for what the program said, try "
        "the labeller on one structure (`dubito label`), and start the same command again: finished labels are kept."
    )
