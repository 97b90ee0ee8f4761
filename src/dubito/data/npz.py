"""NumPy archives as rMD17 (https://doi.org/10.6084/m9.figshare.12672038) and sGDML write them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dubito.core.errors import DataError, nearest
from dubito.core.units import length_factor
from dubito.data.labels import attach_labels, parse_units, refuse_all_nan
from dubito.data.structures import Array, Structures

# rMD17 names first; their unit is always kcal/mol. The short names are sGDML's, whose unit varies.
_NUMBERS = ("nuclear_charges", "z")
_POSITIONS = ("coords", "R")
_ENERGY = ("energies", "E")
_FORCES = ("forces", "F")
_RMD17_UNITS = "kcal/mol, kcal/mol/Angstrom"


def read_npz(
    path: Path,
    *,
    energy_key: str | None = None,
    forces_key: str | None = None,
    charge: int = 0,
    multiplicity: int = 1,
    units: str | None = None,
) -> Structures:
    """Read structures of one set of atoms (or padded with zeros) from an npz archive.

    Positions are ``coords`` or ``R`` (n, N, 3), atomic numbers ``nuclear_charges`` or ``z``, (N,) or
    (n, N), energies ``energies`` or ``E``, forces ``forces`` or ``F``. Units are those given, else those
    in ``e_unit`` and ``r_unit``, else kcal/mol and Å for files with rMD17's names.

    Raises
    ------
    DataError
        When the archive can't be read, lacks positions, has labels of unknown unit or of wrong shape,
        or a named key is missing.
    """
    arrays = _load(path)
    numbers = _take(arrays, _NUMBERS, path)
    positions = np.asarray(_take(arrays, _POSITIONS, path), "f8")
    if positions.ndim == 2:
        positions = positions[None]
    n = len(positions)
    if positions.ndim != 3 or positions.shape[2] != 3 or numbers.shape[-1] != positions.shape[1]:
        raise DataError(
            f"{path}: positions have shape {positions.shape} and atomic numbers {numbers.shape}; "
            "expected (structures, atoms, 3) and (atoms,) or (structures, atoms)."
        )
    if not n:
        raise DataError(f"{path} holds no structures.")
    real = np.broadcast_to(np.asarray(numbers, int), positions.shape[:2])
    structures = Structures.build(
        [z[z > 0] for z in real],
        [x[z > 0] * _length(arrays, path) for x, z in zip(positions, real, strict=True)],
        charge=charge,
        multiplicity=multiplicity,
    )
    energy = _label(arrays, _ENERGY, energy_key, "energies", path)
    forces = _label(arrays, _FORCES, forces_key, "forces", path)
    if energy is None and forces is None:
        return structures
    factor = parse_units(units or _units(arrays, path), str(path))
    energy = np.full(n, np.nan) if energy is None else _shaped(energy, (n,), "energies", path) * factor.energy
    forces = (
        np.full(positions.shape, np.nan)
        if forces is None
        else _shaped(forces, positions.shape, "forces", path) * factor.forces
    )
    return attach_labels(structures, energy, forces[real > 0], None, str(path))


def _load(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise DataError(f"{path} holds one bare array; expected a .npz archive with named arrays.")
            return {name: archive[name] for name in archive.files}
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a readable npz archive ({error}). Fetch or write it again.") from error
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} holds Python objects, which dubito never unpickles ({error}). "
            "Save its arrays with plain numeric types, or convert it to extended XYZ."
        ) from error


def _take(arrays: Mapping[str, Array], names: tuple[str, ...], path: Path) -> Array:
    for name in names:
        if name in arrays:
            return arrays[name]
    raise DataError(f"{path} has none of the arrays {', '.join(names)}; it holds {', '.join(sorted(arrays))}.")


def _label(arrays: Mapping[str, Array], names: tuple[str, ...], key: str | None, what: str, path: Path) -> Array | None:
    """Return a label array, or None when the file has none under the usual names."""
    if key is not None and key not in arrays:
        guess = nearest(key, arrays)
        hint = f" Did you mean '{guess}'?" if guess else ""
        raise DataError(f"{path} has no array '{key}' for {what}.{hint} It holds {', '.join(sorted(arrays))}.")
    for name in (key,) if key is not None else names:
        if name in arrays:
            values = np.asarray(arrays[name], "f8")
            refuse_all_nan(True, values, what, str(path))
            return values
    return None


def _shaped(values: Array, shape: tuple[int, ...], what: str, path: Path) -> Array:
    if values.size != int(np.prod(shape)):
        raise DataError(f"{path}: {what} have shape {values.shape}, expected {shape}.")
    return values.reshape(shape)


def _text(value: Any) -> str:
    item = np.asarray(value).item()
    return item.decode() if isinstance(item, bytes) else str(item)


def _length(arrays: Mapping[str, Array], path: Path) -> float:
    if "r_unit" not in arrays:
        return 1.0
    try:
        return length_factor(_text(arrays["r_unit"]))
    except DataError as error:
        raise DataError(f"{path}: r_unit: {error}") from None


def _units(arrays: Mapping[str, Array], path: Path) -> str:
    """Return the file's own statement of its units."""
    if "e_unit" in arrays:
        energy = _text(arrays["e_unit"])
        length = _text(arrays["r_unit"]) if "r_unit" in arrays else "Angstrom"
        return f"{energy}, {energy}/{length}"
    if "coords" in arrays and "nuclear_charges" in arrays:
        return _RMD17_UNITS
    raise DataError(
        f"{path} does not say in which unit its labels are (no e_unit), and a guess could be wrong by a "
        "factor of 23. Add e_unit and r_unit to it, or state the units, e.g. 'kcal/mol, kcal/mol/Angstrom'."
    )
