"""The structures the speed benchmark runs on: 3BPA molecules, or a stand-in, and a cell of silicon."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dubito.core.random import generator
from dubito.testing.structures import AMMONIA, WATER

Array = NDArray[np.float64]

THREEBPA = Path(__file__).parents[2] / "shared" / "data" / "3bpa" / "train_300K.xyz.gz"
SYMBOLS = {"H": 1, "C": 6, "N": 7, "O": 8}


@dataclass(frozen=True)
class Batch:
    """Labelled structures of equal composition.

    Attributes
    ----------
    name : what they are, for the table
    numbers : (atoms,); positions, forces : (n, atoms, 3) Å, eV/Å; energy : (n,) eV
    cell : (3, 3) Å, zeros without a cell; pbc : (3,)
    """

    name: str
    numbers: NDArray[np.int64]
    positions: Array
    energy: Array
    forces: Array
    cell: Array
    pbc: NDArray[np.bool_]

    def write(self, path: Path, n: int) -> Path:
        """Write ``n`` structures, the first ones again when there are fewer."""
        rows = np.arange(n) % len(self.positions)
        np.savez(
            path,
            numbers=self.numbers,
            positions=self.positions[rows],
            energy=self.energy[rows],
            forces=self.forces[rows],
            cell=self.cell,
            pbc=self.pbc,
        )
        return path


def molecules(n: int = 128) -> Batch:
    """Return 3BPA frames with their labels, or a stand-in of 27 atoms with toy labels when the file isn't there."""
    if THREEBPA.is_file():
        return _threebpa(n)
    sites = 3.2 * np.array([[x, y, z] for x in range(2) for y in range(2) for z in range(2)])
    kinds = [([7, 1, 1, 1], AMMONIA)] * 3 + [([8, 1, 1], WATER)] * 5
    ideal = np.concatenate([x + site for (_, x), site in zip(kinds, sites, strict=True)])
    numbers = np.concatenate([z for z, _ in kinds])
    return _rattled("27-atom cluster of ammonia and water, toy labels", n, numbers, ideal, np.zeros((3, 3)))


def silicon(n: int = 5) -> Batch:
    """Return displaced cubic cells of 64 silicon atoms with toy labels."""
    fcc = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0]])
    diamond = np.concatenate([fcc, fcc + 1]) / 4
    shifts = np.array([[x, y, z] for x in range(2) for y in range(2) for z in range(2)])
    ideal = 5.431 * (diamond[None] + shifts[:, None]).reshape(-1, 3)
    return _rattled("silicon, 64 atoms, periodic, toy labels", n, np.full(64, 14), ideal, 2 * 5.431 * np.eye(3))


def _rattled(name: str, n: int, numbers: NDArray[np.int64], ideal: Array, cell: Array) -> Batch:
    """Displace atoms; every atom hangs on a spring of 5 eV/Å², so that energies and forces agree."""
    displacement = generator(0, "benchmark", name).normal(scale=0.08, size=(n, len(ideal), 3))
    energy = 2.5 * (displacement**2).sum((1, 2))
    periodic = np.full(3, bool(cell.any()))
    return Batch(name, numbers, ideal + displacement, energy, -5.0 * displacement, cell, periodic)


def _threebpa(n: int) -> Batch:
    """Read ``n`` frames: columns species, position, REF_forces; REF_energy in the comment. No ASE where a GPU is."""
    numbers: list[int] = []
    rows, energy = [], []
    with gzip.open(THREEBPA, "rt") as file:
        for _ in range(n):
            n_atoms = int(file.readline())
            energy.append(float(file.readline().split("REF_energy=")[1].split()[0]))
            lines = [file.readline().split() for _ in range(n_atoms)]
            numbers = [SYMBOLS[line[0]] for line in lines]
            rows.append([[float(value) for value in line[1:7]] for line in lines])
    values = np.array(rows)
    return Batch(
        "3BPA, 27 atoms",
        np.array(numbers),
        values[..., :3],
        np.array(energy),
        values[..., 3:],
        np.zeros((3, 3)),
        np.zeros(3, bool),
    )
