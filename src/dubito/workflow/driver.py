"""One driver per campaign, also after a ``kill -9``.

Snakemake locks a folder with files that outlive a killed process, and then advises ``--unlock``, which is
dangerous while another Snakemake is at work. Here the driver of a campaign leaves its process in
``state/driver.json``: a lock whose owner is known to be dead is removed, a living owner is named.
"""

from __future__ import annotations

import atexit
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dubito.core.errors import DataError, EnvironmentFault
from dubito.core.files import read_json, write_json
from dubito.core.locks import is_alive, process_start
from dubito.core.logs import get_logger
from dubito.workflow.slurm_words import NOT_THERE, ask, is_job_of

log = get_logger(__name__)

LOCKS = Path(".snakemake", "locks")
# Ways to call snakemake that compute nothing and must work beside a running campaign.
_READ_ONLY = (
    "--lint",
    "--report",
    "--summary",
    "--detailed-summary",
    "--dag",
    "--rulegraph",
    "--filegraph",
    "--d3dag",
    "--list",
    "--unlock",
    "--containerize",
    "--generate-unit-tests",
    "--print-compilation",
    "--archive",
    "-S",
    "-D",
    "-l",
)


def is_read_only(arguments: Sequence[str]) -> bool:
    """Say whether a snakemake command line only looks."""
    return any(a.split("=")[0] in _READ_ONLY or a.startswith(("--list", "--report")) for a in arguments)


def claim_campaign(name: str) -> None:
    """Become the driver of a campaign: refuse beside a living one, clean up after a dead one.

    Raises
    ------
    EnvironmentFault
        When another driver is alive, or may be alive on another machine.
    """
    refuse_second_driver(name)
    unlock_if_stale(name)
    path = _driver_file(name)
    write_json(
        path,
        {"pid": os.getpid(), "host": socket.gethostname(), "process_start": process_start(os.getpid()),
         "time": time.time(), "command": " ".join(sys.argv)},
    )  # fmt: skip
    atexit.register(_release, path, os.getpid())


def refuse_second_driver(name: str) -> None:
    """Raise EnvironmentFault while another driver of this campaign is, or may be, alive."""
    driver = _read_driver(name)
    if driver is None or driver["pid"] == os.getpid():
        return
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(driver["time"]))
    if driver["host"] != socket.gethostname():
        if not campaign_locks(name):
            return
        raise EnvironmentFault(
            f"The campaign '{name}' was started on {driver['host']} (process {driver['pid']}, {since}), and from "
            f"{socket.gethostname()} it can't be seen whether it still runs. If it does, leave it alone; if it "
            "has ended, run `snakemake --unlock` and start again: finished work is kept."
        )
    if is_alive(driver):
        raise EnvironmentFault(
            f"The campaign '{name}' is already being run by process {driver['pid']} since {since}. Watch it with "
            f"`dubito status`, or end it with `kill -INT {driver['pid']}` before you start another."
        )


def unlock_if_stale(name: str) -> list[Path]:
    """Remove the locks a killed driver of this campaign left; return them.

    Call it after :func:`refuse_second_driver`: a campaign with locks but without a living driver
    has been killed.
    """
    stale = campaign_locks(name)
    for path in stale:
        path.unlink(missing_ok=True)
    if stale:
        log.info("the last run of %s was killed; its lock is removed and the campaign goes on", name)
    return stale


def campaign_locks(name: str) -> list[Path]:
    """Return Snakemake's lock files that cover files of this campaign (of others they stay)."""
    prefix = f"results/{name}/"
    found = []
    for path in sorted(LOCKS.glob("*.lock")):
        lines = path.read_text(errors="replace").splitlines()
        if any(line.startswith(prefix) for line in lines):
            found.append(path)
    return found


def refuse_live_jobs(name: str) -> None:
    """Raise EnvironmentFault while Slurm jobs of an earlier driver of this campaign still run.

    A killed driver leaves its jobs to Slurm, and a new one would submit them again. Jobs of other campaigns in
    this folder are left alone.
    """
    code, text, error = ask(["squeue", "--me", "--noheader", "--format=%i|%j|%Z"])
    if code == NOT_THERE:
        return  # another scheduler than Slurm
    if code != 0:
        raise EnvironmentFault(
            f"Slurm does not answer ({error or 'squeue failed'}), and it is not known whether jobs of an earlier start "
            f"of '{name}' still run. Try `squeue --me`, and start again when it works."
        )
    here = str(Path.cwd().resolve())
    own = os.environ.get("SLURM_JOB_ID")
    jobs = [
        fields[0]
        for fields in (line.split("|", 2) for line in text.splitlines())
        if len(fields) == 3 and fields[2] == here and is_job_of(name, fields[1]) and fields[0] != own
    ]
    if jobs:
        raise EnvironmentFault(
            f"{len(jobs)} Slurm job{'s' if len(jobs) > 1 else ''} of the campaign '{name}' still run "
            f"({', '.join(jobs)}), left by an earlier start. Wait until they have ended, or run "
            f"`scancel {' '.join(jobs)}`; then start again: what they finish is kept."
        )


def _driver_file(name: str) -> Path:
    return Path("results", name, "state", "driver.json")


def _read_driver(name: str) -> dict[str, Any] | None:
    path = _driver_file(name)
    if not path.exists():
        return None
    try:
        driver: dict[str, Any] = read_json(path)
    except DataError:
        return None
    return driver if {"pid", "host", "process_start", "time"} <= set(driver) else None


def _release(path: Path, pid: int) -> None:
    """Take the driver file away at the end, unless it is another's."""
    try:
        if read_json(path)["pid"] == pid == os.getpid():
            path.unlink()
    except (OSError, DataError, KeyError):
        pass
