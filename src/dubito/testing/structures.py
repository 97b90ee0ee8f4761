"""Small structures for tests: molecules and crystals, seeded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dubito.core.random import generator
from dubito.data.structures import Array, Structures

AMMONIA = np.array([[0.0, 0.0, 0.1], [0.0, 0.94, -0.27], [0.814, -0.47, -0.27], [-0.814, -0.47, -0.27]])
WATER = np.array([[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]])


def rattled(n: int, *, seed: int = 0, displacement: float = 0.08, molecules: str = "mixed") -> Structures:
    """Return ``n`` displaced molecules: ammonia and water in turn, or only ``ammonia``."""
    rng = generator(seed, "rattled")
    kinds = [([7, 1, 1, 1], AMMONIA), ([8, 1, 1], WATER)]
    chosen = [kinds[i % 2 if molecules == "mixed" else 0] for i in range(n)]
    positions = [x + rng.normal(scale=displacement, size=x.shape) for _, x in chosen]
    return Structures.build([z for z, _ in chosen], positions)


def crystal(n: int = 1, *, seed: int = 0, displacement: float = 0.1, lattice: float = 4.2) -> Structures:
    """Return ``n`` displaced cubic cells of four nitrogen and four oxygen atoms (rock salt), triclinically strained."""
    rng = generator(seed, "crystal")
    sites = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2
    scaled = np.concatenate([sites, sites + [0.5, 0, 0]])
    cells = lattice * (np.eye(3) + rng.uniform(-0.08, 0.08, size=(n, 3, 3)))
    positions = [scaled @ cell + rng.normal(scale=displacement, size=(8, 3)) for cell in cells]
    return Structures.build([[7] * 4 + [8] * 4] * n, positions, cell=cells, pbc=True)


def toy_labels(structures: Structures) -> Structures:
    """Label structures with a smooth pair potential with exact forces (image-free, for molecules)."""
    energy = np.zeros(len(structures))
    forces = np.zeros_like(structures.positions)
    for i, (a, b) in enumerate(zip(structures.ptr[:-1], structures.ptr[1:], strict=True)):
        difference = structures.positions[a:b, None] - structures.positions[None, a:b]
        distance = np.linalg.norm(difference, axis=2) + np.eye(b - a)
        heavy = structures.atomic_numbers[a:b] > 1
        bonded = heavy[:, None] != heavy[None, :]
        r0, depth = np.where(bonded, 1.0, 1.6), np.where(bonded, 3.0, 0.3) * (1 - np.eye(b - a))
        y = np.exp(-2.0 * (distance - r0))
        energy[i] = 0.5 * np.sum(depth * (1 - y) ** 2) - 100.0 * (b - a)
        slope = 4.0 * depth * (1 - y) * y
        forces[a:b] = -np.sum((slope / distance)[:, :, None] * difference, axis=1)
    return structures.with_columns(
        labels__energy=energy, labels__forces=forces, labels__mask=True, provenance__kind="reference"
    )


def transformed(structures: Structures, matrix: Array, shift: Array | None = None) -> Structures:
    """Apply an orthogonal matrix (rotation or reflection), then a shift, to positions and cells."""
    moved = structures.positions @ matrix.T + (0 if shift is None else shift)
    return replace(structures, positions=moved, cell=structures.cell @ matrix.T)


def random_orthogonal(seed: int, *, proper: bool) -> Array:
    """Return a random rotation (``proper``) or a rotation times a reflection, (3, 3)."""
    from scipy.stats import ortho_group

    matrix: Array = ortho_group.rvs(3, random_state=seed)
    if (np.linalg.det(matrix) > 0) != proper:
        matrix = matrix * np.array([-1.0, 1.0, 1.0])[:, None]
    return matrix
