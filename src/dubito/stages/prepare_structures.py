"""Make the structures that the campaign labels first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dubito.config.data import DataConfig, FilesStart, RattledStart
from dubito.core.errors import ConfigError, DataError
from dubito.core.random import generator
from dubito.data.splits import drop_duplicates
from dubito.data.store import write_structures
from dubito.data.structures import Structures

_KEPT = ("origin/source", "origin/trajectory")


def run(*, output: Path, data: DataConfig, seed: int) -> str:
    """Write the initial candidates, without labels.

    Raises
    ------
    ConfigError
        When a file can't be read, or holds fewer structures than wanted.
    """
    structures, text = _initial(data, seed)
    write_structures(output, structures.with_columns(origin__iteration=0))
    return text


def count(data: DataConfig, seed: int) -> int:
    """Return how many initial candidates there are; files are read for it.

    Raises
    ------
    ConfigError
        As in :func:`run`.
    """
    return len(_initial(data, seed)[0])


def _initial(data: DataConfig, seed: int) -> tuple[Structures, str]:
    initial = data.initial
    return _rattled(data, initial, seed) if isinstance(initial, RattledStart) else _from_files(initial, seed)


def _rattled(data: DataConfig, initial: RattledStart, seed: int) -> tuple[Structures, str]:
    from dubito.data.molecules import equilibrium

    start = equilibrium(data)
    n, size = initial.n_structures, len(start.atomic_numbers)
    moved = generator(seed, "rattle").normal(scale=initial.displacement_angstrom, size=(n, size, 3))
    structures = Structures.build(
        [start.atomic_numbers] * n,
        list(start.positions + moved),
        cell=start.cell[0],
        pbc=start.pbc[0],
        charge=start.charge[0],
        multiplicity=start.multiplicity[0],
        origin__source=start.column("origin/source")[0],
        origin__parent=start.ids[0],
        origin__sampler="rattle",
    )
    return structures, f"{n} structures displaced by {initial.displacement_angstrom:g} Å (standard deviation)"


def _from_files(initial: FilesStart, seed: int) -> tuple[Structures, str]:
    from dubito.data.formats import read_any

    parts = []
    for file in initial.files:
        try:
            part = read_any(Path(file), charge=initial.charge, multiplicity=initial.multiplicity)
        except DataError as error:
            raise ConfigError(f"data.initial.files: {error}") from error
        # Labels of files may be of any level of theory; the campaign's labeller makes its own.
        kept = {path.replace("/", "__"): part.columns[path] for path in _KEPT if path in part.columns}
        parts.append(_bare(part).with_columns(**kept, origin__sampler="file"))
    structures, dropped = drop_duplicates(Structures.concatenate(parts))
    total, wanted = len(structures), initial.n_structures or len(structures)
    if total < max(2, wanted):
        raise ConfigError(
            f"data.initial.files: the {len(initial.files)} file(s) hold {total} different structures, but "
            f"{max(2, wanted)} are needed. Lower data.initial.n_structures (to 2 at least) or name more files."
        )
    rows = np.sort(generator(seed, "initial files").permutation(total)[:wanted])
    text = f"{wanted} of {total} structures taken from {len(initial.files)} file(s)"
    return structures[rows], text + (f"; {dropped} exact duplicates left out" if dropped else "")


def _bare(part: Structures) -> Structures:
    """Return structures without any label, origin or provenance."""
    from dataclasses import replace

    return replace(part, columns={})
