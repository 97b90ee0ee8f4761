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
from dubito.core.provenance import describe
from dubito.model.potential import Potential

FORMAT = "dubito/uncertainty"
FORMAT_VERSION = 1
# A campaign writes a file of this format, with a reason, where a method that does not drive could not be fitted.
NOT_FITTED = "dubito/not-fitted"


def fingerprint(potential: Potential) -> str:
    """Hash all that a potential's predictions follow from: what a fitted method must find unchanged.

    Architecture (but ``kernel``, which only says how it is computed), statistics and weights.
    """
    s = potential.statistics
    about = {
        "model": potential.config.model_dump(mode="json", exclude={"kernel"}),
        "species": [int(number) for number in s.species],
        "atomic_energies_ev": [float(value) for value in s.atomic_energies_ev],
        "scale_ev": [float(value) for value in s.scale_ev],
        "force_scale_ev_per_angstrom": float(s.force_scale_ev_per_angstrom),
        "avg_num_neighbors": float(s.avg_num_neighbors),
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, parameter in potential.named_parameters():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(parameter.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()[:16]


def write_state(
    path: Path, name: str, potential: str, about: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]
) -> None:
    """Write the state of the method ``name`` that belongs to the potential with fingerprint ``potential``."""
    metadata = {"format": f"{FORMAT}/{name}", "format_version": FORMAT_VERSION, "potential": potential, **about}
    metadata["provenance"] = describe()
    arrays = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
    write_bytes(path, save(arrays, metadata={"dubito": json.dumps(metadata)}))


def method_of(path: Path) -> str | None:
    """Return the name of the method whose state a file holds; None where it is none of this format."""
    try:
        found = _metadata(path).get("format")
    except ModelError:
        return None
    kind, _, name = str(found).rpartition("/")
    return name if kind == FORMAT else None


def _metadata(path: Path) -> dict[str, Any]:
    """Return the metadata; raise ModelError when the file can't be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get("dubito", "{}"))
    # A folder, or a file without permission, is an OSError of another kind than a missing one.
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(
            f"{path} is not a readable state of an uncertainty method ({error}). Give the path of a file that "
            "fitting wrote, or fit the method again."
        ) from error
    if not isinstance(metadata, dict):
        raise ModelError(f"{path} has metadata that are no mapping; it is damaged. Fit the method again.")
    return metadata


def read_state(path: Path, name: str, potential: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read a state; return its metadata and tensors.

    Raises
    ------
    ModelError
        When the file can't be read, or is of another method, version or potential.
    """
    metadata = _metadata(path)
    found = metadata.get("format")
    if found == NOT_FITTED:
        raise ModelError(f"'{name}' could not be fitted, as {path} says: {metadata.get('reason')} Take another method.")
    if found != f"{FORMAT}/{name}":
        raise ModelError(f"{path} holds {found!r}, expected '{FORMAT}/{name}'. Name the state of this method.")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"{path} has format version {metadata.get('format_version')}, expected {FORMAT_VERSION}. "
            f"Fit '{name}' again with this version of dubito."
        )
    if metadata.get("potential") != potential:
        raise ModelError(
            f"{path} was fitted to another model ({metadata.get('potential')}, found {potential}). A method "
            "says nothing about a model it was not fitted to; take the state beside this model, or fit again."
        )
    for key in ("settings", "calibration"):
        if not isinstance(metadata.get(key), dict):
            raise ModelError(f"{path} lacks its '{key}'; it is damaged. Fit '{name}' again.")
    try:
        with safe_open(path, framework="numpy") as file:
            return metadata, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"{path} can't be read to its end ({error}); it is damaged. Fit '{name}' again.") from error
