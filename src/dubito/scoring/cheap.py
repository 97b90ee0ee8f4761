"""The cheap features of candidates: what one member says in the evaluation that is made anyway.

Mahalanobis distances of the last features from the training atoms of the element rank the members' spread best among
what costs no further evaluation (docs/adaptive_scoring.md): the largest over the atoms, mean and root mean square, with
the energy above the training set's and the largest force beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from dubito.core.errors import DataError
from dubito.data.prediction import Array, Prediction
from dubito.data.structures import Structures
from dubito.metrics.reduce import atom_norm, structure_max
from dubito.model.potential import Potential
from dubito.uncertainty.element_gaussians import ElementGaussians
from dubito.uncertainty.standardiser import Standardiser

NAMES = ("distance_max", "distance_mean", "distance_rms", "energy", "force_max")
# Distances and forces of exactly zero (an atom alone) have no logarithm.
_SMALLEST = 1e-6


@dataclass(frozen=True)
class CheapScore:
    """What one member's features and energies are compared with.

    Attributes
    ----------
    standardiser, gaussians : of the last features of the training atoms
    energies : (256,) mean energy (eV) of the training atoms of each element, by atomic number
    n_known : training structures it was fitted to, each evaluated once
    """

    standardiser: Standardiser
    gaussians: ElementGaussians
    energies: Array
    n_known: int

    @classmethod
    def fit(cls, member: Potential, train: Structures) -> Self:
        """Fit to the structures that the member was trained on.

        Raises
        ------
        DataError
            When there is none, or features are not finite.
        """
        said = member.predict(train)
        if said.features is None or not len(train):
            raise DataError("There are no training structures to compare candidates with; label some first.")
        standardiser = Standardiser.fit(said.features)
        species = np.array(member.species, dtype="i8")
        gaussians = ElementGaussians.fit(standardiser.apply(said.features), train.atomic_numbers, species)
        energies = np.full(256, said.energies.mean())
        for number in np.unique(train.atomic_numbers):
            energies[number] = said.energies[train.atomic_numbers == number].mean()
        return cls(standardiser, gaussians, energies, len(train))

    def distances(self, structures: Structures, said: Prediction) -> Array:
        """Return the distance (N,) of each atom from the training atoms; ``said`` by the member, with features."""
        if said.features is None or not len(structures):
            return np.zeros(len(structures.atomic_numbers))
        return self.gaussians.distance(self.standardiser.apply(said.features), structures.atomic_numbers)

    def features(self, structures: Structures, said: Prediction, distances: Array) -> Array:
        """Return the features (n, 5) named in ``NAMES``: logarithms, but for the energy per atom in eV."""
        ptr, n_atoms = structures.ptr, structures.n_atoms
        above = said.energies - self.energies[structures.atomic_numbers]

        def mean(values: Array) -> Array:
            out: Array = np.add.reduceat(values, ptr[:-1]) / n_atoms
            return out

        positive = (
            structure_max(distances, ptr),
            mean(distances),
            np.sqrt(mean(distances**2)),
            structure_max(atom_norm(said.forces), ptr),
        )
        largest, average, square, force = (np.log(np.maximum(values, _SMALLEST)) for values in positive)
        return np.stack([largest, average, square, mean(above), force], axis=1)
