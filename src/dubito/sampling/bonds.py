"""Which bonds of a molecule can be turned about, and turning about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dubito.data.structures import Array

# Atoms nearer than this times the sum of their covalent radii (https://doi.org/10.1039/b801115j) are bonded.
BONDED = 1.3
# Bonds shorter than this times that sum are double: C=C 0.88, C=N 0.87, against C-C 1.01, C-N 1.00, C-O 1.01. The C-N
# of an amide (0.93) and the C-O of an ester (0.95) turn: cis and trans are what a scan is for.
DOUBLE = 0.92


@dataclass(frozen=True)
class Turn:
    """A bond that can be turned about.

    Attributes
    ----------
    axis : the two atoms of the bond; the second is on the side that turns
    moving : (m,) atoms of the side that turns, the second atom of the bond among them
    """

    axis: tuple[int, int]
    moving: Array


def bond_graph(atomic_numbers: Array, positions: Array) -> Array:
    """Return which atoms are bonded, (atoms, atoms) bool, from distances (Å) and covalent radii."""
    from ase.data import covalent_radii

    radii = covalent_radii[atomic_numbers]
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    bonded: Array = distance < BONDED * (radii[:, None] + radii[None])
    np.fill_diagonal(bonded, False)
    return bonded


def rotatable_bonds(atomic_numbers: Array, positions: Array) -> list[Turn]:
    """Return the single bonds outside rings that have more than one atom on both sides; the smaller side turns.

    Positions are in Å, of one molecule without periodic images. A side in line with the bond, where turning moves
    nothing, does not count; single bonds are told by their length.
    """
    from ase.data import covalent_radii
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    graph = bond_graph(atomic_numbers, positions)
    found = []
    for i, j in np.argwhere(np.triu(graph)).tolist():
        length = float(np.linalg.norm(positions[i] - positions[j]))
        if length < DOUBLE * float(covalent_radii[atomic_numbers[i]] + covalent_radii[atomic_numbers[j]]):
            continue
        cut = graph.copy()
        cut[i, j] = cut[j, i] = False
        side = connected_components(csr_array(cut), directed=False)[1]
        if side[i] == side[j]:
            continue  # a ring
        mine, yours = (np.flatnonzero(side == side[atom]) for atom in (i, j))
        if all(_is_off_axis(positions, atoms, i, j) for atoms in (mine, yours)):
            found.append(Turn((i, j), yours) if len(yours) <= len(mine) else Turn((j, i), mine))
    return found


def _is_off_axis(positions: Array, atoms: Array, i: int, j: int) -> bool:
    """Say whether an atom of a side lies farther than 0.3 Å from the line through the bond."""
    along = positions[j] - positions[i]
    along = along / np.linalg.norm(along)
    offset = positions[atoms] - positions[i]
    away = offset - (offset @ along)[:, None] * along
    return bool((np.linalg.norm(away, axis=1) > 0.3).any())


def turned(positions: Array, turn: Turn, angle: float) -> Array:
    """Return positions (atoms, 3) with one side of a bond turned by ``angle`` (radians) about it."""
    from scipy.spatial.transform import Rotation

    pivot = positions[turn.axis[0]]
    axis = positions[turn.axis[1]] - pivot
    rotation = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis))
    out = positions.copy()
    out[turn.moving] = pivot + rotation.apply(positions[turn.moving] - pivot)
    return out
