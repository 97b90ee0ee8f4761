"""Which Slurm job each attempt of a Snakemake job became, or that none did, for as long as the driver lives."""

from __future__ import annotations

import threading
from typing import Any, Final

from dubito.workflow.attempts import Key, key_of

# In place of a number: sbatch did not take the attempt.
REFUSED: Final = ""


class Submissions:
    """What the driver submitted; threads of the Slurm plugin write it, the main thread reads it."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[Key, int], str] = {}
        self._lock = threading.Lock()

    def note(self, job: Any, slurm_job: str | None) -> None:
        """Remember what became of the present attempt of a job of Snakemake, or of each job of a group.

        Parameters
        ----------
        job : as Snakemake gives it to an executor
        slurm_job : its number, None when it was refused
        """
        members = list(job.jobs) if getattr(job, "is_group", bool)() else [job]
        with self._lock:
            for one in members:
                key = key_of(one.rule.name, dict(one.wildcards_dict))
                self._jobs[key, int(one.attempt)] = slurm_job or REFUSED

    def of(self, key: Key, attempt: int) -> str | None:
        """Return the Slurm job of an attempt, ``REFUSED``, or None where nothing is known of it."""
        with self._lock:
            return self._jobs.get((key, attempt))
