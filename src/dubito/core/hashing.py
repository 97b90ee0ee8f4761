"""Content hashes of settings, files and structures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Positions are rounded to this many decimals (Å) before hashing: extxyz keeps eight.
POSITION_DECIMALS = 6


def hash_json(value: Any, length: int = 16) -> str:
    """Hash a JSON-serialisable value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def hash_file(path: Path, length: int = 16) -> str:
    """Hash the bytes of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:length]


def structure_id(
    atomic_numbers: NDArray[np.integer[Any]],
    positions: NDArray[np.floating[Any]],
    cell: NDArray[np.floating[Any]],
    pbc: NDArray[np.bool_],
    charge: int,
    multiplicity: int,
) -> str:
    """Return the 32-character content id of one structure (exact geometry, not symmetry-reduced)."""
    digest = hashlib.sha256()
    digest.update(np.ascontiguousarray(atomic_numbers, dtype="u1").tobytes())
    # Adding zero turns -0.0 into 0.0, which has other bytes.
    digest.update((np.round(positions, POSITION_DECIMALS) + 0.0).astype("<f8").tobytes())
    if np.any(pbc):
        digest.update((np.round(cell, POSITION_DECIMALS) + 0.0).astype("<f8").tobytes())
        digest.update(np.asarray(pbc, dtype="?").tobytes())
    digest.update(f"{int(charge)}/{int(multiplicity)}".encode())
    return digest.hexdigest()[:32]
