"""What a check found: one line each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: fine, worth a thought, or in the way of a start.

    ``rules`` are those whose jobs it stops: the cluster need not be asked about them any more.
    """

    level: Level
    text: str
    rules: frozenset[str] = frozenset()

    def line(self) -> str:
        """Return the line for the terminal."""
        return f"ok: {self.text}" if self.level == "ok" else f"{self.level}: {self.text}"


def ok(text: str) -> Finding:
    """Return a finding of what is as it should be."""
    return Finding("ok", text)


def warning(text: str) -> Finding:
    """Return a finding that stops nothing."""
    return Finding("warning", text)


def fault(text: str, rules: Iterable[str] = ()) -> Finding:
    """Return a finding that stands in the way: what was found, what was expected, what to type."""
    return Finding("fault", text, frozenset(rules))


def listed(names: Sequence[str], most: int = 6) -> str:
    """Return names as a list for a sentence, shortened when there are many."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
