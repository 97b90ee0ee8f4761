"""A lock that dies with its holder, and whether a recorded process still lives.

A driver killed with ``kill -9`` leaves its jobs running. The next driver starts them again, and both
would write the same state. Each stage therefore holds an advisory lock that the kernel releases when
the process ends, however it ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dubito.core.errors import EnvironmentFault
from dubito.core.files import read_object
from dubito.core.logs import get_logger

log = get_logger(__name__)

# What a file system without locks answers (some network and parallel file systems).
NO_LOCKS = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS})


@contextmanager
def exclusive(path: Path, wait_s: float = 86400.0, poll_s: float = 0.2) -> Iterator[None]:
    """Hold ``path`` exclusively; wait while an earlier run of the same job still holds it.

    On a file system that has no locks this warns and goes on without: the lock only guards against
    jobs that outlived a killed driver.

    Raises
    ------
    EnvironmentFault
        When it is still held after ``wait_s`` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    start, said = time.monotonic(), False
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
                if not said:
                    log.warning("an earlier run of this job is still alive (%s); waiting for it", holder)
                    said = True
                if time.monotonic() - start > wait_s:
                    raise EnvironmentFault(
                        f"{path} has been held for {wait_s:.0f} s by {holder}. "
                        "End that process, then start the same command again."
                    ) from None
                time.sleep(poll_s)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                log.warning(
                    "the file system of %s has no locks (%s); going on without. After a kill, wait until the "
                    "old jobs have ended before you start again",
                    path, error.strerror,
                )  # fmt: skip
                break
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def recorded_process(path: Path) -> dict[str, Any]:
    """Read what a process wrote of itself: ``pid``, ``host``, ``process_start``, ``time`` (s since 1970).

    Raises
    ------
    DataError, StorageError
        When the file is missing, or says something else.
    """
    return read_object(path, pid=int, host=str, process_start=(str, type(None)), time=(int, float))


def is_alive(process: Mapping[str, Any]) -> bool:
    """Say whether a recorded process (``pid``, ``process_start``) of this host still runs.

    A reused number does not count.
    """
    started = process_start(int(process["pid"]))
    return started is not None and started == process["process_start"]


def process_start(pid: int) -> str | None:
    """Return when a process of this host started (opaque text), None when there is no such process."""
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] == "Z" else fields[19]  # field 22 of proc(5): ticks since boot
    answer = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None
