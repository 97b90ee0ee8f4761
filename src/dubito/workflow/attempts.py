"""How earlier attempts of a job ended, and how much more the next one is given.

On a cluster a job may end without a word: out of memory, out of time, with its node. The driver, before it starts
the job again, asks Slurm, writes the answer to the campaign's progress file as an event ``died``, and doubles what
was missing. Because the answer is in the file, a driver that was itself killed and started anew does not repeat an
attempt that is known to be too small. Jobs on nodes read the file and ask nobody.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from dubito.core.heartbeat import labelling_heartbeat, last_beat
from dubito.core.progress import event_of, record

if TYPE_CHECKING:
    from dubito.workflow.submissions import Submissions

OUT_OF_MEMORY: Final = "out_of_memory"
TIMEOUT: Final = "timeout"
NODE_FAIL: Final = "node_fail"
CANCELLED: Final = "cancelled"
UNKNOWN: Final = "unknown"
# Of a job that has not died, or whose end Slurm is still busy with.
ALIVE: Final = "alive"
ENDING: Final = "ending"
COMPLETED: Final = "completed"
# Of a job that failed shortly before its time limit, where a profile has it warned (sbatch --signal).
NEAR_LIMIT: Final = "near_limit"

# How a job on a node hears from Snakemake which attempt it is.
ATTEMPT_VARIABLE: Final = "DUBITO_ATTEMPT"

Need = Literal["memory", "time"]
Key = tuple[str, int | None, str]

_RAISES: Final[dict[Need, frozenset[str]]] = {
    "memory": frozenset({OUT_OF_MEMORY, UNKNOWN}),
    "time": frozenset({TIMEOUT, NEAR_LIMIT, UNKNOWN}),
}
# Ends of jobs that never said that they began which have a known cause.
_OTHERWISE: Final = frozenset({OUT_OF_MEMORY, TIMEOUT, NEAR_LIMIT, NODE_FAIL, CANCELLED, COMPLETED})
# Doubling goes on no further: by then it is not the amount that is wrong.
_MOST_DOUBLINGS: Final = 6
# Wildcards that tell jobs of one rule and iteration apart.
_PARTS: Final = ("shard", "job", "group", "method", "profile")
# For as long as this an answer that a job still lives, or no answer, is good enough.
_STALE_S: Final = 10.0
# For how long the end of a job is waited for that Slurm is still busy with.
_ENDING_S: Final = 5.0
# A job is warned so long before its time limit (sbatch --signal) unless its profile says a longer time, minutes.
USUAL_WARNING_MIN: Final = 5.0


def part_of(wildcards: Mapping[str, Any]) -> str:
    """Return what tells a job apart from others of its rule and iteration, e.g. the number of its shard."""
    return "_".join(str(wildcards[key]) for key in _PARTS if key in wildcards)


def nearly_all(limit_min: float, warning_min: float = USUAL_WARNING_MIN) -> float:
    """Return the minutes after which the end of a job has to do with its time limit."""
    return max(limit_min - warning_min, 0.5 * limit_min)


def key_of(stage: str, wildcards: Mapping[str, Any]) -> Key:
    """Return stage, iteration and part, under which the progress file knows a job."""
    return stage, int(wildcards["iteration"]) if "iteration" in wildcards else None, part_of(wildcards)


@dataclass
class _Past:
    """What is known of one job since it last finished."""

    open: dict[str, Any] | None = None  # its last start, while nothing says how that ended
    interrupted: dict[str, Any] | None = None  # the job's own word that it was asked to stop
    reasons: list[str] = field(default_factory=list)
    before: int = 0  # how many of these an earlier driver saw


class Attempts:
    """The earlier attempts of a campaign's jobs.

    Parameters
    ----------
    folder : the campaign's folder
    ask : says how a Slurm job ended (:func:`dubito.workflow.slurm_facts.ended_as`), None where it can't be told;
        None itself: ask nobody and write nothing
    submissions : what this driver submitted; None where that is not known
    warning_min : how long before its time limit the profile has a job warned, minutes
    """

    def __init__(
        self,
        folder: Path,
        ask: Callable[[str], str | None] | None,
        submissions: Submissions | None = None,
        warning_min: float = USUAL_WARNING_MIN,
    ) -> None:
        self.warning_min = warning_min
        self.folder, self.path, self.ask = folder, folder / "progress.jsonl", ask
        self.submissions = submissions
        self._jobs: dict[Key, _Past] = {}
        self._began: set[str] = set()
        self._offset = 0
        self._asked: dict[str, tuple[float, str | None]] = {}
        self._told: set[tuple[Key, str]] = set()

    def doublings(self, need: Need, key: Key, attempt: int) -> int:
        """Return how often the request for memory or time is doubled in this attempt of a job.

        Once for each earlier death that is owed to its lack, or to an unknown cause. Attempts of this driver that
        left no trace at all (dead before they began) have an unknown cause too, unless they were never submitted, or
        Slurm says that something else ended them: a job cancelled in the queue needs no more memory.
        """
        self._read_on()
        past = self._jobs.get(key, _Past())
        if self.ask is not None and past.open is not None:
            self._classify(key, past)
        if attempt == 1:
            past.before = len(past.reasons)
        untold = max(0, attempt - 1 - (len(past.reasons) - past.before))
        spared = sum(self._needs_no_more(need, key, one) for one in range(1, attempt)) if untold else 0
        owed = sum(reason in _RAISES[need] for reason in past.reasons)
        return min(owed + max(0, untold - spared), _MOST_DOUBLINGS)

    def _needs_no_more(self, need: Need, key: Key, attempt: int) -> bool:
        """Say whether an attempt that left no trace ended for another reason than a want of memory or time."""
        job = self.submissions.of(key, attempt) if self.submissions is not None else None
        if job is None or job in self._began:
            return False
        # An empty one was refused by sbatch.
        return not job or self._answer(job) in _OTHERWISE - _RAISES[need]

    # --- reading ----------------------------------------------------------------------------------

    def _read_on(self) -> None:
        """Take in what the progress file has got since the last time."""
        try:
            size = self.path.stat().st_size
            if size < self._offset:  # another file
                self._jobs, self._offset = {}, 0
            if size == self._offset:
                return
            with self.path.open("rb") as handle:
                handle.seek(self._offset)
                text = handle.read()
        except OSError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            event = event_of(line)
            if event is not None:
                self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        key = (str(event.get("stage")), event.get("iteration"), str(event.get("part", "")))
        kind = event.get("event")
        if kind == "started":
            past = self._jobs.setdefault(key, _Past())
            past.open, past.interrupted = event, None
            self._began.add(str(event.get("slurm_job")))
            return
        past_or_none = self._jobs.get(key)
        if past_or_none is None:
            return
        past = past_or_none
        if kind == "finished":
            self._jobs[key] = _Past()
        elif kind == "interrupted":
            past.interrupted = event
        elif kind == "failed":
            past.open = None
            past.reasons.append(str(event.get("reason", "error")))
        elif kind == "paused":
            past.open = None
        elif kind == "died" and (key, str(event.get("slurm_job"))) not in self._told:
            self._bury(past, str(event.get("reason", UNKNOWN)), str(event.get("slurm_job")))

    @staticmethod
    def _bury(past: _Past, reason: str, slurm_job: str) -> None:
        past.reasons.append(reason)
        if past.open is not None and str(past.open.get("slurm_job")) == slurm_job:
            past.open, past.interrupted = None, None

    # --- asking -----------------------------------------------------------------------------------

    def _classify(self, key: Key, past: _Past) -> None:
        """Find out how the last attempt ended, if it has, and write it down."""
        job = past.open.get("slurm_job") if past.open else None
        if job is None or job == os.environ.get("SLURM_JOB_ID"):
            return  # it ran beside the driver, whose end is no matter of memory or time limits
        answer = self._answer(str(job))
        if answer in (None, ALIVE, ENDING):
            return
        if answer == COMPLETED:
            past.open = None
            return
        reason = _judged(answer, past, self.warning_min)
        stage, iteration, part = key
        self._told.add((key, str(job)))
        record(
            self.path,
            event="died",
            stage=stage,
            iteration=iteration,
            part=part,
            reason=reason,
            slurm_job=str(job),
            log=past.open.get("log") if past.open else None,
            # Only the limit itself says something about the structure in hand.
            in_flight=self._in_flight(key, str(job)) if answer == TIMEOUT else None,
        )
        self._bury(past, reason, str(job))

    def _answer(self, job: str) -> str | None:
        asked = self._asked.get(job)
        if self.ask is None or (asked is not None and not _is_stale(*asked)):
            return None if asked is None else asked[1]
        answer, until = self.ask(job), time.monotonic() + _ENDING_S
        while answer == ENDING and time.monotonic() < until:
            time.sleep(0.2)
            answer = self.ask(job)
        self._asked[job] = (time.monotonic(), answer)
        return answer

    def _in_flight(self, key: Key, job: str) -> str | None:
        """Return the structure that a labelling job had in hand when it died."""
        stage, iteration, part = key
        if stage != "label_structures" or iteration is None or not part.isdigit():
            return None
        beat = last_beat(labelling_heartbeat(self.folder, iteration, int(part)))
        return beat.get("in_flight") if beat and beat.get("slurm_job") == job else None


def _is_stale(when: float, answer: str | None) -> bool:
    return answer in (None, ALIVE, ENDING) and time.monotonic() - when > _STALE_S


def _judged(answer: str, past: _Past, warning_min: float) -> str:
    """Return why a job died: what Slurm says, and where it says nothing, what the job said of its end."""
    if answer == NEAR_LIMIT:
        return TIMEOUT
    if answer != UNKNOWN or past.interrupted is None or past.open is None:
        return answer
    if past.interrupted.get("signal") == "SIGUSR1":
        return TIMEOUT  # sbatch --signal sends it ahead of the limit
    lasted, limit = (past.interrupted["time"] - past.open["time"]) / 60, past.open.get("runtime_min")
    return TIMEOUT if limit and lasted >= nearly_all(limit, warning_min) else CANCELLED
