"""What a reader wants to know of a geometry at a glance."""

from __future__ import annotations

from itertools import product

import numpy as np

from dubito.data.formula import formula_keys
from dubito.data.structures import Structures


def composition_minimum(structures: Structures) -> dict[str, float]:
    """Return the lowest labelled energy (eV) of each formula, charge and multiplicity.

    The keys are those of :func:`dubito.data.formula.formula_keys`.
    """
    lowest: dict[str, float] = {}
    for key, energy in zip(formula_keys(structures), structures.energy.tolist(), strict=True):
        lowest[key] = min(energy, lowest.get(key, np.inf))
    return lowest


def smallest_distance(structure: Structures) -> float | None:
    """Return the smallest distance between two atoms of one structure, Å; None for a lone atom.

    Along periodic directions the nearest 27 images are searched, enough for cells that are not
    thinner than the distance itself.
    """
    positions = structure.positions
    ranges = [(-1, 0, 1) if periodic else (0,) for periodic in structure.pbc[0]]
    shifts = np.array(list(product(*ranges)), dtype="f8") @ structure.cell[0]
    smallest = np.inf
    for shift in shifts:
        distances = np.linalg.norm(positions[:, None] - positions[None, :] - shift, axis=-1)
        if not np.any(shift):
            distances[np.diag_indices(len(positions))] = np.inf
        smallest = min(smallest, float(distances.min()))
    return smallest if np.isfinite(smallest) else None
