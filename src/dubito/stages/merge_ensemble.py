"""Join the groups of members that were trained in separate jobs."""

from __future__ import annotations

from pathlib import Path

from dubito.core.provenance import describe
from dubito.model.files import merge_files
from dubito.training.history import read_rows, write_rows


def run(*, groups: list[Path], histories: list[Path], output: Path, history: Path) -> str:
    """Write all members into one ensemble and all histories into one table."""
    inputs = {path.name: path for path in groups}
    members = merge_files(groups, output, provenance=describe(inputs))
    rows = sorted((row for path in histories for row in read_rows(path)), key=lambda row: (int(row[0]), int(row[1])))
    write_rows(history, rows)
    return f"{len(members)} members from {len(groups)} job{'s' if len(groups) > 1 else ''}"
