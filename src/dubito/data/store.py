"""The HDF5 schema ``dubito/structures`` v1: structures, labels, origin, provenance and predictions.

Flat arrays and ``ptr`` with explicit chunks (h5py's automatic ones read 40 times slower), a ``unit``
attribute on every dimensional array, files written beside and renamed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dubito.core.errors import DataError
from dubito.core.fields import ALL, GEOMETRY, PREDICTION_FIELDS, Field
from dubito.core.files import write_bytes
from dubito.core.hashing import hash_json
from dubito.core.provenance import describe
from dubito.data.structures import Array, Structures

SCHEMA = "dubito/structures"
SCHEMA_VERSION = 1
_CHUNK_STRUCTURES = 64

Predictions = Mapping[str, Array]
"""Arrays of one method by field name (see ``core.fields.PREDICTIONS``)."""


def write_structures(
    path: Path,
    structures: Structures,
    *,
    predictions: Mapping[str, Predictions] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write structures, and predictions by method, atomically.

    ``attributes`` (JSON-serialisable) land in the file's root attributes.
    """
    with h5py.File(f"{path.name}.memory", "w", driver="core", backing_store=False) as file:
        write_attributes(file, structures.ids, attributes)
        file.create_dataset("ptr", data=structures.ptr)
        file.create_dataset("id", data=np.array(structures.ids, dtype="S32"))
        for field in ALL:
            data = getattr(structures, field.path, None) if field in GEOMETRY else structures.columns.get(field.path)
            if data is not None:
                _write_array(file, field, field.path, data, structures)
        for method, arrays in (predictions or {}).items():
            for name, data in arrays.items():
                _write_array(file, prediction_field(name), f"predictions/{method}/{name}", np.asarray(data), structures)
        file.flush()
        image = file.id.get_file_image()
    write_bytes(path, image)


def write_attributes(file: h5py.File, ids: list[str], attributes: Mapping[str, Any] | None) -> None:
    """Write the root attributes: schema, origin, hash of the content, and the caller's own as JSON."""
    file.attrs.update(
        schema=SCHEMA,
        schema_version=SCHEMA_VERSION,
        created_by=json.dumps(describe()),
        content_hash=hash_json(sorted(ids)),
    )
    for key, value in (attributes or {}).items():
        file.attrs[key] = json.dumps(value)


def prediction_field(name: str) -> Field:
    """Return the field of a prediction.

    Raises
    ------
    DataError
        When there is none of this name.
    """
    if name not in PREDICTION_FIELDS:
        raise DataError(f"'{name}' is not a prediction field; known: {sorted(PREDICTION_FIELDS)}.")
    return PREDICTION_FIELDS[name]


def _write_array(file: h5py.File, field: Field, path: str, data: Array, structures: Structures) -> None:
    n, n_atoms = len(structures), int(structures.ptr[-1])
    shape = trailing_shape(field, path, data, n if field.level == "structure" else n_atoms)
    create_array(file, field, path, shape, n, n_atoms, data.astype(field.dtype))


def trailing_shape(field: Field, path: str, data: Array, rows: int) -> tuple[int, ...]:
    """Return the shape of one row of ``data``, which must be that of the field.

    Raises
    ------
    DataError
        When the shape is another, or there are not ``rows`` rows.
    """
    shape = tuple(got if want == -1 else want for want, got in zip(field.shape, data.shape[1:], strict=False))
    if data.shape != (rows, *shape) or len(shape) != len(field.shape):
        raise DataError(f"{path} has shape {data.shape}, expected {(rows, *field.shape)}.")
    return shape


def create_array(
    file: h5py.File, field: Field, path: str, shape: tuple[int, ...], n: int, n_atoms: int, data: Array | None = None
) -> h5py.Dataset:
    """Create the dataset of a field for ``n`` structures with ``n_atoms`` atoms in all; without data it is unfilled."""
    rows = n if field.level == "structure" else n_atoms
    options: dict[str, Any] = {}
    if rows > 4 * _CHUNK_STRUCTURES:
        per_structure = 1 if field.level == "structure" else max(1, rows // max(1, n))
        options = {
            "chunks": (min(rows, _CHUNK_STRUCTURES * per_structure), *shape),
            "compression": "gzip",
            "compression_opts": 1,
            "shuffle": True,
        }
    dataset = file.create_dataset(path, shape=(rows, *shape), dtype=field.dtype, data=data, **options)
    if field.unit is not None:
        dataset.attrs["unit"] = field.unit
    return dataset


def read_structures(path: Path) -> Structures:
    """Read all structures of a file into memory.

    Raises
    ------
    DataError
        When the file is missing, damaged, of another or a newer schema, or lacks a unit.
    """
    with open_file(path) as file:
        require_geometry(file, path)
        arrays = {f.path: read_array(file, f, f.path, path) for f in ALL if f.path in file}
        geometry = {f.path: arrays.pop(f.path) for f in GEOMETRY}
        return Structures(ptr=file["ptr"][:], columns=arrays, **geometry)


def read_predictions(path: Path) -> dict[str, dict[str, Array]]:
    """Read the predictions of a file: arrays by method and field."""
    with open_file(path) as file:
        return {
            method: {
                name: read_array(file, PREDICTION_FIELDS[name], f"predictions/{method}/{name}", path)
                for name in group
                if name in PREDICTION_FIELDS
            }
            for method, group in file.get("predictions", {}).items()
        }


def read_ids(path: Path) -> list[str]:
    """Read the content ids of a file's structures without the structures."""
    with open_file(path) as file:
        return [bytes(name).decode() for name in file["id"][:]]


def read_attributes(path: Path) -> dict[str, Any]:
    """Read the root attributes of a file (JSON values are decoded)."""
    out: dict[str, Any] = {}
    with open_file(path) as file:
        for key, value in file.attrs.items():
            try:
                out[key] = json.loads(value)
            except (TypeError, ValueError):
                out[key] = value.item() if hasattr(value, "item") else value
    return out


def require_geometry(file: h5py.File, path: Path) -> None:
    """Raise DataError when an open file lacks a part of the geometry."""
    missing = [f.path for f in GEOMETRY if f.path not in file]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}: it is damaged. Make it again.")


def open_file(path: Path) -> h5py.File:
    """Open a structures file for reading.

    Raises
    ------
    DataError
        When it is missing, damaged, or of another or a newer schema.
    """
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.") from error
    except OSError as error:
        raise DataError(
            f"{path} is not a readable HDF5 file ({error}). If it was cut off while it was written or copied, "
            "delete it and start the campaign again: only this file is made anew."
        ) from error
    schema, version = file.attrs.get("schema"), int(file.attrs.get("schema_version", 0))
    if schema != SCHEMA or version > SCHEMA_VERSION:
        file.close()
        if schema == SCHEMA:
            raise DataError(
                f"{path} has schema version {version}, this dubito reads up to {SCHEMA_VERSION}. "
                "Install a newer dubito."
            )
        raise DataError(f"{path} is not a dubito structures file (schema {schema!r}, expected {SCHEMA!r}).")
    return file


def read_array(file: h5py.File, field: Field, name: str, path: Path, rows: slice = slice(None)) -> Array:
    """Read a dataset, or some of its rows, after its unit was checked."""
    dataset = file[name]
    unit = dataset.attrs.get("unit")
    if field.unit is not None and unit != field.unit:
        raise DataError(
            f"{path}: {name} has unit {unit!r}, expected {field.unit!r}. A file without the right unit is refused, "
            "since a silent guess would spoil the training; write it with dubito, or set the attribute."
        )
    array: Array = dataset[rows]
    return array
