"""The ledger of a campaign, ``results/<campaign>/provenance.jsonl``: what made each of its files, and from what.

One JSON line for each finished job, and one for each look at the files in which something new was found out
(``seen``). Whatever was hashed stands in it with size and time of the file, so that nothing is hashed twice.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from dubito.core.errors import StorageError
from dubito.core.hashing import hash_file

NAME = "provenance.jsonl"
SHA256 = 64


class State(NamedTuple):
    """A file as it was at some moment: size in bytes, time of the last change in ns since 1970."""

    size: int
    mtime_ns: int


class Making(NamedTuple):
    """One output of one job: its hash and state when the job ended, the number of its line, the whole line."""

    sha256: str
    state: State
    line: int
    entry: Mapping[str, Any]


class Ledger:
    """What the lines of a ledger say together."""

    def __init__(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Take the lines in the order they were written; later ones replace what earlier ones said of a file."""
        self.entries: list[Mapping[str, Any]] = list(entries)
        self.made: dict[str, Making] = {}
        self._hashes: dict[str, dict[State, str]] = {}
        for number, entry in enumerate(self.entries):
            for group in ("inputs", "seen", "outputs"):
                for path, about in entry.get(group, {}).items():
                    if "mtime_ns" not in about:
                        continue
                    state = State(about["size"], about["mtime_ns"])
                    self._hashes.setdefault(path, {})[state] = about["sha256"]
                    if group == "outputs":
                        self.made[path] = Making(about["sha256"], state, number, entry)

    def known_hash(self, path: str, state: State) -> str | None:
        """Return the hash of a file that had this size and time when it was last hashed."""
        return self._hashes.get(path, {}).get(state)

    def look(self, path: str, root: Path = Path()) -> dict[str, Any]:
        """Return hash, size and time of ``root / path``; it is read only if it changed since it was last hashed."""
        file = root / path
        state = state_of(file)
        sha256 = self.known_hash(path, state) or hash_file(file, SHA256)
        return {"sha256": sha256, "size": state.size, "mtime_ns": state.mtime_ns}


def state_of(file: Path) -> State:
    """Return size and time of a file."""
    found = file.stat()
    return State(found.st_size, found.st_mtime_ns)


def read_ledger(path: Path) -> Ledger:
    """Read a ledger; without one it is empty. A line cut off by a kill is left out."""
    entries = []
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                with suppress(json.JSONDecodeError):
                    entry = json.loads(line)
                    if isinstance(entry, dict):
                        entries.append(entry)
    return Ledger(entries)


def append(path: Path, entry: Mapping[str, Any]) -> None:
    """Append one whole line, or nothing; jobs of other machines may append at the same time.

    Raises
    ------
    StorageError
        When the file system refuses. A job must not end well then: its files would be taken for damaged ones.
    """
    line = (json.dumps(entry, sort_keys=True, default=str) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            _append_locked(handle, line)
        finally:
            os.close(handle)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full or the quota is used up" if full else error.strerror or str(error)
        raise StorageError(
            f"Could not write what made the files of this job to {path}: {what}. Mend that and start the same command "
            "again: labels and training are kept."
        ) from error


def _append_locked(handle: int, line: bytes) -> None:
    # Network file systems append at the end they remember; a lock makes them look again. Some have none.
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)
    end = os.fstat(handle).st_size
    if end and os.pread(handle, 1, end - 1) != b"\n":
        line = b"\n" + line  # the writer before was killed within its line
    try:
        written = os.write(handle, line)
        if written < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(handle)
    except OSError:
        with suppress(OSError):
            os.ftruncate(handle, end)
        raise
