"""Fitted methods as files: safetensors with JSON metadata, bound to the potential they belong to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dubito.core.errors import ModelError
from dubito.core.files import write_bytes
from dubito.model.potential import Potential

FORMAT = "dubito/uncertainty"
FORMAT_VERSION = 1


def fingerprint(potential: Potential) -> str:
    """Hash the weights and statistics of a potential: what a fitted method must find unchanged."""
    digest = hashlib.sha256()
    for name, parameter in potential.named_parameters():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(parameter.detach().cpu().numpy()).tobytes())
    digest.update(potential.statistics.scale_ev.astype("<f8").tobytes())
    return digest.hexdigest()[:16]


def write_state(
    path: Path, name: str, potential: str, about: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]
) -> None:
    """Write the state of the method ``name`` that belongs to the potential with fingerprint ``potential``."""
    metadata = {"format": f"{FORMAT}/{name}", "format_version": FORMAT_VERSION, "potential": potential, **about}
    arrays = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
    write_bytes(path, save(arrays, metadata={"dubito": json.dumps(metadata)}))


def read_state(path: Path, name: str, potential: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read a state; return its metadata and tensors.

    Raises
    ------
    ModelError
        When the file can't be read, or is of another method, version or potential.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get("dubito", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (FileNotFoundError, SafetensorError, ValueError) as error:
        raise ModelError(f"{path} is not a readable state of the '{name}' method ({error}).") from error
    found = metadata.get("format")
    if found != f"{FORMAT}/{name}":
        raise ModelError(f"{path} holds {found!r}, expected '{FORMAT}/{name}'. Name the state of this method.")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"{path} has format version {metadata.get('format_version')}, expected {FORMAT_VERSION}. "
            f"Fit '{name}' again with this version of dubito."
        )
    if metadata.get("potential") != potential:
        raise ModelError(
            f"{path} was fitted to another model (weights {metadata.get('potential')}, found {potential}). A method "
            "says nothing about a model it was not fitted to; take the state beside this model, or fit again."
        )
    return metadata, tensors
