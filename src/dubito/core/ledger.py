"""The ledger of a campaign, ``results/<campaign>/provenance.jsonl``: what made each of its files, and from what.

One JSON line for each finished job, and one for each look at the files in which something new was found out
(``seen``). Whatever was hashed stands in it with size and time of the file, so that nothing is hashed twice.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from dubito.core.errors import StorageError
from dubito.core.hashing import hash_file
from dubito.core.logs import get_logger

NAME = "provenance.jsonl"
SHA256 = 64
log = get_logger(__name__)

# What of a line tells of files, and what it tells of the job for people to read.
_GROUPS = ("inputs", "seen", "outputs")
_SAID: dict[str, type | tuple[type, ...]] = {
    "stage": str, "iteration": int, "part": str, "time": (int, float), "host": str, "code": str, "config_hash": str,
    "params_hash": str, "versions": dict, "wall_s": (int, float), "cpu_s": (int, float),
}  # fmt: skip
# Seconds since 1970 in the year 33658; no number of a line is larger.
_LARGEST = 1e12
# Parts of a campaign folder whose files stay as their jobs wrote them. `report/` and `summary.json` do not: each
# iteration rewrites them, dated 1970 on purpose.
_PARTS = ("iter_", "reference")


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
            for group in _GROUPS:
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


def is_result(path: str, campaign: str) -> bool:
    """Say whether a file of a ledger is one that nobody writes but its job."""
    folder = f"results/{campaign}/"
    return path.startswith(folder) and path.removeprefix(folder).startswith(_PARTS)


def state_of(file: Path) -> State:
    """Return size and time of a file."""
    found = file.stat()
    return State(found.st_size, found.st_mtime_ns)


def read_ledger(path: Path, *, warn: bool = True) -> Ledger:
    """Read a ledger; without one it is empty.

    A line cut off by a kill is left out, and so is one that says of files what no job writes: with a warning, unless
    the reader is one of many jobs (``warn``).

    Raises
    ------
    StorageError
        When the file system does not let it be read.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            return Ledger(_entries(path, lines, logging.WARNING if warn else logging.INFO))
    except FileNotFoundError:
        return Ledger([])
    except OSError as error:
        raise StorageError(f"{path} can't be read ({error.strerror or error}). Mend that and start again.") from error


def _entries(path: Path, lines: Iterable[str], level: int) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(entry, dict) or not all(_is_files(entry.get(group, {})) for group in _GROUPS):
            log.log(level, "line %d of %s is damaged and left out: %s", number, path, line.strip()[:80])
            continue
        yield said(entry)


def _is_files(value: object) -> bool:
    """Say whether a part of a line tells of files: hash, and often size and time, by path."""
    return isinstance(value, dict) and all(
        isinstance(about, dict)
        and isinstance(about.get("sha256"), str)
        and ("mtime_ns" not in about or (type(about["mtime_ns"]) is int and type(about.get("size")) is int))
        for about in value.values()
    )


def said(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of a job, without values that no job writes and that could not be shown."""
    return {key: value for key, value in about.items() if key not in _SAID or _is_said(key, value)}


def _is_said(key: str, value: object) -> bool:
    """Say whether what a line tells of its job can be shown."""
    if isinstance(value, bool) or (isinstance(value, int | float) and not abs(value) < _LARGEST):
        return False
    return value is None or isinstance(value, _SAID[key])


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
