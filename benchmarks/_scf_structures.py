"""Hard but small structures for benchmarks/scf_ladder.py, by what makes them hard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dubito.data.structures import Structures


@dataclass(frozen=True)
class Hard:
    """One structure, its level of theory, and whether the short run takes it."""

    category: str
    name: str
    structure: Structures
    settings: dict[str, Any]
    in_short: bool = False


def pair(a: int, b: int, distance: float) -> tuple[list[int], Any]:
    """Return a diatomic molecule."""
    return [a, b], [[0.0, 0.0, 0.0], [0.0, 0.0, distance]]


def chain(z: int, n: int, distance: float) -> tuple[list[int], Any]:
    """Return equidistant atoms on a line."""
    return [z] * n, [[0.0, 0.0, i * distance] for i in range(n)]


def ring(z: int, n: int, radius: float) -> tuple[list[int], Any]:
    """Return a regular polygon of atoms."""
    angles = 2 * np.pi * np.arange(n) / n
    return [z] * n, np.stack([radius * np.cos(angles), radius * np.sin(angles), 0 * angles], axis=1)


def known(name: str, scale: float = 1.0, torn: float = 0.0) -> tuple[list[int], Any]:
    """Return a molecule of ASE's collection, scaled, its last atom moved away by ``torn`` Å."""
    from ase.build import molecule

    atoms = molecule(name)
    positions = atoms.positions * scale
    away = positions[-1] - positions[0]
    positions[-1] += torn * away / np.linalg.norm(away)
    return atoms.numbers.tolist(), positions


def ethylene(twist_degrees: float) -> tuple[list[int], Any]:
    """Return ethylene with its two halves turned against each other."""
    t, up, out = np.radians(twist_degrees), 0.56, 0.93
    hydrogens = [[0, out, -up], [0, -out, -up]]
    hydrogens += [[s * out * np.sin(t), s * out * np.cos(t), 1.34 + up] for s in (1, -1)]
    return [6, 6, 1, 1, 1, 1], [[0, 0, 0], [0, 0, 1.34], *hydrogens]


def hard() -> list[Hard]:
    """Return all of them."""
    rows: list[Hard] = []

    def add(category: str, name: str, made: tuple[list[int], Any], multiplicity: int = 1, *, basis: str = "6-31g",
            charge: int = 0, xc: str = "PBE", short: bool = False) -> None:  # fmt: skip
        numbers, positions = made
        one = Structures.build([numbers], [np.asarray(positions, "f8")], multiplicity=multiplicity, charge=charge)
        rows.append(Hard(category, name, one, {"basis": basis, "xc": xc}, short))

    for name, made, multiplicity, charge, short in (
        ("N2, 2.2 Å", pair(7, 7, 2.2), 1, 0, True), ("N2, 3.0 Å", pair(7, 7, 3.0), 1, 0, False),
        ("F2, 2.6 Å", pair(9, 9, 2.6), 1, 0, True), ("LiF, 4.0 Å", pair(3, 9, 4.0), 1, 0, True),
        ("NaCl, 6.0 Å", pair(11, 17, 6.0), 1, 0, False),
        ("water, one O-H 2.5 Å longer", known("H2O", torn=2.5), 1, 0, False),
        ("ammonia, one N-H 3 Å longer", known("NH3", torn=3.0), 1, 0, False),
        ("CH4 scaled by 2.2", known("CH4", 2.2), 1, 0, False), ("CN, 2.5 Å, doublet", pair(6, 7, 2.5), 2, 0, False),
        ("NO, 2.4 Å, doublet", pair(7, 8, 2.4), 2, 0, False),
        ("water cation scaled by 2, doublet", known("H2O", 2.0), 2, 1, False),
    ):  # fmt: skip
        add("stretched bonds", name, made, multiplicity, charge=charge, short=short)
    for name, made, multiplicity, short in (
        ("ethylene twisted by 90°", ethylene(90), 1, False), ("ozone", known("O3"), 1, False),
        ("ozone scaled by 1.5", known("O3", 1.5), 1, False), ("C2, 1.24 Å", pair(6, 6, 1.24), 1, True),
        ("C2, 1.8 Å", pair(6, 6, 1.8), 1, False), ("B2, singlet", pair(5, 5, 1.6), 1, False),
        ("H4, square", ring(1, 4, 0.9), 1, True), ("Si2, singlet", pair(14, 14, 2.2), 1, False),
        ("Be2, 2.0 Å", pair(4, 4, 2.0), 1, False),
    ):  # fmt: skip
        add("near-degenerate", name, made, multiplicity, short=short)
    for name, made, multiplicity in (
        ("FeO, singlet", pair(26, 8, 1.62), 1), ("FeO, quintet", pair(26, 8, 1.62), 5),
        ("NiO, singlet", pair(28, 8, 1.63), 1), ("NiO, triplet", pair(28, 8, 1.63), 3),
        ("ScO, doublet", pair(21, 8, 1.67), 2), ("CoO, quartet", pair(27, 8, 1.63), 4),
        ("Sc2, singlet", pair(21, 21, 2.5), 1), ("Fe atom, quintet", ([26], [[0, 0, 0]]), 5),
        ("NiH, doublet", pair(28, 1, 1.48), 2),
    ):  # fmt: skip
        add("transition metals", name, made, multiplicity, basis="sto-3g")
    for name, made, multiplicity, short in (
        ("O2, triplet", pair(8, 8, 1.21), 3, False), ("NO, doublet", pair(7, 8, 1.15), 2, False),
        ("CH2, triplet", known("CH2_s3B1d"), 3, False),
        ("B atom, doublet", ([5], [[0, 0, 0]]), 2, False), ("F atom, doublet", ([9], [[0, 0, 0]]), 2, False),
        ("C2H, doublet", known("CCH"), 2, True),
    ):  # fmt: skip
        add("open shell", name, made, multiplicity, short=short)
    for name, made, multiplicity, short in (
        ("O2, singlet", pair(8, 8, 1.21), 1, True), ("O atom, singlet", ([8], [[0, 0, 0]]), 1, False),
        ("NH, singlet", pair(7, 1, 1.04), 1, False),
        ("water, triplet", known("H2O"), 3, False), ("water, quintet", known("H2O"), 5, False),
    ):  # fmt: skip
        add("wrong spin", name, made, multiplicity, short=short)
    for name, made, multiplicity, basis in (
        ("8 He, 0.6 Å apart", chain(2, 8, 0.6), 1, "aug-cc-pvdz"),
        ("8 H, 0.5 Å apart", chain(1, 8, 0.5), 1, "aug-cc-pvdz"),
        ("7 H, 0.5 Å apart, doublet", chain(1, 7, 0.5), 2, "aug-cc-pvdz"),
        ("3 Be, 1.2 Å apart", chain(4, 3, 1.2), 1, "aug-cc-pvdz"),
        ("4 H, 0.4 Å apart", chain(1, 4, 0.4), 1, "aug-cc-pvtz"),
    ):  # fmt: skip
        add("near-linear-dependent basis", name, made, multiplicity, basis=basis)
    return rows
