"""A file for HDF5 that takes a full disk upon itself.

HDF5 can't close a file whose last blocks it could not write, and crashes the process on the way out. This file
never refuses a write: from the first failure on, blocks are kept in memory, HDF5 closes its file in peace, and
:meth:`SpillFile.check` raises what the file system had said. The writer asks after every piece, so that what
is kept is one piece and HDF5's caches.
"""

from __future__ import annotations

import os
from contextlib import suppress
from glob import escape
from pathlib import Path
from types import TracebackType
from typing import Self

from dubito.core.files import partial_prefix
from dubito.core.locks import process_start


class SpillFile:
    """A new file at ``path`` with the methods that h5py asks of a file object."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._position, self._size = 0, 0
        self._kept: list[tuple[int, bytes]] = []
        self.error: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)

    def check(self) -> None:
        """Raise the OSError of the first write that failed, if one did."""
        if self.error is not None:
            raise self.error

    def write(self, block: bytes | memoryview) -> int:
        """Write at the position; after a failure keep the block instead."""
        data = memoryview(block).cast("B")
        if self.error is None:
            try:
                self._write_all(data)
            except OSError as error:
                self.error = error
        if self.error is not None:
            self._kept.append((self._position, bytes(data)))
        self._position += len(data)
        self._size = max(self._size, self._position)
        return len(data)

    def _write_all(self, data: memoryview) -> None:
        done = 0
        while done < len(data):
            done += os.pwrite(self._handle, data[done:], self._position + done)

    def readinto(self, buffer: memoryview) -> int:
        """Read at the position what was written, wherever it is."""
        view = memoryview(buffer).cast("B")
        length = max(0, min(len(view), self._size - self._position))
        found = os.pread(self._handle, length, self._position)
        view[:length] = found + bytes(length - len(found))
        for start, block in self._kept:
            first, last = max(start, self._position), min(start + len(block), self._position + length)
            if first < last:
                view[first - self._position : last - self._position] = block[first - start : last - start]
        self._position += length
        return length

    def read(self, size: int = -1) -> bytes:
        """Read ``size`` bytes, or to the end."""
        buffer = bytearray(max(0, self._size - self._position if size < 0 else size))
        return bytes(buffer[: self.readinto(memoryview(buffer))])

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def truncate(self, size: int | None = None) -> int:
        """Set the length of the file."""
        self._size = self._position if size is None else size
        if self.error is None:
            try:
                os.ftruncate(self._handle, self._size)
            except OSError as error:
                self.error = error
        return self._size

    def flush(self) -> None:
        """Do nothing: nothing is buffered here, and the file is synced when it is complete."""


def remove_partials(path: Path) -> None:
    """Remove what killed processes of this machine left beside ``path``: a pool is written for minutes.

    Files of living processes stay, and so do those of other machines and those whose name has no process number.
    """
    for partial in path.parent.glob(f"{escape(partial_prefix(path))}*.partial"):
        number = partial.name.split(".")[-2]
        if number.isdigit() and int(number) != os.getpid() and process_start(int(number)) is None:
            with suppress(OSError):
                partial.unlink()
