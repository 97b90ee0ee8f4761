"""Which geometries are worth a reference calculation: distances, fragments, spin, bonds, energy and force ceilings.

Used at every step of a sampler, so a batch of walkers is bound once and then checked with a handful
of array operations; and by selection, over whole pools, which are also checked for what moving does not change
(charge and multiplicity) and for what is not looked at in every step (the bond graph).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dubito.config.sanity import SanityConfig
from dubito.core.errors import DataError
from dubito.data.bond_graphs import bond_graphs
from dubito.data.electrons import n_electrons, state_exists
from dubito.data.formula import formula_keys
from dubito.data.neighbors import find_neighbors
from dubito.data.structures import Array, Structures
from dubito.metrics.reduce import atom_norm, structure_max

# Reason codes, in the order in which they are looked for; the first that applies is given.
NOT_FINITE = "not_finite"
MIN_DISTANCE = "min_distance"
FRAGMENTS = "fragments"
SPIN_PARITY = "spin_parity"
BOND_GRAPH = "bond_graph"
ENERGY = "energy"
FORCE = "force"
REASONS = (NOT_FINITE, MIN_DISTANCE, FRAGMENTS, SPIN_PARITY, BOND_GRAPH, ENERGY, FORCE)

_SANE = -1
_CHUNK = 256


@dataclass(frozen=True)
class Verdict:
    """What is wrong with each of ``n`` structures.

    Attributes
    ----------
    codes : (n,) int8, index into :data:`REASONS`; -1 where the structure is sane
    values : (n,) the number that broke the rule, NaN where none did: shortest distance over the sum
        of covalent radii, number of fragments, of electrons, of bonds, eV per atom above the lowest label, eV/Å
    """

    codes: Array
    values: Array

    @property
    def sane(self) -> Array:
        """Whether each structure is sane, (n,) bool."""
        out: Array = self.codes == _SANE
        return out

    @property
    def reasons(self) -> list[str]:
        """Reason code of each structure; empty where it is sane."""
        return ["" if code == _SANE else REASONS[code] for code in self.codes]

    def then(self, other: Verdict) -> Verdict:
        """Return this verdict, with ``other``'s where this one finds nothing wrong."""
        mine = self.codes != _SANE
        return Verdict(np.where(mine, self.codes, other.codes), np.where(mine, self.values, other.values))


class SanityCheck:
    """The sane region of a campaign.

    Parameters
    ----------
    config : the rules
    labelled : structures whose labels give the lowest known energy of each composition; where a
        composition has no label, there is no energy ceiling, and any bond graph may be
    counts_electrons : whether whole pools are checked for charges and multiplicities that don't exist
    """

    def __init__(
        self, config: SanityConfig, labelled: Structures | None = None, *, counts_electrons: bool = False
    ) -> None:
        self.config = config
        self._lowest: dict[str, float] = {}
        self._counts_electrons = counts_electrons and config.spin_parity
        self._graphs: dict[str, set[int]] = {}
        if config.bond_graph == "as_labelled" and labelled is not None and len(labelled):
            for key, graph in zip(formula_keys(labelled), bond_graphs(labelled)[0].tolist(), strict=True):
                self._graphs.setdefault(key, set()).add(graph)
        if labelled is not None and len(labelled):
            per_atom = labelled.energy / np.maximum(labelled.n_atoms, 1)
            known = labelled.is_labelled & np.isfinite(per_atom)
            for key, energy in zip(np.array(formula_keys(labelled), dtype=object)[known], per_atom[known], strict=True):
                self._lowest[key] = min(float(energy), self._lowest.get(key, np.inf))

    def lowest_energies(self, structures: Structures) -> Array:
        """Return the lowest label of each structure's composition, (n,) eV per atom; NaN if none is known."""
        return np.array([self._lowest.get(key, np.nan) for key in formula_keys(structures)], dtype="f8")

    def bind(self, structures: Structures) -> BoundCheck:
        """Prepare to check moving copies of ``structures``: same atoms, other positions."""
        return BoundCheck(self.config, structures, self.lowest_energies(structures))

    def check(self, structures: Structures, *, energy: Array | None = None, forces: Array | None = None) -> Verdict:
        """Check any number of structures, in chunks.

        Parameters
        ----------
        energy : (n,) eV, labelled or predicted total energies; None: not checked
        forces : (N, 3) eV/Å; None: not checked
        """
        parts = []
        for start in range(0, len(structures), _CHUNK):
            rows = slice(start, min(start + _CHUNK, len(structures)))
            atoms = slice(structures.ptr[rows.start], structures.ptr[rows.stop])
            piece = structures[rows]
            bound = self.bind(piece)
            geometry = self._chemistry(piece, bound.geometry(piece.positions))
            parts.append(
                geometry.then(
                    bound.values(None if energy is None else energy[rows], None if forces is None else forces[atoms])
                )
            )
        return Verdict(
            np.concatenate([p.codes for p in parts]) if parts else np.zeros(0, "i1"),
            np.concatenate([p.values for p in parts]) if parts else np.zeros(0),
        )

    def _chemistry(self, structures: Structures, geometry: Verdict) -> Verdict:
        """Add what positions alone do not say: electrons that don't pair up, and bonds of another molecule."""
        codes, values = geometry.codes.copy(), geometry.values.copy()
        if self._graphs:
            # Of those found wrong already atoms may coincide, and have no bonds to speak of.
            rows = np.flatnonzero(geometry.sane)
            graphs, n_bonds = bond_graphs(structures[rows])
            keys = formula_keys(structures[rows])
            for i, key, graph, bonds in zip(rows, keys, graphs.tolist(), n_bonds, strict=True):
                if graph not in self._graphs.get(key, {graph}):
                    codes[i], values[i] = REASONS.index(BOND_GRAPH), bonds
        if self._counts_electrons:
            wrong = ~state_exists(structures) & geometry.sane
            _mark(codes, values, wrong, SPIN_PARITY, n_electrons(structures))
        return Verdict(codes, values)


class BoundCheck:
    """A :class:`SanityCheck` bound to the atoms of a batch; only positions, energies and forces vary."""

    def __init__(self, config: SanityConfig, structures: Structures, lowest: Array) -> None:
        from ase.data import covalent_radii

        self.config, self.structures, self.lowest = config, structures, lowest
        self._radii = covalent_radii[structures.atomic_numbers]
        self._periodic = bool(structures.pbc.any())
        if not self._periodic:
            self._first, self._second, self._pair_ptr = _all_pairs(structures.n_atoms)
            self._sums = self._radii[self._first] + self._radii[self._second]
            self._bonded = np.zeros(0, bool)
            self._fragments = np.zeros(0, int)

    def geometry(self, positions: Array) -> Verdict:
        """Check positions, (N, 3) Å: finite, no atoms too close, not in too many fragments."""
        codes = np.full(len(self.structures), _SANE, "i1")
        values = np.full(len(self.structures), np.nan)
        finite = np.all(np.isfinite(positions), axis=1)
        broken = np.zeros(len(codes), bool)
        if not finite.all():
            broken[self.structures.structure_of_atom[~finite]] = True
            positions = np.where(finite[:, None], positions, 1e6 * np.arange(len(finite))[:, None])
        closest, fragments = (self._cells if self._periodic else self._molecules)(positions)
        _mark(codes, values, fragments > self.config.max_fragments, FRAGMENTS, fragments)
        _mark(codes, values, closest < self.config.min_distance_factor, MIN_DISTANCE, closest)
        _mark(codes, values, broken, NOT_FINITE, np.full(len(codes), np.nan))
        return Verdict(codes, values)

    def values(self, energy: Array | None, forces: Array | None) -> Verdict:
        """Check energies (n,) eV and forces (N, 3) eV/Å: finite and below their ceilings."""
        structures = self.structures
        codes = np.full(len(structures), _SANE, "i1")
        values = np.full(len(structures), np.nan)
        broken = np.zeros(len(structures), bool)
        if forces is not None:
            with np.errstate(over="ignore"):
                largest = structure_max(atom_norm(forces), structures.ptr)
            broken |= ~np.isfinite(largest)
            _mark(codes, values, largest > self.config.max_force_ev_per_angstrom, FORCE, largest)
        if energy is not None:
            above = energy / structures.n_atoms - self.lowest
            broken |= ~np.isfinite(energy)
            # Where no label is known `above` is NaN and never greater.
            _mark(codes, values, above > self.config.max_energy_above_min_ev_per_atom, ENERGY, above)
        _mark(codes, values, broken, NOT_FINITE, np.full(len(codes), np.nan))
        return Verdict(codes, values)

    def _molecules(self, positions: Array) -> tuple[Array, Array]:
        """Return shortest distance over the sum of radii, and number of fragments, of each molecule."""
        difference = positions[self._first] - positions[self._second]
        ratio = np.sqrt(np.einsum("ek,ek->e", difference, difference)) / self._sums
        closest = _smallest(ratio, self._pair_ptr)
        bonded = ratio < self.config.max_bond_factor
        # Bonds rarely change between steps; counting fragments is the costly part.
        if len(self._fragments) == 0 or not np.array_equal(bonded, self._bonded):
            self._bonded = bonded
            self._fragments = self._count(self._first[bonded], self._second[bonded])
        return closest, self._fragments

    def _cells(self, positions: Array) -> tuple[Array, Array]:
        """Return the same for structures of which some are periodic, with all periodic images."""
        reach = self.config.max_bond_factor * 2 * float(self._radii.max(initial=0.0))
        moved = replace(self.structures, positions=positions)
        try:
            pairs = find_neighbors(moved, reach)
        except DataError:
            return self._one_by_one(moved)
        distance = np.sqrt(np.einsum("ek,ek->e", pairs.vectors, pairs.vectors))
        ratio = distance / (self._radii[pairs.center] + self._radii[pairs.neighbor])
        bonded = ratio < self.config.max_bond_factor
        return _smallest(ratio, pairs.ptr), self._count(pairs.center[bonded], pairs.neighbor[bonded])

    def _one_by_one(self, moved: Structures) -> tuple[Array, Array]:
        """Check structures singly where one of the batch has atoms at the same place (distance zero)."""
        closest, fragments = np.zeros(len(moved)), np.ones(len(moved), int)
        if len(moved) > 1:
            for i in range(len(moved)):
                single = BoundCheck(self.config, moved[i], self.lowest[i : i + 1])
                near, count = (single._cells if single._periodic else single._molecules)(
                    moved.positions[moved.ptr[i] : moved.ptr[i + 1]]
                )
                closest[i], fragments[i] = near[0], count[0]
        return closest, fragments

    def _count(self, first: Array, second: Array) -> Array:
        """Return the number of connected parts of each structure, from bonds between atoms."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        n = int(self.structures.ptr[-1])
        graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(n, n))
        _, labels = connected_components(graph, directed=False)
        roots = np.unique(labels, return_index=True)[1]
        out: Array = np.bincount(self.structures.structure_of_atom[roots], minlength=len(self.structures))
        return out


def _all_pairs(n_atoms: Array) -> tuple[Array, Array, Array]:
    """Return first and second atom of every pair within each structure, and where structures begin."""
    starts = np.concatenate([[0], np.cumsum(n_atoms)])[:-1]
    triangles = {int(n): np.triu_indices(int(n), 1) for n in np.unique(n_atoms)}
    first = [triangles[int(n)][0] + start for n, start in zip(n_atoms, starts, strict=True)]
    second = [triangles[int(n)][1] + start for n, start in zip(n_atoms, starts, strict=True)]
    ptr = np.concatenate([[0], np.cumsum([len(f) for f in first])]).astype("i8")
    if not first:
        return np.zeros(0, "i8"), np.zeros(0, "i8"), ptr
    return np.concatenate(first), np.concatenate(second), ptr


def _smallest(values: Array, ptr: Array) -> Array:
    """Return the smallest value of each run ``ptr[i]:ptr[i + 1]``, infinity where a run is empty."""
    out = np.full(len(ptr) - 1, np.inf)
    filled = np.diff(ptr) > 0
    if filled.any():
        out[filled] = np.minimum.reduceat(values, ptr[:-1][filled])
    return out


def _mark(codes: Array, values: Array, where: Array, reason: str, numbers: Array) -> None:
    """Give a reason to some structures, replacing a less weighty one."""
    if where.any():
        codes[where] = REASONS.index(reason)
        values[where] = numbers[where]
