"""What a driver knows of its Slurm jobs beyond the plugin: which it waits for, which Slurm has lost, when to look.

The plugin (snakemake-executor-plugin-slurm 2.8.0) drops the jobs of a status cycle in which no query was answered,
waits for ever for a job that Slurm does not list any more, and looks ever more rarely. Here is the book-keeping
that :mod:`dubito.workflow.slurm_guard` hangs into it; it imports no Snakemake.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dubito.core.logs import get_logger
from dubito.workflow.slurm_words import ask, never_starts, plain_state

log = get_logger(__name__)

# A job that this many answered cycles in a row don't list, for at least so many seconds, is looked into.
MISSED_CYCLES: Final = 3
MISSED_SECONDS: Final = {"squeue": 15.0, "sacct": 600.0}  # accounting may lag minutes behind
# The next look comes after this fraction of the age of the youngest job: that much waiting costs a job at most.
SLACK: Final = 0.05
LONGEST_INTERVAL_S: Final = 60.0
# Pending jobs are asked for their reason no more often than this, and only after they have waited so long.
REASONS_EVERY_S: Final = 30.0
REASONS_FROM_S: Final = 5.0
# A scheduler that does not answer is asked again after so many seconds before a job is submitted ...
ASK_AGAIN_S: Final = 5.0
# ... and after so many the submission is tried all the same, and fails with sbatch's own words.
GIVE_UP_AFTER_S: Final = 6 * 3600.0

# A submission for which Slurm has no room is tried again after so many seconds, for as long as it takes.
TRY_AGAIN_S: Final = 15.0

GONE, ALIVE, COMPLETED = "gone", "alive", "completed"


@dataclass
class Waited:
    """One job that the driver waits for; times are seconds since the epoch."""

    info: Any
    since: float
    state: str = ""
    missed: int = 0
    missed_since: float = 0.0


class SlurmWatch:
    """The jobs of one driver.

    Parameters
    ----------
    run : name that all jobs of this driver have in Slurm
    least_s : seconds between two looks, at least
    longest_s : seconds between two looks, at most
    is_requeued : whether Slurm itself starts preempted jobs again
    clock : seconds since the epoch (tests give another one)
    """

    def __init__(
        self,
        run: str,
        *,
        least_s: float,
        longest_s: float = LONGEST_INTERVAL_S,
        is_requeued: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.run = run
        self.stopping = threading.Event()
        self._least, self._longest = least_s, max(least_s, longest_s)
        self._is_requeued = is_requeued
        self._clock = clock
        self._jobs: dict[str, Waited] = {}
        self._lock = threading.Lock()
        self._states: dict[str, str] | None = None
        self._asked = False
        self._tool = "squeue"
        self._out_since: float | None = None
        self._reasons_at = 0.0
        self._named: set[tuple[str, str]] = set()
        self._known: set[str] = set()
        self._refusals: set[str] = set()

    # --- jobs come and go ------------------------------------------------------------------------

    def submitted(self, info: Any) -> None:
        """Begin to wait for a job."""
        if info.external_jobid is not None:
            with self._lock:
                self._known.add(str(info.external_jobid))
                self._jobs[str(info.external_jobid)] = Waited(info, since=self._clock())

    def ended(self, info: Any) -> None:
        """Wait for a job no longer."""
        with self._lock:
            self._jobs.pop(str(info.external_jobid), None)

    def is_waited_for(self, info: Any) -> bool:
        """Say whether a job has not been reported as ended."""
        with self._lock:
            known = self._jobs.get(str(info.external_jobid))
        return known is not None and known.info is info

    def jobs(self) -> list[Any]:
        """Return all jobs that are waited for, also those that a running status cycle holds."""
        with self._lock:
            return [job.info for job in self._jobs.values()]

    def submission_time(self, info: Any) -> float:
        """Return when a job was submitted, infinity when it is not waited for."""
        with self._lock:
            known = self._jobs.get(str(info.external_jobid))
        return known.since if known else float("inf")

    # --- a status cycle --------------------------------------------------------------------------

    def begin_cycle(self) -> None:
        """Forget the answers of the cycle before."""
        self._states, self._asked = None, False

    def answer(self, command: str, states: Mapping[str, str] | None) -> dict[str, str] | None:
        """Take the answer of one query (None: it failed); return it in the words that the plugin expects."""
        self._asked = True
        self._tool = (command.split() or [self._tool])[0]
        if states is None:
            return None
        plain = {job: plain_state(state, is_requeued=self._is_requeued) for job, state in states.items()}
        self._states = {**(self._states or {}), **plain}
        with self._lock:
            for name, job in self._jobs.items():
                if name in plain:
                    job.state, job.missed = plain[name], 0
        return plain

    def note_outage(self) -> None:
        """Say once that Slurm does not answer, and once that it does again."""
        now = self._clock()
        if self._states is not None:
            if self._out_since is not None:
                log.warning("Slurm answers again, after %.0f s; the campaign goes on", now - self._out_since)
            self._out_since = None
        elif self._asked and self._out_since is None:
            self._out_since = now
            log.warning(
                "Slurm does not answer (%s). The %d jobs of this campaign are not forgotten, and it is asked until "
                "it answers: let this driver run. Look yourself with `squeue --me`",
                self._tool, len(self.jobs()),
            )  # fmt: skip

    def missing(self, active: Iterable[Any]) -> list[Any]:
        """Return the jobs that Slurm has not listed for so long that it may not know them any more."""
        if self._states is None:
            return []
        now, found = self._clock(), []
        patience = MISSED_SECONDS.get(self._tool, max(MISSED_SECONDS.values()))
        with self._lock:
            for info in active:
                job = self._jobs.get(str(info.external_jobid))
                if job is None or str(info.external_jobid) in self._states:
                    continue
                job.missed_since = job.missed_since if job.missed else now
                job.missed += 1
                if job.missed >= MISSED_CYCLES and now - job.missed_since >= patience:
                    found.append(info)
        return found

    def next_interval(self) -> float:
        """Return the seconds until the next look."""
        with self._lock:
            ages = [self._clock() - job.since for job in self._jobs.values()]
        return min(self._longest, max(self._least, SLACK * min(ages, default=0.0)))

    # --- questions to Slurm ----------------------------------------------------------------------

    def fate(self, jobid: str) -> str:
        """Ask Slurm what became of one job: ``gone``, ``alive``, ``completed`` or the state in which it ended.

        ``alive`` stands for "it can't be said" as well: a job is given up only on Slurm's own word.
        """
        code, text, error = ask(["squeue", "--noheader", "--states=all", f"--jobs={jobid}", "--format=%i|%j"])
        if code != 0 and "invalid job id" not in error.lower():
            return ALIVE
        if any(line.split("|", 1)[1:] == [self.run] for line in text.splitlines()):
            return ALIVE
        # A number can be given again after Slurm lost its state: the name tells.
        code, text, _ = ask(["sacct", "-X", "-n", "-P", f"--jobs={jobid}", f"--name={self.run}", "--format=State"])
        states = [plain_state(line, is_requeued=False) for line in text.splitlines() if line.strip()]
        if code != 0 or not states:
            return GONE
        if states[-1] == "COMPLETED":
            return COMPLETED
        # Accounting believes a job to run that the controller has lost.
        return GONE if states[-1] in {"RUNNING", "PENDING", "SUSPENDED"} else states[-1]

    def name_stuck_jobs(self) -> list[str]:
        """Warn once of each pending job whose reason does not pass by itself; return the warnings."""
        now = self._clock()
        with self._lock:
            waits = any(j.state in {"", "PENDING"} and now - j.since >= REASONS_FROM_S for j in self._jobs.values())
        if not waits or now - self._reasons_at < REASONS_EVERY_S:
            return []
        self._reasons_at = now
        code, text, _ = ask(["squeue", "--noheader", "--states=PENDING", f"--name={self.run}", "--format=%i|%P|%k|%r"])
        found = []
        for line in text.splitlines() if code == 0 else []:
            job, partition, comment, reason = (line.split("|", 3) + ["", "", ""])[:4]
            remedy = never_starts(reason)
            if remedy is None or (job, reason) in self._named:
                continue
            self._named.add((job, reason))
            found.append(
                f"Slurm job {job} ({comment}, partition {partition}) will not start by itself ({reason}): "
                f"{remedy.format(job=job)}. To start over: scancel {job}"
            )
            log.warning("%s", found[-1])
        return found

    def wait_for_scheduler(self) -> bool:
        """Wait until Slurm answers, so that an outage costs no job an attempt; False when the driver is stopping."""
        end, said = self._clock() + GIVE_UP_AFTER_S, False
        while not self.stopping.is_set():
            code, _, error = ask(["sinfo", "--noheader", "--format=%P"])
            if code == 0 or self._clock() > end:
                return True
            if not said:
                said = True
                log.warning("Slurm takes no jobs (%s); waiting until it does", error)
            self.stopping.wait(ASK_AGAIN_S)
        return False

    def name_refusal(self, words: str) -> None:
        """Say, once for each reason, that a submission waits."""
        with self._lock:
            is_new = words not in self._refusals
            self._refusals.add(words)
        if is_new:
            log.warning(
                "Slurm takes no more jobs for now (%s). They are kept here and submitted as soon as it does, which "
                "costs them no attempt. If that is a limit on submitted jobs, `jobs` in the profile belongs below it",
                words,
            )  # fmt: skip

    def wait_for_room(self) -> None:
        """Wait before a refused submission is tried again; not when the driver is stopping."""
        self.stopping.wait(TRY_AGAIN_S)

    def find(self, comment: str) -> str | None:
        """Return a job of this driver that it does not know, by its comment; "" when there is none, None: no answer."""
        code, text, _ = ask(["squeue", "--noheader", "--states=all", f"--name={self.run}", "--format=%i|%k"])
        if code != 0:
            return None
        listed = [line.partition("|") for line in text.splitlines()]
        with self._lock:
            found = [job.strip() for job, _, said in listed if said == comment and job.strip() not in self._known]
        return found[-1] if found else ""
