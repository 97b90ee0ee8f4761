"""The events of a campaign, read again only where the file has grown."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dubito.cli.status.values import number, text, whole

JobKey = tuple[str, int | None, str]


@dataclass(frozen=True, slots=True)
class Event:
    """One line of ``progress.jsonl``; ``time`` in seconds since 1970."""

    kind: str
    stage: str
    iteration: int | None
    part: str
    time: float
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def job(self) -> JobKey:
        """What tells this job from others."""
        return self.stage, self.iteration, self.part


class ProgressReader:
    """Reads ``progress.jsonl`` piece by piece.

    Files of long campaigns have megabytes and lie on network file systems; a screen that is refreshed reads what was
    appended since.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._events: list[Event] = []
        self._forget()

    def _forget(self) -> None:
        self._events.clear()
        self._offset, self._tail, self._inode = 0, b"", -1

    def events(self) -> list[Event]:
        """Return all events so far, in the order of the file. A line that is not whole yet is left for later."""
        try:
            with self.path.open("rb") as handle:
                about = os.fstat(handle.fileno())
                # Another file, or one that was cut: begin anew.
                if about.st_ino != self._inode or about.st_size < self._offset:
                    self._forget()
                    self._inode = about.st_ino
                handle.seek(self._offset)
                content = handle.read()
        except OSError:
            return self._events
        self._offset += len(content)
        *lines, self._tail = (self._tail + content).split(b"\n")
        for line in lines:
            self._events.extend(filter(None, map(_event, _objects(line))))
        return self._events


def _objects(line: bytes) -> Iterator[Mapping[str, Any]]:
    """Yield the JSON objects of a line: one, none when it is torn, or what a later writer put behind a torn one."""
    if not line.strip(b"\0 \r"):
        return
    words = line.decode("utf-8", errors="replace").strip("\0 \r")
    try:
        found = json.loads(words)
    except (ValueError, RecursionError):
        start = words.rfind('{"', 1)
        # Values are never mappings that reach the end of the line, so the last start that parses is an event.
        while start > 0:
            try:
                found = json.loads(words[start:])
                break
            except (ValueError, RecursionError):
                start = words.rfind('{"', 0, start)
        else:
            return
    if isinstance(found, dict):
        yield found


def _event(raw: Mapping[str, Any]) -> Event | None:
    kind, stage, when = raw.get("event"), raw.get("stage"), number(raw.get("time"))
    if not isinstance(kind, str) or not isinstance(stage, str) or when is None:
        return None
    return Event(kind, stage, whole(raw.get("iteration")), text(raw.get("part")), when, raw)
