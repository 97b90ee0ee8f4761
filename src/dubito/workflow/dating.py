"""Times of files that tell the order in which they were made, as Snakemake reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# By how much a file is later than what was made from its older content.
_TICK_NS = 1_000_000
# Each pass carries times one step further where lines are out of order, which is rare; this ends it in any case.
_MOST_PASSES = 100


@dataclass(frozen=True)
class Dated:
    """A file whose content is known: its hash and those of what it was made from, the number of its line, its time."""

    sha256: str
    inputs: Mapping[str, str]
    line: int
    time_ns: int


def right_times(files: Mapping[str, Dated]) -> dict[str, int]:
    """Return the time of each file, ns: its own, raised where that is needed for the order.

    A file is not older than an input that still has the content it was made from, which would make it anew. It is
    later than what was made from an older content of it, so that this is made anew. No time is lowered.
    """
    times = {path: file.time_ns for path, file in files.items()}
    ordered = sorted(files, key=lambda path: files[path].line)
    for _ in range(_MOST_PASSES):
        before = dict(times)
        for path in ordered:
            for name, sha256 in files[path].inputs.items():
                if name not in files:
                    continue
                if files[name].sha256 == sha256:
                    times[path] = max(times[path], times[name])
                elif files[name].line > files[path].line:
                    times[name] = max(times[name], times[path] + _TICK_NS)
        if times == before:
            break
    return times


def in_wrong_order(files: Mapping[str, Dated], times: Mapping[str, int], latest: int) -> Iterator[str]:
    """Yield the files that, with these times, are dated before an input of theirs, or after ``latest``."""
    for path, file in files.items():
        older = any(
            times[path] < times[name] for name, sha256 in file.inputs.items()
            if name in files and files[name].sha256 == sha256
        )  # fmt: skip
        if older or times[path] > latest:
            yield path
