"""Fingerprints that tell whether two structures are the same up to motion and relabelling.

The fingerprint of a molecule is its sorted interatomic distances, per pair of elements (the "bag of
bonds" idea, https://doi.org/10.1021/acs.jpclett.5b00831, without the nuclear charges). It does not
change under rotation, translation and permutation of equal atoms. Two structures of the same formula,
charge and multiplicity differ by the rms difference of these distances, in Å.

Mirror images are equal on purpose: their energies are equal, their forces are mirrored, and an
equivariant model learns nothing from the second. Distinct structures with equal sorted distances
exist (homometric sets), but are rare single points; a near-duplicate guard can live with them.

Sorted distances of many atoms average out: neighbouring snapshots of 64 silicon atoms at 300 K differ
by 0.015 Å only, those of 27 atoms (3BPA, 300 K) by 0.055 Å. Lower the guard's threshold for large cells.

In periodic structures distances are those to the nearest image, followed by the thirteen shortest
lattice translations, so that a strained cell differs from the unstrained one. A crystal described by
another cell (a supercell) has another formula and is never found equal. Beyond ``MAX_DISTANCES`` per
structure only the shortest of each pair of elements are kept, in fixed proportion.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dubito.data.formula import formula_keys
from dubito.data.structures import Array, Structures

MAX_DISTANCES = 4096
_BLOCK = 512


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of ``n`` structures, kept as one matrix per formula.

    Attributes
    ----------
    names : key of each group; structures of different groups are infinitely different
    matrices : one (m, L) array of distances per group, Å
    group : (n,) int64, group of each structure
    row : (n,) int64, its row in the group's matrix
    """

    names: list[str]
    matrices: Sequence[Array]
    group: Array
    row: Array

    def __len__(self) -> int:
        return len(self.group)

    @cached_property
    def _squares(self) -> list[Array]:
        return [np.einsum("ij,ij->i", m, m) for m in self.matrices]

    def _rows_of(self, group: int) -> Array:
        """Return the structures of a group, in the order of its matrix."""
        members = np.flatnonzero(self.group == group)
        out: Array = members[np.argsort(self.row[members])]
        return out

    def take(self, rows: Array) -> Fingerprints:
        """Return the fingerprints of some structures; they are copied when they are first looked at."""
        rows = np.asarray(rows, dtype="i8")
        group, row = self.group[rows], np.zeros(len(rows), "i8")
        taken = []
        for index in range(len(self.matrices)):
            members = np.flatnonzero(group == index)
            row[members] = np.arange(len(members))
            taken.append(self.row[rows[members]])
        return Fingerprints(self.names, _Taken(self.matrices, taken), group, row)

    def to_one(self, other: Fingerprints, index: int) -> Array:
        """Return the rms difference of each structure to structure ``index`` of ``other``, (n,) Å.

        Infinite where formula, charge, multiplicity or periodicity differ.
        """
        out = np.full(len(self), np.inf)
        name = other.names[other.group[index]]
        if name in self.names:
            mine = self.names.index(name)
            theirs, row = int(other.group[index]), int(other.row[index])
            vector, square = other.matrices[theirs][row], other._squares[theirs][row]
            matrix = self.matrices[mine]
            squares = self._squares[mine] + square - 2 * (matrix @ vector)
            out[self._rows_of(mine)] = _rms(squares, matrix.shape[1])
        return out

    def nearest(self, other: Fingerprints) -> Array:
        """Return the rms difference of each structure to the nearest of ``other``, (n,) Å.

        Infinite where ``other`` has nothing comparable.
        """
        out = np.full(len(self), np.inf)
        for mine, name in enumerate(self.names):
            if name not in other.names:
                continue
            theirs = other.names.index(name)
            rows, matrix = self._rows_of(mine), other.matrices[theirs]
            for start in range(0, len(rows), _BLOCK):
                block = self.matrices[mine][start : start + _BLOCK]
                if not len(matrix):
                    continue
                squares = (
                    self._squares[mine][start : start + _BLOCK, None] + other._squares[theirs] - 2 * (block @ matrix.T)
                )
                out[rows[start : start + _BLOCK]] = _rms(squares.min(axis=1), matrix.shape[1])
        return out


class _Taken(Sequence[Array]):
    """Rows of matrices. Those of a pool may be large, and most selectors look at none."""

    def __init__(self, matrices: Sequence[Array], rows: list[Array]) -> None:
        self._matrices, self._rows = matrices, rows
        self._copies: dict[int, Array] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index not in self._copies:
            self._copies[index] = self._matrices[index][self._rows[index]]
        return self._copies[index]


def fingerprints(structures: Structures) -> Fingerprints:
    """Compute the fingerprints of all structures."""
    names: dict[str, int] = {}
    group = np.array([names.setdefault(key, len(names)) for key in _keys(structures)], dtype="i8")
    row = np.zeros(len(structures), "i8")
    matrices = []
    for index in range(len(names)):
        members = np.flatnonzero(group == index)
        row[members] = np.arange(len(members))
        periodic = bool(structures.pbc[members[0]].any())
        matrices.append(
            np.stack([_periodic(structures, int(i)) for i in members]) if periodic else _molecules(structures, members)
        )
    return Fingerprints(list(names), matrices, group, row)


def rms_difference(a: Structures, b: Structures) -> Array:
    """Return the rms difference between all structures of ``a`` and of ``b``, (n_a, n_b) Å."""
    mine, theirs = fingerprints(a), fingerprints(b)
    if not len(b):
        return np.zeros((len(a), 0))
    return np.stack([mine.to_one(theirs, i) for i in range(len(b))], axis=1)


def _keys(structures: Structures) -> list[str]:
    pbc = ["".join("FT"[int(p)] for p in row) for row in structures.pbc]
    return [f"{key} {p}" for key, p in zip(formula_keys(structures), pbc, strict=True)]


def _rms(squares: Array, length: int) -> Array:
    # Rounding makes the squared difference of equal vectors slightly negative.
    out: Array = np.sqrt(np.maximum(squares, 0.0) / max(1, length))
    return out


def _molecules(structures: Structures, members: Array) -> Array:
    """Return the fingerprints of molecules of one formula, (m, L); atoms may come in any order."""
    size = int(structures.n_atoms[members[0]])
    atoms = structures.ptr[members][:, None] + np.arange(size)
    # In one order of elements all molecules have the same element pairs in the same places.
    order = np.argsort(structures.atomic_numbers[atoms], axis=1, kind="stable")
    atoms = np.take_along_axis(atoms, order, axis=1)
    numbers, positions = structures.atomic_numbers[atoms[0]], structures.positions[atoms]
    first, second = np.triu_indices(size, 1)
    out = np.zeros((0, 0))
    for start in range(0, len(members), _BLOCK):
        x = positions[start : start + _BLOCK]
        difference = x[:, first] - x[:, second]
        block = _sorted(np.sqrt(np.einsum("mpk,mpk->mp", difference, difference)), numbers, first, second)
        if not start:
            # In the layout of the blocks: products of matrices round by it.
            out = np.empty((len(members), block.shape[1]), order="C" if block.flags.c_contiguous else "F")
        out[start : start + _BLOCK] = block
    return out


def _periodic(structures: Structures, index: int) -> Array:
    """Return the fingerprint of one periodic structure, (L,)."""
    from ase.geometry import complete_cell, find_mic, minkowski_reduce

    atoms = np.arange(structures.ptr[index], structures.ptr[index + 1])
    atoms = atoms[np.argsort(structures.atomic_numbers[atoms], kind="stable")]
    pbc = structures.pbc[index]
    # A direction without periodicity must not contribute translations.
    cell = np.where(pbc[:, None], structures.cell[index], 0.0)
    first, second = np.triu_indices(len(atoms), 1)
    x = structures.positions[atoms]
    distances = np.zeros(0)
    if len(first):
        _, distances = find_mic(x[first] - x[second], complete_cell(cell), pbc)
    reduced, _ = minkowski_reduce(cell, pbc)
    steps = np.array([n for n in itertools.product((-1, 0, 1), repeat=3) if n > (0, 0, 0)])
    lengths = np.sort(np.linalg.norm(steps @ np.where(pbc[:, None], reduced, 0.0), axis=1))
    numbers = structures.atomic_numbers[atoms]
    return np.concatenate([_sorted(distances[None], numbers, first, second)[0], lengths])


def _sorted(distances: Array, numbers: Array, first: Array, second: Array) -> Array:
    """Sort distances (m, P) within each pair of elements, keeping at most ``MAX_DISTANCES`` in all."""
    kinds = numbers[first].astype(int) * 256 + numbers[second]
    blocks = []
    for kind in np.unique(kinds):
        block = np.sort(distances[:, kinds == kind], axis=1)
        keep = block.shape[1]
        if len(kinds) > MAX_DISTANCES:
            keep = max(1, keep * MAX_DISTANCES // len(kinds))
        blocks.append(block[:, :keep])
    return np.concatenate(blocks, axis=1) if blocks else np.zeros((len(distances), 0))
