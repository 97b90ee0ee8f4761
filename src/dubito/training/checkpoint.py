"""The state of an unfinished training, so that a killed one goes on where it was."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from dubito.core.files import write_bytes
from dubito.core.logs import get_logger

log = get_logger(__name__)
NAME = "checkpoint.pt"


def save_checkpoint(folder: Path, fingerprint: str, state: dict[str, Any]) -> None:
    """Write the state (tensors, numbers, strings, lists and dicts of them) atomically."""
    buffer = io.BytesIO()
    torch.save({"fingerprint": fingerprint, **state}, buffer)
    write_bytes(folder / NAME, buffer.getvalue())


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
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, OSError, ValueError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        log.warning("%s can't be read (%s); training starts anew", path, error)
        return None
    return state
