"""Makes the Slurm plugin of Snakemake safe to leave alone for weeks.

The plugin (snakemake-executor-plugin-slurm, 2.8.0) loses jobs in situations that any cluster meets: docs/cluster.md
lists them, and tests/slurm provokes each. Its methods are wrapped here, thinly; one that a later version no longer
has costs its guard and a warning, never the campaign.
"""

from __future__ import annotations

import asyncio
import functools
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

from dubito.core.errors import EnvironmentFault
from dubito.core.logs import get_logger
from dubito.core.progress import announce
from dubito.workflow.slurm_bell import sleeper
from dubito.workflow.slurm_site import require_site
from dubito.workflow.slurm_submit import refuser, submitter
from dubito.workflow.slurm_watch import ALIVE, COMPLETED, GONE, LONGEST_INTERVAL_S, SlurmWatch
from dubito.workflow.slurm_words import jobname_prefix
from dubito.workflow.submissions import Submissions

log = get_logger(__name__)

PLUGIN: Final = "snakemake_executor_plugin_slurm"
# Files of a job may carry the time of a server whose clock is behind, seconds.
CLOCK_SKEW_S: Final = 5.0
_WATCH: Final = "_dubito_watch"
_MARK: Final = "_dubito_guarded"


def guard_slurm(campaign: str, submissions: Submissions | None = None) -> bool:
    """Wrap the Slurm plugin, if Snakemake has loaded it, for a driver of ``campaign``; say whether it did.

    Without the Slurm executor in use this changes nothing: what is wrapped is never called. What is submitted is
    noted in ``submissions``.
    """
    plugin = sys.modules.get(PLUGIN)
    executor = getattr(plugin, "Executor", None)
    if plugin is None or executor is None:
        return False
    if getattr(executor, _MARK, False):
        return True
    setattr(executor, _MARK, True)
    current: list[SlurmWatch] = []
    _wrap(executor, "__init__", _initialiser(campaign))
    _wrap(executor, "__post_init__", _beginner(plugin, current))
    _wrap(executor, "check_active_jobs", _checker)
    _wrap(executor, "report_job_submission", _submission(submissions))
    _wrap(executor, "report_job_success", _end)
    _wrap(executor, "report_job_error", _end)
    _wrap(executor, "run_job", submitter(plugin, _watch))
    _wrap(executor, "_report_job_error_threadsafe", refuser(submissions))
    _wrap(executor, "format_job_exec", _quoted)
    _wrap(executor, "cancel_jobs", _canceller)
    _wrap(executor, "shutdown", _shutter)
    _wrap(executor, "sleep", sleeper(campaign, _watch))
    _wrap(plugin, "query_job_status", _query(current))
    return True


def _wrap(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace ``owner.name`` by what ``make`` makes of it."""
    original = getattr(owner, name, None)
    if original is None:
        log.warning(
            "this version of %s has no `%s`: the campaign runs, without the guard that needs it. The tested "
            "version is in envs/requirements-slurm.txt", PLUGIN, name,
        )  # fmt: skip
        return
    setattr(owner, name, functools.wraps(original)(make(original)))


def _watch(executor: Any) -> SlurmWatch | None:
    found: SlurmWatch | None = getattr(executor, _WATCH, None)
    return found


# --- start and end ----------------------------------------------------------------------------------


def _initialiser(campaign: str) -> Callable[[Any], Any]:
    """Refuse a site that can't work, and give the jobs a name that a person can read."""

    def make(original: Any) -> Any:
        def __init__(self: Any, workflow: Any, logger: Any) -> None:  # noqa: N807
            try:
                require_site(workflow)
            except EnvironmentFault as fault:
                announce(f"dubito: {fault}")
                sys.exit(fault.exit_code)
            settings = workflow.executor_settings
            if hasattr(settings, "jobname_prefix"):
                settings.jobname_prefix = jobname_prefix(campaign)
            original(self, workflow, logger)

        return __init__

    return make


def _beginner(plugin: Any, current: list[SlurmWatch]) -> Callable[[Any], Any]:
    """Begin to watch once the plugin has named its run."""

    def make(original: Any) -> Any:
        def __post_init__(self: Any, *arguments: Any, **more: Any) -> None:  # noqa: N807
            original(self, *arguments, **more)
            if hasattr(self, "_fallback_account_arg"):
                # Else it guesses an account by a command that can't work, and says so twice.
                self._fallback_account_arg = ""
            settings = self.workflow.executor_settings
            kept = getattr(plugin, "get_min_job_age", lambda: None)()
            watch = SlurmWatch(
                str(getattr(self, "run_uuid", "")),
                least_s=float(getattr(settings, "init_seconds_before_status_checks", None) or 40),
                # squeue shows ended jobs for MinJobAge seconds.
                longest_s=min(LONGEST_INTERVAL_S, kept / 3 if kept else LONGEST_INTERVAL_S),
                is_requeued=not getattr(settings, "no_requeue", False),
            )
            setattr(self, _WATCH, watch)
            current[:] = [watch]

        return __post_init__

    return make


def _canceller(original: Any) -> Any:
    """Cancel all jobs: while it asks for their states, Snakemake's list of them is empty."""

    def cancel_jobs(self: Any, active_jobs: list[Any]) -> Any:
        watch = _watch(self)
        if watch is None:
            return original(self, active_jobs)
        watch.stopping.set()
        known = {id(info): info for info in [*active_jobs, *watch.jobs()]}
        return original(self, list(known.values()))

    return cancel_jobs


def _shutter(original: Any) -> Any:
    """Let no submission wait for a scheduler any more."""

    def shutdown(self: Any) -> Any:
        watch = _watch(self)
        if watch is not None:
            watch.stopping.set()
        return original(self)

    return shutdown


# --- jobs come and go -------------------------------------------------------------------------------


def _submission(submissions: Submissions | None) -> Callable[[Any], Any]:
    """Wait for a job from before the plugin knows it: from then on a status cycle may find it."""

    def make(original: Any) -> Any:
        def report_job_submission(self: Any, job_info: Any, *arguments: Any, **more: Any) -> Any:
            watch = _watch(self)
            if watch is not None:
                watch.submitted(job_info)
            if submissions is not None and job_info.external_jobid is not None:
                submissions.note(job_info.job, str(job_info.external_jobid))
            return original(self, job_info, *arguments, **more)

        return report_job_submission

    return make


def _quoted(original: Any) -> Any:
    """Keep what a shell expands in paths: the plugin puts the command between double quotes for it."""

    def format_job_exec(self: Any, job: Any) -> str:
        command = str(original(self, job))
        if getattr(self.workflow.executor_settings, "pass_command_as_script", False) or getattr(self, "array_jobs", ()):
            return command
        return re.sub(r"([\\$`])", r"\\\1", command)

    return format_job_exec


def _end(original: Any) -> Any:
    def report_job_end(self: Any, job_info: Any, *arguments: Any, **more: Any) -> Any:
        watch = _watch(self)
        if watch is not None:
            watch.ended(job_info)
        return original(self, job_info, *arguments, **more)

    return report_job_end


# --- status -----------------------------------------------------------------------------------------


def _query(current: list[SlurmWatch]) -> Callable[[Any], Any]:
    """Note whether a query was answered, and tell its states in the words that the plugin compares with."""

    def make(original: Any) -> Any:
        async def query_job_status(command: str, logger: Any) -> Any:
            states, seconds = await original(command, logger)
            if not current:
                return states, seconds
            return current[0].answer(command, states), seconds

        return query_job_status

    return make


def _checker(original: Any) -> Any:
    """Forget no job, give up those that Slurm has forgotten, and look again soon."""

    async def check_active_jobs(self: Any, active_jobs: list[Any]) -> AsyncIterator[Any]:
        watch = _watch(self)
        if watch is None:
            async for info in original(self, active_jobs):
                yield info
            return
        watch.begin_cycle()
        kept: set[int] = set()
        try:
            async for info in original(self, active_jobs):
                kept.add(id(info))
        except Exception as error:
            log.warning("the Slurm plugin failed to look after the jobs (%r); trying again", error)
        waited = [info for info in active_jobs if id(info) in kept or watch.is_waited_for(info)]
        watch.note_outage()
        lost = {id(info) for info in watch.missing(waited)}
        for info in waited:
            if id(info) not in lost or not await _give_up(self, watch, info):
                yield info
        await asyncio.to_thread(watch.name_stuck_jobs)
        self.next_seconds_between_status_checks = watch.next_interval()

    return check_active_jobs


async def _give_up(executor: Any, watch: SlurmWatch, info: Any) -> bool:
    """Report a job that Slurm does not list any more; False when it is to be waited for all the same."""
    jobid = str(info.external_jobid)
    fate = await asyncio.to_thread(watch.fate, jobid)
    if fate == ALIVE:
        return False
    if fate == COMPLETED or (fate == GONE and await _has_finished(executor, watch, info)):
        log.warning("Slurm does not list job %s any more; its files are complete, so it succeeded", jobid)
        executor.report_job_success(info)
        return True
    log.warning("Slurm does not list job %s any more (%s); it is started again", jobid, fate)
    logs = info.aux.get("slurm_logfile") if isinstance(info.aux, dict) else None
    message = f"Slurm does not know job {jobid} any more ({fate}); its work is taken up again. "
    executor.report_job_error(info, msg=message, aux_logs=[str(logs)] if logs else [])
    return True


async def _has_finished(executor: Any, watch: SlurmWatch, info: Any) -> bool:
    """Say whether a job wrote all its files: newer than its submission, and no longer marked as incomplete."""
    since = watch.submission_time(info) - CLOCK_SKEW_S
    try:
        outputs = [Path(str(name)) for name in info.job.output]
        if not outputs or not all(path.exists() and path.stat().st_mtime >= since for path in outputs):
            return False
        return not await executor.workflow.persistence.incomplete(info.job)
    except Exception as error:
        log.warning("can't say whether Slurm job %s had finished: %s", info.external_jobid, error)
        return False
