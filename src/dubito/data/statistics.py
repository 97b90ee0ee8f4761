"""Statistics of a training set: energy shifts, force scale, neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dubito.core.errors import DataError
from dubito.data.neighbors import find_neighbors
from dubito.data.structures import Array, Structures


@dataclass(frozen=True)
class Statistics:
    """What a network is normalised with.

    Attributes
    ----------
    species : atomic numbers in ascending order, S of them
    atomic_energies_ev : (S,) float64, energy shift of each species
    scale_ev : (S,) float64, rms force component of each species times 1 Å: scale of its energies
    force_scale_ev_per_angstrom : rms force component of the whole set
    avg_num_neighbors : mean number of neighbours of an atom
    """

    species: tuple[int, ...]
    atomic_energies_ev: Array
    scale_ev: Array
    force_scale_ev_per_angstrom: float
    avg_num_neighbors: float


def composition(structures: Structures, species: tuple[int, ...]) -> Array:
    """Return how many atoms of each species each structure has, (n, S) float64."""
    counts = np.zeros((len(structures), len(species)))
    column = {z: i for i, z in enumerate(species)}
    unknown = sorted(set(structures.atomic_numbers.tolist()) - set(species))
    if unknown:
        raise DataError(f"The structures hold elements {unknown} that are not among {list(species)}.")
    columns = np.array([column[int(z)] for z in structures.atomic_numbers], int)
    np.add.at(counts, (structures.structure_of_atom, columns), 1.0)
    return counts


def fit_statistics(structures: Structures, r_max: float) -> Statistics:
    """Fit shifts and scales to labelled structures, in float64.

    Shifts solve ``min |composition @ shift - energy|``; where compositions don't determine them (one
    molecule only) the solution of least norm is taken, which gives the right total energies all the
    same, but no meaning to a single species' shift.

    Raises
    ------
    DataError
        When a structure is unlabelled or all forces vanish.
    """
    structures.require_labels("the training set")
    species = tuple(sorted({int(z) for z in structures.atomic_numbers}))
    shifts, *_ = np.linalg.lstsq(composition(structures, species), structures.energy, rcond=None)
    total = float(np.sqrt(np.mean(structures.forces**2)))
    if total < 1e-12:
        raise DataError("All forces of the training set are zero; they can't have been read properly.")
    scale = []
    for z in species:
        mine = structures.forces[structures.atomic_numbers == z]
        rms = float(np.sqrt(np.mean(mine**2)))
        # Atoms at rest by symmetry would get no scale at all.
        scale.append(max(rms, 0.1 * total))
    pairs = find_neighbors(structures, r_max)
    average = len(pairs.center) / max(1, int(structures.ptr[-1]))
    return Statistics(species, shifts, np.array(scale), total, max(average, 1.0))
