"""A lock that dies with its holder.

A driver killed with ``kill -9`` leaves its jobs running. The next driver starts them again, and both
would write the same state. Each stage therefore holds an advisory lock that the kernel releases when
the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dubito.core.errors import EnvironmentFault
from dubito.core.logs import get_logger

log = get_logger(__name__)


@contextmanager
def exclusive(path: Path, wait_s: float = 86400.0, poll_s: float = 0.2) -> Iterator[None]:
    """Hold ``path`` exclusively; wait while an earlier run of the same job still holds it.

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
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
