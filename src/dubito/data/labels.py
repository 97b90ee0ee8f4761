"""Labels found in files of others: units, completeness, and the faults that must not pass silently."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dubito.core.errors import DataError
from dubito.core.logs import get_logger
from dubito.core.units import energy_factor, force_factor, length_factor
from dubito.data.structures import REFERENCE, Array, Structures

log = get_logger(__name__)

# 1 GPa in eV/Å³ (CODATA 2018).
_GPA = 6.241509074460763e-3


@dataclass(frozen=True)
class LabelUnits:
    """Factors that turn a file's labels into eV, eV/Å and eV/Å³."""

    energy: float = 1.0
    forces: float = 1.0
    stress: float = 1.0


@lru_cache(maxsize=64)
def parse_units(text: str, where: str) -> LabelUnits:
    """Read a statement such as ``"kcal/mol, kcal/mol/Angstrom"``: energy, then force, then stress.

    A force unit that is not stated is the energy unit per Å, a stress unit the energy unit per Å³.

    Raises
    ------
    DataError
        When a unit is not known; the message names the file.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not 1 <= len(parts) <= 3:
        raise DataError(
            f"{where} states its units as '{text}'; expected energy, force and stress units separated by "
            "commas, e.g. 'eV, eV/Angstrom, eV/Angstrom^3'."
        )
    try:
        energy = energy_factor(parts[0])
        forces = force_factor(parts[1]) if len(parts) > 1 else energy
        stress = _stress_factor(parts[2]) if len(parts) > 2 else energy
    except DataError as error:
        raise DataError(f"{where} states its units as '{text}': {error}") from None
    return LabelUnits(energy, forces, stress)


def _stress_factor(unit: str) -> float:
    if unit.lower() in ("gpa", "kbar"):
        return _GPA if unit.lower() == "gpa" else 0.1 * _GPA
    energy, _, length = unit.rpartition("/")
    base = length.strip().removesuffix("3").rstrip("^*")
    if not energy or base == length.strip():
        raise DataError(f"The stress unit '{unit}' is not of the form energy/length^3, e.g. 'eV/Angstrom^3'.")
    return energy_factor(energy) / length_factor(base) ** 3


def attach_labels(structures: Structures, energy: Array, forces: Array, stress: Array | None, where: str) -> Structures:
    """Give structures the labels of a file; those that lack energy or forces stay unlabelled.

    Parameters
    ----------
    energy : (n,) eV, NaN where the file has none
    forces : (N, 3) eV/Å, NaN where the file has none
    stress : (n, 6) eV/Å³, NaN where the file has none; or None
    where : the file, for messages

    Raises
    ------
    DataError
        When all energies or all forces are zero, which a calculation never gives.
    """
    owner = structures.structure_of_atom
    whole = np.ones(len(structures), bool)
    whole[owner[~np.isfinite(forces).all(axis=1)]] = False
    has_energy = np.isfinite(energy)
    mask = whole & has_energy
    _refuse_zeros(structures, energy, forces, has_energy, whole, where)
    columns: dict[str, Array | str] = {
        "labels__energy": energy,
        "labels__forces": forces,
        "labels__mask": mask,
        "provenance__kind": np.where(mask, REFERENCE.encode(), b""),
    }
    if stress is not None and np.isfinite(stress).any():
        columns["labels__stress"] = stress
    log.info("%s: %d structures, %d of them labelled", where, len(structures), int(mask.sum()))
    for count, lacks in (
        (int((has_energy & ~whole).sum()), "an energy but no forces"),
        (int((whole & ~has_energy).sum()), "forces but no energy"),
    ):
        if count:
            log.warning("%s: %d structures have %s; they count as unlabelled", where, count, lacks)
    return structures.with_columns(**columns)


def _refuse_zeros(
    structures: Structures, energy: Array, forces: Array, has_energy: Array, whole: Array, where: str
) -> None:
    if has_energy.any() and not np.any(energy[has_energy]):
        raise DataError(
            f"{where}: all {int(has_energy.sum())} energies are zero, so they are placeholders, not labels. "
            "Name the key that holds the energies, or remove this one."
        )
    # A lone atom has no force.
    several = (whole & (structures.n_atoms > 1))[structures.structure_of_atom]
    if several.any() and not np.any(forces[several]):
        raise DataError(
            f"{where}: all forces are zero, so they are placeholders, not labels. "
            "Name the key that holds the forces, or remove this one."
        )


def refuse_all_nan(found: bool, values: Array, what: str, where: str) -> None:
    """Raise DataError when a file holds a label key whose every value is NaN."""
    if found and not np.isfinite(values).any():
        raise DataError(
            f"{where}: every one of its {what} is NaN or infinite, so it labels nothing. "
            f"Name the key that holds the {what}, or remove this one."
        )
