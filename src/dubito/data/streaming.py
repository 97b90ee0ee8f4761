"""Structures files read and written in pieces, for pools that don't fit into memory twice.

The schema is that of :mod:`dubito.data.store`. Whoever reads in pieces holds one piece and ``ptr``; whoever
writes in pieces holds one piece and the ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from dubito.core.errors import DataError
from dubito.core.fields import ALL, GEOMETRY, PREDICTION_FIELDS
from dubito.core.files import atomic_path
from dubito.data.spill import SpillFile, remove_partials
from dubito.data.store import (
    Predictions,
    create_array,
    open_file,
    prediction_field,
    read_array,
    require_geometry,
    trailing_shape,
    write_attributes,
)
from dubito.data.structures import Array, Structures

_COLUMNS = {f.path: f for f in ALL if f not in GEOMETRY}


def pieces(n_atoms: Array, max_structures: int, max_atoms: int) -> Iterator[slice]:
    """Split structures with ``n_atoms`` (n,) atoms into runs within both limits; a larger one stands alone."""
    ends = np.cumsum(n_atoms)
    start = 0
    while start < len(n_atoms):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + max_atoms, "right"))
        stop = max(start + 1, min(stop, start + max_structures))
        yield slice(start, stop)
        start = stop


def _runs(rows: Array) -> tuple[list[slice], Array]:
    """Return the different rows as runs of neighbours, ascending, and where each row stands among them."""
    unique, order = np.unique(np.asarray(rows, "i8"), return_inverse=True)
    breaks = np.flatnonzero(np.diff(unique) > 1) + 1
    return [slice(int(run[0]), int(run[-1]) + 1) for run in np.split(unique, breaks) if len(run)], order


class StructuresReader:
    """A structures file that is read in pieces; use it in a ``with`` statement.

    Attributes
    ----------
    ptr : (n + 1,) int64
    columns : paths of the label, origin and provenance columns that are there

    Raises
    ------
    DataError
        As :func:`dubito.data.store.read_structures`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_file(path)
        try:
            require_geometry(self._file, path)
            self.ptr: Array = self._file["ptr"][:]
            self.columns = frozenset(name for name in _COLUMNS if name in self._file)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self.ptr) - 1

    @property
    def n_atoms(self) -> Array:
        """Atoms of each structure, (n,) int64."""
        out: Array = np.diff(self.ptr)
        return out

    @property
    def methods(self) -> list[str]:
        """Names of the methods whose predictions are there."""
        return sorted(self._file.get("predictions", {}))

    def fields(self, method: str) -> list[str]:
        """Return the names of the predictions of a method."""
        return [name for name in self._file[f"predictions/{method}"] if name in PREDICTION_FIELDS]

    def _rows(self, level: str, piece: slice) -> slice:
        if level == "structure":
            return piece
        return slice(int(self.ptr[piece.start]), int(self.ptr[piece.stop]))

    def structures(self, piece: slice, columns: Iterable[str] | None = None) -> Structures:
        """Return the structures ``piece.start:piece.stop`` with these columns (None: all that are there)."""
        wanted = self.columns if columns is None else self.columns & set(columns)
        found = {
            f.path: read_array(self._file, f, f.path, self.path, self._rows(f.level, piece))
            for f in ALL
            if f in GEOMETRY or f.path in wanted
        }
        geometry = {f.path: found.pop(f.path) for f in GEOMETRY}
        ptr = self.ptr[piece.start : piece.stop + 1]
        return Structures(ptr=ptr - ptr[0], columns=found, **geometry)

    def take(self, rows: Array) -> Structures:
        """Return structures by index, in the given order, with all their columns."""
        runs, order = _runs(rows)
        return Structures.concatenate([self.structures(run) for run in runs])[order]

    def take_predictions(self, method: str, rows: Array) -> dict[str, Array]:
        """Return all predictions of structures by index, in the given order."""
        runs, order = _runs(rows)
        starts = np.concatenate([[0], np.cumsum([int(self.ptr[i + 1] - self.ptr[i]) for i in np.unique(rows)])])
        atoms = [np.arange(starts[i], starts[i + 1]) for i in order] or [np.zeros(0, int)]
        take = {"structure": order, "atom": np.concatenate(atoms)}
        out = {}
        for name in self.fields(method):
            read = np.concatenate([self.prediction(method, name, run) for run in runs or [slice(0, 0)]])
            out[name] = read[take[PREDICTION_FIELDS[name].level]]
        return out

    def prediction(self, method: str, name: str, piece: slice) -> Array:
        """Return one prediction of the structures of a piece."""
        field = PREDICTION_FIELDS[name]
        where = f"predictions/{method}/{name}"
        return read_array(self._file, field, where, self.path, self._rows(field.level, piece))


class StructuresWriter:
    """Writes a file whose structures come in pieces; made by :func:`stream_structures`."""

    def __init__(self, file: h5py.File, sink: SpillFile, n: int, n_atoms: int, columns: Iterable[str]) -> None:
        self._file, self._sink, self._n, self._n_atoms = file, sink, n, n_atoms
        self._done = {"structure": 0, "atom": 0}
        self._columns = [_COLUMNS[name] for name in sorted(columns)]
        self._predicted: frozenset[str] | None = None
        self.ids: list[str] = []
        # Kept open: a closed dataset loses its cache, and a chunk that is half full would be written twice.
        self._sets = {
            "ptr": file.create_dataset("ptr", data=np.zeros(n + 1, "i8")),
            "id": file.create_dataset("id", data=np.zeros(n, "S32")),
        }
        for field in (*GEOMETRY, *self._columns):
            self._sets[field.path] = create_array(file, field, field.path, field.shape, n, n_atoms)

    def append(self, structures: Structures, predictions: Mapping[str, Predictions] | None = None) -> None:
        """Write the next structures, with the columns of this file and their predictions by method.

        Raises
        ------
        DataError
            When there are more structures than announced, an array has a wrong shape, or the piece has other
            predictions than the first one had.
        OSError
            When the file system refused.
        """
        first, end = self._done["structure"], self._done["structure"] + len(structures)
        atom, last = self._done["atom"], self._done["atom"] + int(structures.ptr[-1])
        if end > self._n or last > self._n_atoms:
            raise DataError(
                f"{end} structures with {last} atoms were to be written where {self._n} with {self._n_atoms} were "
                "announced. This is a bug in dubito."
            )
        self._require_same(predictions or {})
        rows = {"structure": slice(first, end), "atom": slice(atom, last)}
        self._sets["ptr"][first : end + 1] = structures.ptr + atom
        self._sets["id"][first:end] = np.array(structures.ids, dtype="S32")
        self.ids += structures.ids
        for field in GEOMETRY:
            self._sets[field.path][rows[field.level]] = getattr(structures, field.path)
        for field in self._columns:
            self._sets[field.path][rows[field.level]] = structures.column(field.path)
        for method, arrays in (predictions or {}).items():
            for name, data in arrays.items():
                field, path = prediction_field(name), f"predictions/{method}/{name}"
                part = rows[field.level]
                shape = trailing_shape(field, path, np.asarray(data), part.stop - part.start)
                if path not in self._sets:
                    self._sets[path] = create_array(self._file, field, path, shape, self._n, self._n_atoms)
                self._sets[path][part] = data
        self._done = {"structure": end, "atom": last}
        self._sink.check()

    def _require_same(self, predictions: Mapping[str, Predictions]) -> None:
        """Raise DataError unless these predictions are those of the first piece: a gap would read as zeros."""
        found = frozenset(f"{method}/{name}" for method, arrays in predictions.items() for name in arrays)
        if self._predicted is None:
            self._predicted = found
        if found != self._predicted:
            raise DataError(
                f"The structures from number {self._done['structure']} on come with the predictions "
                f"{sorted(found) or 'none'}, those before with {sorted(self._predicted) or 'none'}; all pieces of a "
                "file need the same. Mend the method: it has to say the same of every structure."
            )

    def require_complete(self) -> None:
        """Raise DataError unless all announced structures were written."""
        if self._done != {"structure": self._n, "atom": self._n_atoms}:
            raise DataError(
                f"Only {self._done['structure']} of {self._n} structures were written. This is a bug in dubito."
            )


@contextmanager
def stream_structures(
    path: Path, *, n: int, n_atoms: int, columns: Iterable[str] = (), attributes: Mapping[str, Any] | None = None
) -> Iterator[StructuresWriter]:
    """Yield a writer of a structures file; it is at ``path`` when the block ends well, and absent otherwise.

    Parameters
    ----------
    n, n_atoms : how many structures and atoms there will be
    columns : label, origin and provenance columns to write; where a piece lacks one, its default is written
    attributes : root attributes, JSON-serialisable

    Raises
    ------
    StorageError
        When the file system refuses (full disk, quota, permissions); an older file stays as it was.
    """
    remove_partials(path)
    with atomic_path(path) as partial, SpillFile(partial) as sink:
        with h5py.File(sink, "w") as file:
            writer = StructuresWriter(file, sink, n, n_atoms, columns)
            yield writer
            writer.require_complete()
            write_attributes(file, writer.ids, attributes)
        # What HDF5 held back reaches the disk when the file is closed.
        sink.check()
