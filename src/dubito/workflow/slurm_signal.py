"""The warning before the time limit, passed on to the process that does the work.

``sbatch --signal=TERM@180`` reaches, where Slurm tracks processes by cgroups, only the processes that srun started:
the Snakemake of the job, which takes SIGTERM for "finish what runs, begin nothing new" and tells nobody. The stage
below it would go on until it is killed, and lose what it has not saved. So each job's Snakemake passes the signal on.
"""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path
from typing import Any, Final

from dubito.core.logs import get_logger

log = get_logger(__name__)

SIGNALS: Final = (signal.SIGTERM, signal.SIGUSR1)
# srun catches the signal too, and would end the job step at once.
_NOT_TO: Final = frozenset({"srun"})
_MARK: Final = "_dubito_passes_on"


def pass_signals_on() -> None:
    """Make this process, the Snakemake of a Slurm job, pass SIGTERM and SIGUSR1 on to what it runs."""
    if "SLURM_JOB_ID" not in os.environ:
        return
    try:
        # It would end this Snakemake, and with it the job.
        signal.signal(signal.SIGUSR1, lambda number, frame: _pass_on(number))
    except ValueError:
        return  # not the main thread: nothing can be set here
    try:
        from snakemake.scheduling.job_scheduler import JobScheduler

        if not getattr(JobScheduler, _MARK, False):
            JobScheduler.exit_gracefully = _also(JobScheduler.exit_gracefully)
            setattr(JobScheduler, _MARK, True)
    except (ImportError, AttributeError) as error:
        log.warning("this Snakemake can't be taught to pass SIGTERM on (%s): jobs are not warned of their end", error)


def _also(original: Any) -> Any:
    """Return a handler that passes the signal on and then does what Snakemake does."""

    @functools.wraps(original)
    def exit_gracefully(self: Any, *arguments: Any) -> Any:
        _pass_on(signal.SIGTERM)
        return original(self, *arguments)

    return exit_gracefully


def _pass_on(number: int) -> None:
    for pid in listeners(os.getpid(), number):
        try:
            os.kill(pid, number)
        except OSError:
            continue


def listeners(parent: int, number: int) -> list[int]:
    """Return the descendants of a process that catch a signal: the others would only die sooner than they must."""
    parents: dict[int, list[int]] = {}
    catching: set[int] = set()
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.partition(":")[::2] for line in path.read_text().splitlines())
            pid = int(path.parent.name)
            parents.setdefault(int(lines["PPid"]), []).append(pid)
            if int(lines["SigCgt"], 16) >> (number - 1) & 1 and lines["Name"].strip() not in _NOT_TO:
                catching.add(pid)
        except (OSError, ValueError, KeyError):
            continue  # ended while we looked
    found, todo = [], [parent]
    while todo:
        children = parents.get(todo.pop(), [])
        found += [child for child in children if child in catching]
        todo += children
    return found
