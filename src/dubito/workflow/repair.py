"""Damaged and wrongly dated files mend themselves when a campaign is started again.

Snakemake trusts what lies there: a file that was cut off is read by the next job, and a file that is dated later than
what was made from it makes all of that again. The ledger knows what each job wrote. Before Snakemake looks:

- a file that is not what its job wrote is moved aside, so that it is made anew where it is needed;
- times are brought into the order in which things were made. The time a job left is the measure, not the one Snakemake
  gives its outputs afterwards (it touches them when it has seen the job end), nor that of a copy or another clock.

A file that was hashed before, and has the size and time it had then, is not read again.
"""

from __future__ import annotations

import os
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from pathlib import Path

from dubito.core.errors import StorageError
from dubito.core.hashing import hash_file
from dubito.core.ledger import NAME, SHA256, Ledger, Making, State, append, is_result, read_ledger, state_of
from dubito.core.logs import get_logger
from dubito.core.progress import announce
from dubito.workflow.dating import Dated, in_wrong_order, right_times

log = get_logger(__name__)

_INCOMPLETE = Path(".snakemake", "incomplete")
# Clocks of a cluster differ by less; what is dated further ahead is worth a word.
_AHEAD_NS = 60_000_000_000
_SHOWN = 8


@dataclass
class Repairs:
    """What was found and done: damaged files with what was wrong, how many files stood in a wrong order, were read."""

    damaged: list[tuple[Path, Path, str]] = field(default_factory=list)
    wrong_order: int = 0
    dated: int = 0
    hashed: int = 0


def repair_campaign(name: str) -> Repairs:
    """Mend the files of a campaign, and tell the user what was wrong.

    Call it as the campaign's driver, before Snakemake looks at the files.

    Raises
    ------
    StorageError
        When a damaged file can't be moved aside, or the ledger can't be written.
    """
    path = Path("results", name, NAME)
    look = _Look(name, read_ledger(path))
    look.all_files()
    if look.seen:
        append(path, {"time": time.time(), "seen": look.seen})
    _tell(look.repairs)
    return look.repairs


def _tell(repairs: Repairs) -> None:
    for path, aside, why in repairs.damaged[:_SHOWN]:
        announce(
            f"dubito: {path} is not what its job wrote ({why}). It is now {aside.name}. If this start needs "
            "it, it is made again; else the end of this start names it, with the command that makes it. If you changed "
            f"it on purpose: `mv {aside} {path} && dubito show --accept {path}`."
        )
    if len(repairs.damaged) > _SHOWN:
        announce(f"dubito: and {len(repairs.damaged) - _SHOWN} more, all kept as FILE.damaged beside where they were.")
    if repairs.wrong_order:
        announce(
            f"dubito: {repairs.wrong_order} files were dated in another order than they were made in (a copy, touch, "
            "or another clock). Their content is as it was, so their times are restored and nothing is made again."
        )


class _Look:
    """One look at all outputs of a campaign."""

    def __init__(self, name: str, ledger: Ledger) -> None:
        self.name = name
        self.ledger = ledger
        self.repairs = Repairs()
        self.seen: dict[str, dict[str, object]] = {}
        self.now = time.time_ns()

    def all_files(self) -> None:
        """Move damaged files aside, then set the times of the others."""
        files, states = {}, {}
        for path, making in self.ledger.made.items():
            if is_result(path, self.name):
                found = self._one(path, making)
                if found is not None:
                    states[path], files[path] = found
        times = {path: state.mtime_ns for path, state in states.items()}
        self.repairs.wrong_order = sum(1 for _ in in_wrong_order(files, times, self.now + _AHEAD_NS))
        for path, right in right_times(files).items():
            if right != states[path].mtime_ns:
                state = self._set_time(Path(path), states[path], right)
                self._remember(path, state, files[path].sha256)

    def _one(self, path: str, making: Making) -> tuple[State, Dated] | None:
        """Return a sound file as it is and the time it should have by itself; None where there is none."""
        file = Path(path)
        try:
            state = state_of(file)
        except FileNotFoundError:
            return None  # Snakemake makes it again if it needs it
        if is_under_way(path):
            return None  # Snakemake removes it and makes it again
        fault, right = self._compare(path, state, making)
        if fault:
            self._move_aside(file, fault)
            return None
        inputs = {name: about["sha256"] for name, about in making.entry.get("inputs", {}).items()}
        right = min(right, self.now)
        for name, sha256 in inputs.items():
            if name not in self.ledger.made:
                right = self._after_users_file(name, sha256, right)
        return state, Dated(making.sha256, inputs, making.line, right)

    def _compare(self, path: str, state: State, making: Making) -> tuple[str, int]:
        """Return what is wrong with a file, and the time it should have."""
        if state.size != making.state.size:
            return f"{state.size} of {making.state.size} bytes", 0
        known = self.ledger.known_hash(path, state)
        if known == making.sha256:
            return "", state.mtime_ns
        self.repairs.hashed += 1
        try:
            if (known or hash_file(Path(path), SHA256)) != making.sha256:
                return "other content of the same size", 0
        except OSError as error:
            return f"it can't be read: {error.strerror or error}", 0
        self._remember(path, state, making.sha256)
        return "", making.state.mtime_ns

    def _after_users_file(self, name: str, sha256: str, right: int) -> int:
        """Return ``right``, or the time of a file that no job made if that is later but its content is as it was."""
        try:
            state = state_of(Path(name))
            if state.mtime_ns <= right:
                return right
            known = self.ledger.known_hash(name, state) or str(self.seen.get(name, {}).get("sha256", ""))
            if not known:
                self.repairs.hashed += 1
                known = hash_file(Path(name), SHA256)
                self._remember(name, state, known)
        except OSError:
            return right
        return state.mtime_ns if known == sha256 else right

    def _remember(self, path: str, state: State, sha256: str) -> None:
        self.seen[path] = {"sha256": sha256, "size": state.size, "mtime_ns": state.mtime_ns}

    def _set_time(self, file: Path, state: State, right: int) -> State:
        try:
            os.utime(file, ns=(right, right))
            self.repairs.dated += 1
            return state_of(file)
        except OSError as error:
            log.warning("the time of %s can't be set (%s); what follows it may be made again", file, error)
            return state

    def _move_aside(self, file: Path, why: str) -> None:
        aside = _free_name(file)
        try:
            file.rename(aside)
        except OSError as error:
            raise StorageError(
                f"{file} is damaged ({why}) and can't be moved aside ({error.strerror}). Move it away yourself, then "
                "start the same command again: it is made anew."
            ) from error
        self.repairs.damaged.append((file, aside, why))


def _free_name(file: Path) -> Path:
    """Return ``<name>.damaged``, with a number if earlier ones are kept there."""
    aside, number = file.with_name(f"{file.name}.damaged"), 2
    while aside.exists():
        aside, number = file.with_name(f"{file.name}.damaged.{number}"), number + 1
    return aside


def is_under_way(path: str) -> bool:
    """Say whether Snakemake has begun to make a file and not seen the end: it makes that again itself.

    The job may even be alive, and have written the file but not yet its line in the ledger.
    """
    return record_of(_INCOMPLETE, path).exists()


def record_of(folder: Path, path: str) -> Path:
    """Return the file in which Snakemake keeps what it knows of ``path``, in this folder of its own."""
    name = urlsafe_b64encode(path.encode()).decode()
    if len(name) < 255:
        return folder / name
    # As Snakemake does with names that are too long for a file.
    parts = [name[i : i + 254] for i in range(0, len(name), 254)]
    return folder.joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1])
