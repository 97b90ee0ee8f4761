"""What one member said of a pool, kept on the disk between the passes over it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# Energy (eV), force (eV/Å), and distance or standard deviation of each atom.
WIDTH = 5


class Scratch:
    """Rows of five numbers, one for each atom, in a file without a name: it is gone with the process.

    Parameters
    ----------
    folder : where the file lies; the file system of the result, which has room for as much
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, first: int, rows: Array) -> None:
        """Write rows (m, 5) from atom ``first`` on."""
        self._file.seek(8 * WIDTH * first)
        self._file.write(np.ascontiguousarray(rows, "<f8").tobytes())

    def read(self, first: int, last: int) -> Array:
        """Return the rows (last - first, 5) of atoms ``first`` to ``last``."""
        self._file.seek(8 * WIDTH * first)
        raw = self._file.read(8 * WIDTH * (last - first))
        return np.frombuffer(raw, "<f8").reshape(-1, WIDTH).copy()
