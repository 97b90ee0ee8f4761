"""Files that are either whole or absent: write beside, sync, rename."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dubito.core.errors import DataError, StorageError

_LARGEST = 1e12


def _storage_error(path: Path, error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = "the disk is full or the quota is used up"
        remedy = "Free some space and start the same command again"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        what = "writing there is not permitted"
        remedy = "Choose a folder you may write to, or mend its permissions"
    else:
        what = error.strerror or str(error)
        remedy = "Mend that and start the same command again"
    return StorageError(f"Could not write {path}: {what}. {remedy}: finished work is kept and is not computed twice.")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some network file systems refuse to sync a folder
        pass
    finally:
        os.close(handle)


def partial_prefix(path: Path) -> str:
    """Return how the names of temporary files for ``path`` begin on this machine; a process number follows.

    The machine is in it because a process number means nothing on another one that shares the file system.
    """
    return f".{path.name}.{socket.gethostname().replace('.', '-')}."


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Say what the file system refused while ``path`` was being made.

    Raises
    ------
    StorageError
        When an OSError comes out of the block.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise _storage_error(path, error) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced and renamed to ``path``.

    On any failure the temporary file is removed and an older ``path`` stays as it was.

    Raises
    ------
    StorageError
        When the file system refuses (full disk, quota, permissions).
    """
    path = Path(path)
    partial = path.with_name(f"{partial_prefix(path)}{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        _remove(partial)
        if isinstance(error, StorageError):
            raise
        raise _storage_error(path, error) from error
    except BaseException:
        _remove(partial)
        raise


def _remove(partial: Path) -> None:
    """Remove a temporary file; a failure here must not hide the one that led here."""
    with suppress(OSError):
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically.

    HDF5, torch and safetensors hide a full disk in errors of their own, and HDF5 may crash on it, so
    their files are made in memory and written from here.
    """
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically (sorted keys, so that equal content has equal bytes)."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, default=_plain) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises
    ------
    DataError
        When the file is missing or is not JSON.
    StorageError
        When the file system does not let it be read.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist. Run the stage that writes it first.") from error
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, a number too long, nested too deep
        raise DataError(f"{path} is not valid JSON ({error}). Delete it and run the stage again.") from error
    except OSError as error:
        raise StorageError(f"{path} can't be read ({error.strerror or error}). Mend that and start again.") from error


def read_object(path: Path, **needed: type | tuple[type, ...]) -> dict[str, Any]:
    """Read a JSON object that has the ``needed`` keys, with values of these types, numbers of a sane size.

    Raises
    ------
    DataError, StorageError
        As :func:`read_json`, and when the content is something else.
    """
    found = read_json(path)
    wrong = "it holds no object" if not isinstance(found, dict) else ""
    for key, kind in {} if wrong else needed.items():
        value = found.get(key)
        # A yes or no is no number, though Python takes it for one; nor is NaN.
        is_odd = (kind is not bool and isinstance(value, bool)) or (
            isinstance(value, int | float) and not abs(value) < _LARGEST
        )
        if is_odd or not isinstance(value, kind) or key not in found:
            wrong = f"'{key}' is missing or not what it should be"
            break
    if wrong:
        raise DataError(f"{path} is damaged: {wrong}. Delete it and start the same command again; it is made anew.")
    return dict(found)


def _plain(value: Any) -> Any:
    """Turn numpy scalars and arrays, paths and sets into JSON."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} can't be written as JSON")
