"""The equilibrium geometry a campaign starts from."""

from __future__ import annotations

from pathlib import Path

from dubito.config.data import DataConfig, RattledStart
from dubito.core.errors import ConfigError, DataError, nearest
from dubito.data.formats import read_any
from dubito.data.structures import Structures


def equilibrium(data: DataConfig) -> Structures:
    """Return the one structure that ``data.initial`` starts from, without labels.

    A named molecule, or the first structure of the (first) file. Charge and multiplicity are those of the
    configuration wherever the file states none.

    Raises
    ------
    ConfigError
        When the molecule is unknown or the file can't be read.
    """
    initial = data.initial
    if isinstance(initial, RattledStart) and initial.molecule is not None:
        return _named(initial.molecule, initial.charge, initial.multiplicity)
    if isinstance(initial, RattledStart):
        key, file = "data.initial.file", str(initial.file)
    else:
        key, file = "data.initial.files", initial.files[0]
    try:
        found = read_any(Path(file), charge=initial.charge, multiplicity=initial.multiplicity)
    except DataError as error:
        raise ConfigError(f"{key}: {error}") from error
    if isinstance(initial, RattledStart) and len(found) > 1:
        raise ConfigError(
            f"{key}: '{file}' holds {len(found)} structures, but one is displaced. Keep that one in the file, or take "
            "all of them with data.initial.kind 'files'."
        )
    first = found[:1]
    return Structures.build(
        [first.atomic_numbers],
        [first.positions],
        cell=first.cell,
        pbc=first.pbc,
        charge=first.charge,
        multiplicity=first.multiplicity,
        origin__source=first.column("origin/source"),
    )


def _named(name: str, charge: int, multiplicity: int) -> Structures:
    """Build a molecule of ASE's G2 collection (https://doi.org/10.1063/1.473182)."""
    from ase.build import molecule
    from ase.build.molecule import extra
    from ase.collections import g2

    known = [*g2.names, *extra]
    if name not in known:
        guess = nearest(name, known)
        hint = f" Did you mean '{guess}'?" if guess else ""
        raise ConfigError(
            f"data.initial.molecule: '{name}' is not among the {len(known)} molecules that ase.build.molecule knows."
            f"{hint} For any other, set data.initial.file to a structure file and data.initial.molecule to null."
        )
    atoms = molecule(name)
    return Structures.build(
        [atoms.numbers],
        [atoms.positions],
        charge=charge,
        multiplicity=multiplicity,
        origin__source=f"ase molecule {name}".encode(),
    )
