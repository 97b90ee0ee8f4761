"""The files of potentials without torch: metadata, and joining members trained apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from dubito.core.errors import ModelError
from dubito.core.files import write_bytes

FORMAT = "dubito/potential"
FORMAT_VERSION = 1


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a potential's file.

    Raises
    ------
    ModelError
        When the file is missing, damaged, no potential, or from a newer dubito.
    """
    try:
        with safe_open(path, framework="np") as file:
            raw = (file.metadata() or {}).get("dubito")
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist; give the path of an ensemble.safetensors.") from error
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a readable safetensors file ({error}); make or copy it again.") from error
    metadata: dict[str, Any] = json.loads(raw) if raw else {}
    if metadata.get("format") != FORMAT:
        raise ModelError(f"{path} holds {metadata.get('format', 'no dubito metadata')!r}, expected {FORMAT!r}.")
    if metadata["format_version"] > FORMAT_VERSION:
        raise ModelError(
            f"{path} has format version {metadata['format_version']}, this dubito reads up to {FORMAT_VERSION}. "
            "Install a newer dubito."
        )
    return metadata


def hash_potential(path: Path) -> str:
    """Hash what a file says of a potential (weights, architecture, statistics), not when and where it was written.

    Raises
    ------
    ModelError
        See :func:`read_metadata`.
    """
    about = {key: value for key, value in read_metadata(path).items() if key != "provenance"}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, weights in sorted(load_file(path).items()):
        digest.update(f"{name} {weights.dtype} {weights.shape}".encode())
        digest.update(np.ascontiguousarray(weights).tobytes())
    return digest.hexdigest()[:16]


def encode(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return metadata as safetensors keeps it."""
    return {"dubito": json.dumps(metadata, sort_keys=True)}


def merge_files(paths: Sequence[Path], output: Path, *, provenance: Mapping[str, Any]) -> list[int]:
    """Join the members of several files of one training into one; return their numbers in order.

    Raises
    ------
    ModelError
        When the files differ in architecture or statistics, or share a member.
    """
    metadata = [read_metadata(path) for path in paths]
    for path, other in zip(paths[1:], metadata[1:], strict=True):
        for key in ("model", "statistics"):
            if other[key] != metadata[0][key]:
                raise ModelError(f"{path} and {paths[0]} differ in {key}; members of one ensemble must not.")
    members = [m for one in metadata for m in one["members"]]
    if len(set(members)) != len(members):
        raise ModelError(f"The files {[str(p) for p in paths]} share members: {members}.")
    order = np.argsort(members)
    weights = [load_file(path) for path in paths]
    merged = {name: np.concatenate([w[name] for w in weights])[order] for name in weights[0]}
    made = {**metadata[0], "members": sorted(members), "provenance": dict(provenance)}
    write_bytes(output, save(merged, metadata=encode(made)))
    return sorted(members)
