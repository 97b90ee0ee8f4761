"""Structures to and from ASE's Atoms, with labels, origin and provenance.

Labels are ``REF_energy`` and ``REF_forces`` in ``info`` and ``arrays``, or a calculator's stored results
(where ASE puts plain ``energy`` and ``forces`` of an extended XYZ file). ``info["units"]`` is honoured.
Origin and provenance travel as ``dubito_*`` keys of ``info``, so that labels made by a model don't pass
for reference labels after a detour through a file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dubito.core.errors import DataError, nearest
from dubito.core.fields import ORIGIN, PROVENANCE, Field
from dubito.core.hashing import hash_json
from dubito.data.labels import LabelUnits, attach_labels, parse_units, refuse_all_nan
from dubito.data.structures import Array, Structures

if TYPE_CHECKING:
    from ase import Atoms

UNITS = "eV, eV/Angstrom, eV/Angstrom^3"
_PREFIX = "dubito_"
# Readers of extended XYZ turn "12e4" into a number; hashes are therefore written with a mark.
_HASH_MARK = "id:"
_HASHES = {"origin/parent", "provenance/settings_hash"}


def to_ase(structures: Structures) -> list[Atoms]:
    """Return one Atoms per structure; labels as ``REF_energy``, ``REF_forces``, ``REF_stress``."""
    from ase import Atoms

    carried = {f.path: structures.columns[f.path] for f in ORIGIN + PROVENANCE if f.path in structures.columns}
    out = []
    for i, (start, stop) in enumerate(zip(structures.ptr[:-1], structures.ptr[1:], strict=True)):
        atoms = Atoms(
            numbers=structures.atomic_numbers[start:stop],
            positions=structures.positions[start:stop],
            cell=structures.cell[i],
            pbc=structures.pbc[i],
        )
        atoms.info["charge"] = int(structures.charge[i])
        atoms.info["multiplicity"] = int(structures.multiplicity[i])
        if np.isfinite(structures.energy[i]):
            atoms.info["REF_energy"] = float(structures.energy[i])
            atoms.info["units"] = UNITS
        if np.isfinite(structures.forces[start:stop]).all():
            atoms.arrays["REF_forces"] = structures.forces[start:stop].copy()
        stress = structures.column("labels/stress")[i] if "labels/stress" in structures.columns else None
        if stress is not None and np.isfinite(stress).all():
            atoms.info["REF_stress"] = stress.copy()
        for path, values in carried.items():
            text = _written(path, values[i])
            if text is not None:
                atoms.info[_PREFIX + path.split("/")[1]] = text
        out.append(atoms)
    return out


def from_ase(
    images: Sequence[Atoms],
    *,
    energy_key: str | None = None,
    forces_key: str | None = None,
    charge: int = 0,
    multiplicity: int = 1,
    trajectory: str | None = None,
    units: str | None = None,
    source: str = "ase",
    where: str = "the list of Atoms",
) -> Structures:
    """Turn Atoms into structures.

    Parameters
    ----------
    energy_key, forces_key : keys of ``info`` and ``arrays`` (or of the calculator's results) that hold
        the labels; None: ``REF_*`` where any structure has them, else the calculator's results. Given
        ``X_energy`` alone, forces are looked for under ``X_forces``
    charge, multiplicity : used where ``info`` has no ``charge`` or ``multiplicity``
    trajectory : id given to all, so that they stay in one split; None: ``info["trajectory"]`` if any
    units : statement that replaces ``info["units"]``
    source : kept as the origin of structures that state none
    where : the file, for messages

    Raises
    ------
    DataError
        When there are no structures, a named key labels nothing, labels are all zero or not finite,
        or a unit is unknown.
    """
    if not images:
        raise DataError(f"{where} holds no structures.")
    try:
        structures = Structures.build(
            [a.numbers for a in images],
            [a.positions for a in images],
            cell=np.stack([np.asarray(a.cell[:]) for a in images]),
            pbc=np.stack([a.pbc for a in images]),
            charge=[_integer(a.info.get("charge", charge), "charge", where) for a in images],
            multiplicity=[
                _integer(
                    a.info.get("multiplicity", a.info.get("spin_multiplicity", multiplicity)), "multiplicity", where
                )
                for a in images
            ],
        )
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    names = _label_names(images, energy_key, forces_key, where)
    factors = [_units_of(a, units, where) for a in images]
    energy, forces, stress = _collect(images, names, factors, where)
    structures = attach_labels(structures, energy, forces, stress, where)
    if not np.isfinite(energy).any() and not np.isfinite(forces).any():
        _say_what_there_is(images, where)
    return _carried(structures, images, trajectory, source)


# --- labels -----------------------------------------------------------------------------------


def _results(atoms: Atoms) -> dict[str, Any]:
    # `.results`, not `.get_forces()`: the latter would compute, or hide forces on fixed atoms.
    return dict(getattr(atoms.calc, "results", None) or {})


def _label_names(
    images: Sequence[Atoms], energy_key: str | None, forces_key: str | None, where: str
) -> tuple[str, str, str]:
    """Return the keys of energy, forces and stress."""
    if energy_key is not None or forces_key is not None:
        known = _known_keys(images)
        for key, what in ((energy_key, "energy"), (forces_key, "forces")):
            if key is not None and key not in known:
                guess = nearest(key, known)
                hint = f" Did you mean '{guess}'?" if guess else ""
                raise DataError(
                    f"{where}: the key '{key}' named for the {what} is in none of its {len(images)} structures, "
                    f"so it labels nothing.{hint} It holds: {', '.join(sorted(known))}."
                )
        return (
            energy_key or str(forces_key).replace("forces", "energy"),
            forces_key or str(energy_key).replace("energy", "forces"),
            str(energy_key).replace("energy", "stress") if energy_key else "REF_stress",
        )
    if any("REF_energy" in a.info or "REF_forces" in a.arrays for a in images):
        return "REF_energy", "REF_forces", "REF_stress"
    return "energy", "forces", "stress"


def _known_keys(images: Sequence[Atoms]) -> set[str]:
    keys: set[str] = set()
    for atoms in images:
        keys |= set(atoms.info) | set(atoms.arrays) | set(_results(atoms))
    return keys - {"numbers", "positions"}


def _collect(
    images: Sequence[Atoms], names: tuple[str, str, str], factors: Sequence[LabelUnits], where: str
) -> tuple[Array, Array, Array]:
    """Return energies (n,), forces (N, 3) and stresses (n, 6) in eV and Å; NaN where there is none."""
    energy = np.full(len(images), np.nan)
    stress = np.full((len(images), 6), np.nan)
    forces = [np.full((len(a), 3), np.nan) for a in images]
    found = {"energies": False, "forces": False}
    for i, (atoms, factor) in enumerate(zip(images, factors, strict=True)):
        results = _results(atoms)
        value = atoms.info.get(names[0], results.get(names[0]))
        if value is not None:
            found["energies"] = True
            energy[i] = factor.energy * _number(value, names[0], where)
        value = atoms.arrays.get(names[1], results.get(names[1]))
        if value is not None:
            found["forces"] = True
            forces[i] = factor.forces * _vectors(value, len(atoms), names[1], where)
        value = atoms.info.get(names[2], results.get(names[2]))
        if value is not None and atoms.pbc.any():
            stress[i] = factor.stress * _voigt(value, names[2], where)
    together = np.concatenate(forces)
    refuse_all_nan(found["energies"], energy, "energies", where)
    refuse_all_nan(found["forces"], together, "forces", where)
    return energy, together, stress


def _number(value: Any, key: str, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise DataError(f"{where}: '{key}' holds {value!r}; expected one number per structure.") from None


def _vectors(value: Any, n_atoms: int, key: str, where: str) -> Array:
    try:
        array = np.asarray(value, "f8")
    except (TypeError, ValueError):
        array = np.zeros(0)
    if array.shape != (n_atoms, 3):
        raise DataError(f"{where}: '{key}' has shape {np.shape(value)}, expected ({n_atoms}, 3).")
    return array


def _voigt(value: Any, key: str, where: str) -> Array:
    array = np.asarray(value, "f8").reshape(-1)
    if array.size == 9:
        full = array.reshape(3, 3)
        array = 0.5 * (full + full.T)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    if array.size != 6:
        raise DataError(f"{where}: '{key}' has shape {np.shape(value)}, expected (6,) or (3, 3).")
    return array


def _units_of(atoms: Atoms, units: str | None, where: str) -> LabelUnits:
    said = units if units is not None else atoms.info.get("units")
    return LabelUnits() if said is None else parse_units(str(said), where)


def _integer(value: Any, what: str, where: str) -> int:
    number = _number(value, what, where)
    if number != round(number):
        raise DataError(f"{where}: the {what} is {value}; expected a whole number.")
    return round(number)


def _say_what_there_is(images: Sequence[Atoms], where: str) -> None:
    """Point to keys that may be labels: a file that was meant to be labelled is then not taken as bare."""
    like = sorted(k for k in _known_keys(images) if "energy" in k.lower() or "force" in k.lower())
    if like:
        from dubito.core.logs import get_logger

        get_logger(__name__).warning(
            "%s is read as unlabelled; it holds %s: name one of them if it is the label", where, ", ".join(like)
        )


# --- origin and provenance --------------------------------------------------------------------


def _written(path: str, value: Any) -> str | int | float | None:
    """Return a column's value as ``info`` takes it; None where there is nothing to say."""
    if isinstance(value, bytes):
        mark = _HASH_MARK if path in _HASHES else ""
        return mark + value.decode() if value else None
    number: int | float = value.item()
    absent = not math.isfinite(number) or (path == "origin/iteration" and number < 0)
    return None if absent else number


def _carried(structures: Structures, images: Sequence[Atoms], trajectory: str | None, source: str) -> Structures:
    """Restore origin and provenance columns, and fill in what the file itself tells."""
    columns: dict[str, Any] = {}
    for field in ORIGIN + PROVENANCE:
        key = _PREFIX + field.path.split("/")[1]
        if any(key in a.info for a in images):
            default = structures.column(field.path)
            columns[field.path] = [
                _read(field, a.info[key]) if key in a.info else default[i] for i, a in enumerate(images)
            ]
    if "origin/trajectory" not in columns and any("trajectory" in a.info for a in images):
        columns["origin/trajectory"] = [ascii_bytes(a.info.get("trajectory", ""), 48) for a in images]
    if trajectory is not None:
        columns["origin/trajectory"] = ascii_bytes(trajectory, 48)
    if "origin/source" not in columns:
        columns["origin/source"] = [ascii_bytes(source, 52) + f"[{i}]".encode() for i in range(len(images))]
    if "provenance/method" not in columns and any("theory" in a.info for a in images):
        theories = [str(a.info.get("theory", "")) for a in images]
        columns["provenance/method"] = [ascii_bytes(t, 64) for t in theories]
        columns["provenance/settings_hash"] = [hash_json({"theory": t}) if t else "" for t in theories]
    return structures.with_columns(**{path.replace("/", "__"): v for path, v in columns.items()})


def _read(field: Field, value: Any) -> Any:
    if field.dtype.startswith("S"):
        text = str(value)
        return ascii_bytes(text.removeprefix(_HASH_MARK) if field.path in _HASHES else text, int(field.dtype[1:]))
    return value


def ascii_bytes(text: Any, width: int) -> bytes:
    """Return text as at most ``width`` ASCII bytes, as the columns of a structures file hold it."""
    return str(text).encode("ascii", "replace")[:width]
