"""A submission that Slurm refuses for now waits and costs no attempt; one that was taken all the same is found.

The plugin (snakemake-executor-plugin-slurm 2.8.0) reports each refusal of sbatch as a failure of the job, and so uses
up all its attempts in seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from dubito.core.logs import get_logger
from dubito.workflow.slurm_watch import SlurmWatch
from dubito.workflow.slurm_words import no_answer, no_room
from dubito.workflow.submissions import Submissions

log = get_logger(__name__)

Watch = Callable[[Any], SlurmWatch | None]


class _Refusal(threading.local):
    """What sbatch said to the submission of this thread."""

    in_hand: Any = None
    words: str = ""


_REFUSAL = _Refusal()


def submitter(plugin: Any, watch_of: Watch) -> Callable[[Any], Any]:
    """Wait with a submission while Slurm is away or has no room; submit nothing more once the driver is stopping."""

    def make(original: Any) -> Any:
        def run_job(self: Any, job: Any) -> Any:
            watch = watch_of(self)
            if watch is None:
                return original(self, job)
            unsure = False
            while watch.wait_for_scheduler():
                if unsure:
                    taken = watch.find(comment_of(plugin, job))
                    if taken is None:  # Slurm was asked, and did not answer
                        watch.wait_for_room()
                        continue
                    if taken:
                        return _adopt(plugin, self, job, taken)
                words = _try(original, self, job)
                if not words:
                    return None
                unsure = no_answer(words) is not None
                watch.name_refusal(no_room(words) or no_answer(words) or words)
                watch.wait_for_room()
            return None

        return run_job

    return make


def _try(original: Any, executor: Any, job: Any) -> str:
    """Submit once; return what sbatch said where waiting helps, nothing where it took the job or never will."""
    _REFUSAL.in_hand, _REFUSAL.words = job, ""
    try:
        original(executor, job)
    finally:
        _REFUSAL.in_hand = None
    return _REFUSAL.words


def refuser(submissions: Submissions | None) -> Callable[[Any], Any]:
    """Keep from Snakemake what passes; note what does not, which says nothing about memory or time."""

    def make(original: Any) -> Any:
        def report(self: Any, job_info: Any, msg: str = "", *arguments: Any, **more: Any) -> Any:
            mine = _REFUSAL.in_hand is not None and job_info.job is _REFUSAL.in_hand
            if mine and (no_room(_said(msg)) or no_answer(_said(msg))):
                _REFUSAL.words = _said(msg)
                return None
            if mine and submissions is not None:
                submissions.note(job_info.job, None)
            return original(self, job_info, msg, *arguments, **more)

        return report

    return make


def _said(message: str) -> str:
    """Return the words of sbatch; the command line follows in the plugin's message, and may hold anything."""
    return message.partition("sbatch call:")[0]


def comment_of(plugin: Any, job: Any) -> str:
    """Return the comment that the plugin gives to a job in Slurm, the same in each attempt."""
    wildcards = plugin.get_job_wildcards(job)
    return f"rule_{job.name}" + (f"_wildcards_{wildcards}" if wildcards else "")


def _adopt(plugin: Any, executor: Any, job: Any, taken: str) -> None:
    """Go on with a job that Slurm took though sbatch was not told so."""
    log.warning("sbatch had no answer, but Slurm took the job all the same, as %s; it is not submitted twice", taken)
    folder = f"group_{job.name}" if job.is_group() else f"rule_{job.name}"
    path = executor.slurm_logdir / folder / plugin.get_job_wildcards(job) / f"{taken}.log"
    info = plugin.SubmittedJobInfo(job, external_jobid=taken, aux={"slurm_logfile": path})
    executor._report_job_submission_threadsafe(info)
