"""Look at Slurm when a job says that it has ended, not only when it is time to.

Each job appends a line to the campaign's ``progress.jsonl``. A driver that sees the file grow by the end of a job asks
Slurm at once, and some moments later again, since two Snakemakes have to end after the stage. Where the file system
shows the line late, or not at all, the usual interval holds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

# What ends a job, as `core.progress.record` writes it.
_ENDS: Final = (b'"event": "finished"', b'"event": "failed"', b'"event": "interrupted"', b'"event": "paused"')
# Seconds from the last line of a stage to the end of its Slurm job, about: the looks that follow one another.
LOOKS_S: Final = (1.5, 1.0, 1.0, 1.5)
# How often the file is looked at, seconds.
TICK_S: Final = 0.5


class Bell:
    """Rings when jobs of the campaign have ended; then it is looked some times in a row.

    Parameters
    ----------
    progress : the campaign's ``progress.jsonl``
    """

    def __init__(self, progress: Path) -> None:
        self._path, self._read = progress, _size(progress)
        self._looks: list[float] = []

    def rings(self) -> bool:
        """Say whether the end of a job was written since the last time; a few looks are then due."""
        size = _size(self._path)
        if size <= self._read:
            self._read = size  # cut off or made anew
            return False
        try:
            with self._path.open("rb") as handle:
                handle.seek(self._read)
                added = handle.read(size - self._read)
        except OSError:
            return False
        self._read = size
        if not any(end in added for end in _ENDS):
            return False
        self._looks = list(LOOKS_S)
        return True

    def next_look(self, usual_s: float) -> float:
        """Return the seconds until the next look: ``usual_s``, or less while jobs are ending."""
        return min(usual_s, self._looks.pop(0)) if self._looks else usual_s


def waiting(bell: Bell, usual_s: float, clock: Callable[[], float]) -> Callable[[], float]:
    """Return a function that gives the seconds to sleep before asking again whether to look; 0: look now."""
    end = clock() + bell.next_look(usual_s)

    def left() -> float:
        nonlocal end
        if bell.rings():
            end = min(end, clock() + bell.next_look(usual_s))
        return max(0.0, min(TICK_S, end - clock()))

    return left


def sleeper(campaign: str, watch_of: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what wraps the executor's ``sleep`` between two looks.

    Parameters
    ----------
    watch_of : gives the watch over an executor's jobs, None where there is none
    """
    bell = Bell(Path("results", campaign, "progress.jsonl"))

    def make(original: Any) -> Any:
        async def sleep(self: Any) -> None:
            watch = watch_of(self)
            if watch is None:
                await original(self)
                return
            left = waiting(bell, float(self.next_seconds_between_status_checks), time.monotonic)
            while pause := left():
                await asyncio.sleep(pause)
                if watch.stopping.is_set():
                    return

        return sleep

    return make


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
