"""The state of an unfinished training, so that a killed one goes on where it was.

torch reads a file with a flipped bit without complaint, so that what was written is told by a SHA-256 at the end of the
file. Files of before have none; theirs are the checksums of the zip archive, which torch writes and does not look at.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from dubito.core.files import write_bytes
from dubito.core.logs import get_logger

log = get_logger(__name__)
NAME = "checkpoint.pt"
_MARK = b"\ndubito sha256 "
_SEAL = len(_MARK) + hashlib.sha256().digest_size


def save_checkpoint(folder: Path, fingerprint: str, state: dict[str, Any]) -> None:
    """Write the state (tensors, numbers, strings, lists and dicts of them) atomically."""
    buffer = io.BytesIO()
    torch.save({"fingerprint": fingerprint, **state}, buffer)
    content = buffer.getvalue()
    write_bytes(folder / NAME, content + _MARK + hashlib.sha256(content).digest())


def has_checkpoint(folder: Path, fingerprint: str) -> bool:
    """Say whether the state kept in ``folder`` belongs to a training with this fingerprint."""
    state = _read(folder / NAME)
    return state is not None and state.get("fingerprint") == fingerprint


def load_checkpoint(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return the state of a training with the same fingerprint (data, settings, seed), else None."""
    state = _read(folder / NAME)
    if state is not None and state.get("fingerprint") != fingerprint:
        log.info("%s belongs to other data or settings; training starts anew", folder / NAME)
        return None
    return state


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        state = torch.load(io.BytesIO(_sound(path.read_bytes())), weights_only=True, map_location="cpu")
        if not isinstance(state, dict):
            raise ValueError("it holds no state of a training")
    except MemoryError:
        raise
    except Exception as error:  # torch's unpickler raises whatever the bytes make it stumble over
        log.warning("%s can't be used (%s); training starts anew", path, error)
        return None
    return state


def _sound(content: bytes) -> bytes:
    """Return the part that torch wrote, when it is what it was.

    Raises
    ------
    ValueError, zipfile.BadZipFile
        When it is not.
    """
    if content[-_SEAL:].startswith(_MARK):
        state = content[:-_SEAL]
        if hashlib.sha256(state).digest() != content[len(state) + len(_MARK) :]:
            raise ValueError("its content is not what was written")
        return state
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"'{damaged}' in it is not what was written")
    return content
