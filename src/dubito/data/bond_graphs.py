"""Bond graphs as numbers that do not depend on the order of the atoms.

Two atoms are bonded when they are closer than ``BOND_FACTOR`` times the sum of their covalent radii (Cordero et al.
2008, https://doi.org/10.1039/b801115j). The graph with its elements becomes a number by colour refinement (Weisfeiler
and Leman 1968): the colour of an atom is hashed together with the sum of its neighbours' hashed colours, as often as
the largest structure has atoms, 32 times at most. Isomers differ, save for regular graphs that colour refinement is
known not to tell apart; conformers, mirror images and permutations of like atoms agree.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dubito.data.neighbors import find_neighbors
from dubito.data.structures import Array, Structures

BOND_FACTOR = 1.3
"""Beyond what vibration does to a bond (1.1 at 300 K), short of the second neighbours (1.6 and more)."""
_ROUNDS = 32
_CHUNK = 256


def bond_graphs(structures: Structures) -> tuple[Array, Array]:
    """Return the number (n,) uint64 that stands for each structure's bond graph, and how many bonds it has, (n,).

    Raises
    ------
    DataError
        When two atoms of a structure coincide.
    """
    parts = [
        _graphs(structures[start : min(start + _CHUNK, len(structures))]) for start in range(0, len(structures), _CHUNK)
    ]
    if not parts:
        return np.zeros(0, "u8"), np.zeros(0, "i8")
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _graphs(structures: Structures) -> tuple[Array, Array]:
    from ase.data import covalent_radii

    radii = covalent_radii[structures.atomic_numbers]
    pairs = find_neighbors(structures, 2 * BOND_FACTOR * float(radii.max()))
    length = np.sqrt(np.einsum("ek,ek->e", pairs.vectors, pairs.vectors))
    bonded = length < BOND_FACTOR * (radii[pairs.center] + radii[pairs.neighbor])
    center, neighbor = pairs.center[bonded], pairs.neighbor[bonded]
    color = _mix(structures.atomic_numbers.astype("u8"))
    for _ in range(min(_ROUNDS, int(structures.n_atoms.max()))):
        around = np.zeros(len(color), "u8")
        # Sums of unsigned integers wrap around, so that the order of the neighbours does not matter to the last bit.
        np.add.at(around, center, _mix(color)[neighbor])
        color = _mix(color * np.uint64(3) + around)
    total = np.zeros(len(structures), "u8")
    np.add.at(total, structures.structure_of_atom, _mix(color))
    n_bonds = np.bincount(structures.structure_of_atom[center], minlength=len(structures)) // 2
    return total, n_bonds


def _mix(values: Array) -> Array:
    """Scramble 64-bit integers (the finaliser of SplitMix64, Steele et al. 2014, https://doi.org/10.1145/2660193.2660195)."""
    x: Any = values + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    out: Array = x ^ (x >> np.uint64(31))
    return out
