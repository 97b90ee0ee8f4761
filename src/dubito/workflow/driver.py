"""One driver per campaign, also after a ``kill -9``.

Snakemake locks a folder with files that outlive a killed process, that each campaign removes for all others of the
folder when it ends, and for which it then advises ``--unlock``, which does the same. So the driver of a campaign
holds ``state/driver.lock``, which the kernel releases when the process ends, and ``state/driver.json`` says who that
is: a lock whose owner is known to be dead is removed, a living owner is named.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from dubito.core.errors import DataError, EnvironmentFault, StorageError
from dubito.core.files import write_json
from dubito.core.locks import NO_LOCKS, is_alive, process_start, recorded_process
from dubito.core.logs import get_logger
from dubito.workflow.slurm_words import NOT_THERE, ask, is_job_of

log = get_logger(__name__)

LOCKS = Path(".snakemake", "locks")
# A killed process holds its lock until it is taken down; so long it is waited for, seconds.
_ENDING_S: Final = 3.0
# The locks of the campaigns that this process drives.
_HELD: Final[dict[Path, int]] = {}
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

    Of any number that start at the same moment one becomes the driver.

    Raises
    ------
    EnvironmentFault
        When another driver is alive, or may be alive on another machine; when Snakemake's locks are there and
        nothing says whose.
    """
    listen_to_interrupts()
    path = _driver_file(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock, had_owner = _hold(name)
        try:
            refuse_second_driver(name)
            if not (had_owner or path.exists()):
                _refuse_foreign_locks(name)
            own = _write_claim(name)
            unlock_if_stale(name)
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"pid {own['pid']} on {own['host']}\n".encode(), 0)
        except BaseException:
            _let_go(name)
            raise
    except OSError as error:
        raise StorageError(f"{path.parent} can't be written ({error.strerror}). Mend that and start again.") from error
    atexit.register(_release, name, path.resolve(), own)


def listen_to_interrupts() -> None:
    """Let ``kill -INT`` end this process, also where a shell started it with ``&`` and told it to ignore that."""
    try:
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    except ValueError:
        pass  # not the main thread: nothing can be set here


def refuse_second_driver(name: str) -> None:
    """Raise EnvironmentFault while another driver of this campaign is, or may be, alive."""
    driver = _read_driver(name)
    if driver is None or _is_own(driver):
        return
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(driver["time"]))
    if driver["host"] != socket.gethostname():
        # Snakemake's locks say nothing: another campaign that ends removes them.
        raise EnvironmentFault(
            f"The campaign '{name}' was started on {driver['host']} (process {driver['pid']}, {since}), and from "
            f"{socket.gethostname()} it can't be seen whether it still runs. If it does, leave it alone; if it "
            f"has ended, run `rm {_driver_file(name)}` and start again: finished work is kept."
        )
    if is_alive(driver):
        raise EnvironmentFault(
            f"The campaign '{name}' is already being run by process {driver['pid']} since {since}. Watch it with "
            f"`dubito status`, or end it with `kill -INT {driver['pid']}` before you start another."
        )


def unlock_if_stale(name: str) -> list[Path]:
    """Remove the locks a killed driver of this campaign left; return them.

    Call it after :func:`refuse_second_driver`, and only when there was a driver: a campaign with locks but without a
    living driver has been killed.
    """
    stale = campaign_locks(name)
    for path in stale:
        path.unlink(missing_ok=True)
    if stale:
        log.info("the last run of %s was killed; its lock is removed and the campaign goes on", name)
    return stale


def _refuse_foreign_locks(name: str) -> None:
    """Raise EnvironmentFault when Snakemake's locks cover a campaign of which no driver is known to have died."""
    locks = campaign_locks(name)
    if not locks:
        return
    raise EnvironmentFault(
        f"Snakemake's locks of the campaign '{name}' are there, and nothing says which process holds them (its folder "
        "was removed, or came from elsewhere). If `pgrep -af snakemake` shows none that runs this campaign, here and "
        f"on the other machines that see this folder, run `rm {' '.join(map(str, locks))}` and start again."
    )


def campaign_locks(name: str) -> list[Path]:
    """Return Snakemake's lock files of this campaign; those of others stay, also where they read its files."""
    found = []
    for path in sorted(LOCKS.glob("*.lock")):
        lines = path.read_text(errors="replace").splitlines()
        campaigns = Counter(line.split("/")[1] for line in lines if line.startswith("results/"))
        if campaigns and campaigns.most_common(1)[0][0] == name:
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


def _lock_file(name: str) -> Path:
    return _driver_file(name).with_name("driver.lock")


def _read_driver(name: str) -> dict[str, Any] | None:
    path = _driver_file(name)
    if not path.exists():
        return None
    try:
        return recorded_process(path)
    except DataError:
        return None


def _is_own(driver: dict[str, Any]) -> bool:
    """Say whether it is this process that wrote this."""
    own = (os.getpid(), socket.gethostname(), process_start(os.getpid()))
    return (driver["pid"], driver["host"], driver["process_start"]) == own


def _hold(name: str) -> tuple[int, bool]:
    """Take the lock of the driver, for as long as this process lives; say whether its last holder did not let go.

    On a file system without locks it is not held, and what ``driver.json`` says is all there is.
    """
    path = _lock_file(name)
    key = path.resolve()
    handle = _HELD.pop(key, None) or os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    _HELD[key] = handle
    end = time.monotonic() + _ENDING_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            try:
                refuse_second_driver(name)
                # A killed process is still being taken down, or another start is just beginning.
                if time.monotonic() > end:
                    holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "a process that just began"
                    raise EnvironmentFault(
                        f"Another process holds the lock of the campaign '{name}' ({holder}; `fuser {path}` shows it). "
                        "Watch the campaign with `dubito status`; when that process has ended, start again."
                    ) from None
            except EnvironmentFault:
                _let_go(name)
                raise
            time.sleep(0.05)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            log.warning(
                "the file system of %s has no locks (%s); do not start this campaign from two machines", path,
                error.strerror,
            )  # fmt: skip
            break
    return handle, bool(os.pread(handle, 1, 0))


def _let_go(name: str) -> None:
    handle = _HELD.pop(_lock_file(name).resolve(), None)
    if handle is not None:
        os.close(handle)


def _write_claim(name: str) -> dict[str, Any]:
    """Write who drives, after a last look at who does.

    With the lock held there is one that does this; but on another machine, or a file system that has no locks, others
    may. A file that must not have been there lets one of them in at a time.
    """
    own = {"pid": os.getpid(), "host": socket.gethostname(), "process_start": process_start(os.getpid()),
           "time": time.time(), "command": " ".join(sys.argv)}  # fmt: skip
    gate = _driver_file(name).with_name("driver.starting")
    end = time.monotonic() + _ENDING_S
    while True:
        try:
            handle = os.open(gate, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            break
        except FileExistsError:
            if time.monotonic() > end:
                _refuse_or_reopen(name, gate)
            time.sleep(0.02)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(json.dumps(own))
        refuse_second_driver(name)
        write_json(_driver_file(name), own)
    finally:
        gate.unlink(missing_ok=True)
    return own


def _refuse_or_reopen(name: str, gate: Path) -> None:
    """Remove the file of a start that was killed in the moment in which it held it; raise EnvironmentFault else."""
    try:
        left = recorded_process(gate)
        is_dead = left["host"] == socket.gethostname() and not is_alive(left)
    except DataError:
        is_dead = True  # killed before it wrote a word
    if not is_dead:
        raise EnvironmentFault(
            f"Another start of the campaign '{name}' is just beginning. Watch it with `dubito status`; if there is "
            f"none, on any machine that sees this folder, run `rm {gate}` and start again."
        )
    gate.unlink(missing_ok=True)


def _release(name: str, path: Path, own: dict[str, Any]) -> None:
    """Take the driver file away at the end, if it is this process's own."""
    if own["pid"] != os.getpid():
        return  # a copy of the process that wrote it
    try:
        written = recorded_process(path)
        if {key: written.get(key) for key in own} != own:
            return
        handle = _HELD.pop(path.with_name("driver.lock"), None)
        if handle is not None:
            os.ftruncate(handle, 0)
        path.unlink()
        if handle is not None:
            os.close(handle)
    except (OSError, DataError):
        pass
