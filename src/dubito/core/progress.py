"""Where a campaign stands: one line per event on the terminal, and one JSON line in a file.

Jobs run in processes of their own, perhaps on other machines, so the record is a file that each
appends whole lines to (``O_APPEND``: short writes don't interleave) and ``dubito status`` reads.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from dubito.core.logs import get_logger

T = TypeVar("T")
log = get_logger(__name__)
_NUMBERS = frozenset({"wall_s", "cpu_s", "gpu_s", "max_rss_mb", "mem_mb", "runtime_min", "threads", "labels"})
_LARGEST = 1e12


def announce(text: str) -> None:
    """Print one line for the person who watches."""
    print(text, file=sys.stderr, flush=True)


def record(path: Path, **event: Any) -> None:
    """Append one event to a campaign's ``progress.jsonl``; a failure to do so never stops a job."""
    event.setdefault("time", time.time())
    line = (json.dumps(event, sort_keys=True, default=str) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(handle).st_size
            # A writer that was killed, or found the disk full, may have left half a line: ours must not end it.
            torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            os.write(handle, b"\n" + line if torn else line)
        finally:
            os.close(handle)
    except OSError as error:
        log.warning("could not record progress in %s: %s", path, error)


_job_event: Callable[..., None] | None = None


def is_job(recorder: Callable[..., None] | None) -> None:
    """Say that this process is a job whose events ``recorder(event, **more)`` writes; None: no longer."""
    global _job_event  # noqa: PLW0603 - one process, one job
    _job_event = recorder


def job_event(event: str, **more: Any) -> None:
    """Append one event to the record of the job that this process is; elsewhere nothing happens."""
    if _job_event is not None:
        _job_event(event, **more)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the events of a ``progress.jsonl``; what is no event, as a torn line of a killed writer, is left out."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            log.warning("%s can't be read: %s", path, error)
        return []
    return [event for event in map(event_of, lines) if event is not None]


def event_of(line: bytes) -> dict[str, Any] | None:
    """Return the event of a line: what happened, when, to which job; None when the line says no such thing.

    Numbers of another type, as no job writes them, are left out of it.
    """
    try:
        event = json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str) or not _is_number(event.get("time")):
        return None
    iteration = event.get("iteration")
    if not isinstance(event.get("stage", ""), str) or type(iteration) not in {int, type(None)}:
        return None
    return {key: value for key, value in event.items() if key not in _NUMBERS or value is None or _is_number(value)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def track(items: Iterable[T], total: int, what: str, every_s: float = 30.0) -> Iterator[T]:
    """Yield ``items``, logging a line each tenth of the way or every ``every_s`` seconds."""
    last, done = time.monotonic(), 0
    tenth = max(1, total // 10)
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if done % tenth == 0 or now - last > every_s or done == total:
            log.info("%s: %d of %d", what, done, total)
            last = now
