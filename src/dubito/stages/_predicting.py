"""Predict structures from file to file, a piece at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

from dubito.core.progress import track
from dubito.data.streaming import StructuresReader, pieces, stream_structures
from dubito.data.structures import Structures
from dubito.stages._together import Say

# Memory grows with a piece, never with the pool: so many structures, with so many atoms, are held at once.
PIECE_STRUCTURES = 256
PIECE_ATOMS = 16384


def predict_files(load: Callable[[], Say], sources: list[Path], output: Path, attributes: dict[str, Any]) -> int:
    """Write the structures of all sources, in order, with their predictions; return how many there are.

    Parameters
    ----------
    load : gives what predicts the structures of a piece; not called when there is no structure at all
    attributes : root attributes of ``output``, as they are when all is predicted

    Raises
    ------
    DataError
        When a source can't be read.
    StorageError
        When the file system refuses; an older output stays as it was.
    """
    n, n_atoms, total, columns = survey(sources)
    with stream_structures(output, n=n, n_atoms=n_atoms, columns=columns, attributes=attributes) as writer:
        if n:
            say = load()
            with closing(read_pieces(sources)) as parts:
                for part in track(parts, total, "predicting (pieces)"):
                    writer.append(part, say(part))
    return n


def survey(sources: list[Path]) -> tuple[int, int, int, set[str]]:
    """Return the number of structures, atoms and pieces, and the columns that any source has."""
    n, n_atoms, total, columns = 0, 0, 0, set[str]()
    for path in sources:
        with StructuresReader(path) as reader:
            n, n_atoms = n + len(reader), n_atoms + int(reader.ptr[-1])
            total += sum(1 for _ in pieces(reader.n_atoms, PIECE_STRUCTURES, PIECE_ATOMS))
            columns |= reader.columns if len(reader) else set()
    return n, n_atoms, total, columns


def read_pieces(sources: list[Path], columns: Collection[str] | None = None) -> Generator[Structures]:
    """Yield the structures of all sources, in order, in pieces of bounded size, with these columns (None: all)."""
    for path in sources:
        with StructuresReader(path) as reader:
            for piece in pieces(reader.n_atoms, PIECE_STRUCTURES, PIECE_ATOMS):
                yield reader.structures(piece, columns)
