"""Neighbour lists of many structures at once, molecules and periodic cells.

Every directed pair within the cutoff appears once, sorted by center atom, so that sums over
neighbours are sums over contiguous runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dubito.core.errors import DataError
from dubito.data.structures import Array, Structures

# Below this size the dense distance matrix of a molecule is faster than a cell list.
_DENSE_ATOMS = 128


@dataclass(frozen=True)
class Neighbors:
    """Directed pairs of ``n`` structures.

    Attributes
    ----------
    center, neighbor : (E,) int64, atom indices into the concatenated atoms; sorted by center
    vectors : (E, 3) float64, Å, from center to neighbour (the periodic image meant)
    ptr : (n + 1,) int64, pairs of structure ``i`` are ``ptr[i]:ptr[i + 1]``
    """

    center: Array
    neighbor: Array
    vectors: Array
    ptr: Array


def find_neighbors(structures: Structures, r_max: float) -> Neighbors:
    """Find all pairs closer than ``r_max`` Å.

    Raises
    ------
    DataError
        When two atoms coincide, or a periodic structure has no volume.
    """
    n = len(structures)
    found: list[tuple[Array, Array, Array] | None] = [None] * n
    periodic = structures.pbc.any(axis=1)
    sizes = structures.n_atoms
    for size in np.unique(sizes[~periodic & (sizes <= _DENSE_ATOMS)]):
        group = np.flatnonzero(~periodic & (sizes == size))
        for index, pairs in zip(group, _dense(structures, group, int(size), r_max), strict=True):
            found[index] = pairs
    for index in np.flatnonzero(periodic | (sizes > _DENSE_ATOMS)):
        found[index] = _cell_list(structures, int(index), r_max)
    parts = [pairs for pairs in found if pairs is not None]
    counts = [len(pairs[0]) for pairs in parts]
    if not parts:
        return Neighbors(np.zeros(0, "i8"), np.zeros(0, "i8"), np.zeros((0, 3)), np.zeros(1, "i8"))
    starts = np.repeat(structures.ptr[:-1], counts)
    vectors = np.concatenate([pairs[2] for pairs in parts])
    ptr = np.concatenate([[0], np.cumsum(counts)]).astype("i8")
    _refuse_coincidence(vectors, ptr)
    return Neighbors(
        np.concatenate([pairs[0] for pairs in parts]) + starts,
        np.concatenate([pairs[1] for pairs in parts]) + starts,
        vectors,
        ptr,
    )


def _dense(structures: Structures, group: Array, size: int, r_max: float) -> list[tuple[Array, Array, Array]]:
    """Return the pairs of molecules of equal size through their full distance matrices."""
    atoms = structures.ptr[group][:, None] + np.arange(size)
    x = structures.positions[atoms]
    difference = x[:, None, :, :] - x[:, :, None, :]
    inside = np.einsum("gijk,gijk->gij", difference, difference) < r_max**2
    inside[:, np.arange(size), np.arange(size)] = False
    which, center, neighbor = np.nonzero(inside)
    vectors = difference[which, center, neighbor]
    cuts = np.searchsorted(which, np.arange(1, len(group)))
    return list(zip(np.split(center, cuts), np.split(neighbor, cuts), np.split(vectors, cuts), strict=True))


def _cell_list(structures: Structures, index: int, r_max: float) -> tuple[Array, Array, Array]:
    from vesin import NeighborList

    start, stop = structures.ptr[index], structures.ptr[index + 1]
    pbc = structures.pbc[index]
    cell = structures.cell[index].copy()
    if pbc.any() and abs(np.linalg.det(_completed(cell, pbc))) < 1e-6:
        raise DataError(
            f"Structure {index} is periodic but its cell has no volume. Give it a cell, or set pbc to false."
        )
    center, neighbor, vectors = NeighborList(cutoff=r_max, full_list=True).compute(
        points=structures.positions[start:stop],
        box=_completed(cell, pbc) if pbc.any() else np.zeros((3, 3)),
        periodic=pbc if pbc.any() else False,
        quantities="ijD",
    )
    order = np.argsort(center, kind="stable")
    return center[order].astype("i8"), neighbor[order].astype("i8"), vectors[order]


def _completed(cell: Array, pbc: Array) -> Array:
    """Replace missing vectors of non-periodic directions by unit vectors normal to the others."""
    from ase.geometry import complete_cell

    out: Array = np.asarray(complete_cell(np.where(np.linalg.norm(cell, axis=1)[:, None] > 1e-9, cell, 0.0)))
    return out


def _refuse_coincidence(vectors: Array, ptr: Array) -> None:
    short = np.flatnonzero(np.einsum("ek,ek->e", vectors, vectors) < 1e-8)
    if len(short):
        structure = int(np.searchsorted(ptr, short[0], "right") - 1)
        raise DataError(
            f"Structure {structure} has two atoms at the same place (closer than 1e-4 Å). Remove one of them."
        )
