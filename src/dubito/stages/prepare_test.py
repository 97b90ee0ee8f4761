"""Collect the fixed, labelled test set of a campaign."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dubito.core.errors import ConfigError, DataError
from dubito.data.formats import read_any
from dubito.data.store import write_structures
from dubito.data.structures import REFERENCE, Structures


def run(*, files: list[str], output: Path) -> str:
    """Join labelled files; a structure that occurs twice is kept once, with its first label.

    Raises
    ------
    ConfigError
        When a file can't be read or lacks labels.
    """
    parts = []
    for file in files:
        try:
            part = read_any(Path(file))
            part.require_labels(file)
        except DataError as error:
            raise ConfigError(f"evaluation.test_files: {error}") from error
        kind = np.array([text or REFERENCE for text in part.text("provenance/kind")], dtype="S12")
        parts.append(part.with_columns(provenance__kind=kind))
    joined = Structures.concatenate(parts)
    if not len(joined):
        raise ConfigError("evaluation.test_files names no file with structures. Name one, or leave it empty ([]).")
    _, first = np.unique(joined.ids, return_index=True)
    unique = joined[np.sort(first)]
    write_structures(output, unique)
    dropped = len(joined) - len(unique)
    return f"{len(unique)} test structures from {len(files)} file{'s' if len(files) > 1 else ''}" + (
        f"; {dropped} duplicates left out" if dropped else ""
    )
