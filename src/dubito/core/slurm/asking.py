"""Asking a command of Slurm, which may be missing or silent, and reading its lines and times."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

COMMANDS = ("sbatch", "squeue", "scontrol", "sinfo", "scancel")
_PAIR = re.compile(r"(\w+)=(.*?)(?=\s+\w+=|\s*$)")
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


@dataclass(frozen=True)
class Answer:
    """What a command said; ``rc`` is None when it could not be run or did not answer in time."""

    rc: int | None
    out: str
    err: str

    @property
    def said(self) -> str:
        """The message in one line."""
        return " ".join((self.err.strip() or self.out.strip()).split())[:300]


def run(command: Sequence[str], timeout_s: float = 60.0) -> Answer:
    """Run a command of Slurm; one that is missing or silent gives ``rc`` None."""
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, timeout=timeout_s, check=False)
    except FileNotFoundError:
        return Answer(None, "", f"{command[0]} was not found")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Answer(None, "", f"{command[0]} did not answer: {type(error).__name__} after {timeout_s:.0f} s")
    return Answer(done.returncode, done.stdout, done.stderr)


def pairs(line: str) -> dict[str, str]:
    """Return the ``key=value`` pairs of one line of ``scontrol --oneliner``; values may hold blanks."""
    return {key: value.strip() for key, value in _PAIR.findall(line)}


def minutes(text: str) -> float | None:
    """Return a time of Slurm (``days-hours:minutes:seconds``, any of it) in minutes; None for no limit.

    Examples
    --------
    >>> minutes("1-12:00:00"), minutes("45:30"), minutes("30"), minutes("UNLIMITED")
    (2160.0, 45.5, 30.0, None)
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    days, first, second, third = (None if part is None else int(part) for part in match.groups())
    if days is not None:  # days-hours[:minutes[:seconds]]
        return days * 1440.0 + (first or 0) * 60 + (second or 0) + (third or 0) / 60
    if third is not None:  # hours:minutes:seconds
        return (first or 0) * 60.0 + (second or 0) + third / 60
    return (first or 0) + (second or 0) / 60  # minutes[:seconds]


def whole(text: str) -> int | None:
    """Return a number of Slurm; None for no limit."""
    return int(text) if text.isdigit() else None
