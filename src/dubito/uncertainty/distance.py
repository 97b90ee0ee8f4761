"""Distance of an atom from the training atoms of its element, in the latents: the control of all densities.

``mahalanobis``: one Gaussian per element, see :mod:`dubito.uncertainty.element_gaussians`. ``neighbors``: the mean
Euclidean distance to the k nearest training atoms of the element in standardised latents (Janet et al. 2019,
https://doi.org/10.1039/C9SC02298H).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from scipy.spatial import cKDTree

from dubito.config.uncertainty import UncertaintyConfig
from dubito.core.logs import get_logger
from dubito.core.random import seed_for
from dubito.data.prediction import Array, Prediction
from dubito.data.structures import Structures
from dubito.model.potential import Potential
from dubito.uncertainty.element_gaussians import ElementGaussians
from dubito.uncertainty.latents import training_atoms
from dubito.uncertainty.method import Doubt, FittedMethod, Tensors
from dubito.uncertainty.standardiser import Standardiser

log = get_logger(__name__)


class DistanceUncertainty(FittedMethod):
    """See :class:`dubito.uncertainty.base.UncertaintyMethod`.

    Attributes
    ----------
    kind : ``mahalanobis`` or ``neighbors``
    numbers : (S,) atomic numbers of the potential
    fallbacks : elements with too few training atoms, and what they are compared with
    means, factors : (S, d) and (S, d, d) with ``factors factors^T = Sigma^-1``; of ``mahalanobis``
    kept, kept_numbers : (n, d) standardised latents and (n,) elements of training atoms; of ``neighbors``
    """

    name: ClassVar[str] = "distance"
    is_sigma: ClassVar[bool] = False
    kind: str
    n_neighbors: int
    standardiser: Standardiser
    numbers: Array
    fallbacks: dict[str, str]
    means: Array
    factors: Array
    kept: Array
    kept_numbers: Array

    def __init__(self, potential: Potential) -> None:
        super().__init__(potential)
        self.trees: dict[int, cKDTree] = {}

    def learn(self, train: Structures, unseen: Structures, *, seed: int, config: UncertaintyConfig) -> Structures:
        """Take up the training atoms."""
        settings = config.distance
        atoms = training_atoms(self.member, train, max_atoms=settings.max_atoms, seed=seed_for(seed, self.name))
        self.kind, self.n_neighbors, self.fallbacks, self.trees = settings.kind, settings.n_neighbors, {}, {}
        self.numbers = np.array(self.potential.species, dtype="i8")
        self.standardiser = Standardiser.fit(atoms.latent)
        features = self.standardiser.apply(atoms.latent)
        if self.kind == "mahalanobis":
            gaussians = ElementGaussians.fit(features, atoms.atomic_numbers, self.numbers)
            self.means, self.factors, self.fallbacks = gaussians.means, gaussians.factors, gaussians.fallbacks
        else:
            self.kept, self.kept_numbers = features, atoms.atomic_numbers.astype("i8")
            for number in self.numbers:
                self._note_few_neighbors(int(number), int(np.sum(self.kept_numbers == number)))
        for element, instead in self.fallbacks.items():
            log.warning("distance: element %s has few training atoms: %s", element, instead)
        return unseen

    def _note_few_neighbors(self, number: int, n: int) -> None:
        if n == 0:
            self.fallbacks[str(number)] = "0 atoms: nearest atoms of any element"
        elif n < self.n_neighbors:
            self.fallbacks[str(number)] = f"mean over its {n} atoms instead of {self.n_neighbors}"

    def doubt(self, structures: Structures, prediction: Prediction) -> Doubt:
        """Return the distances."""
        score = self.score(structures, prediction.latent)
        return Doubt(score, score)

    def score(self, structures: Structures, latent: Array | None) -> Array:
        """Return the distance of each atom, (N,), from latents (N, d)."""
        out = np.zeros(len(structures.atomic_numbers))
        if latent is None or not len(out):
            return out
        features = self.standardiser.apply(latent)
        if self.kind == "mahalanobis":
            gaussians = ElementGaussians(self.numbers, self.means, self.factors)
            return gaussians.distance(features, structures.atomic_numbers)
        for number in self.numbers:
            mine = structures.atomic_numbers == number
            if mine.any():
                out[mine] = mean_distance(features[mine], self._known(int(number)), self.n_neighbors)
        return out

    def _known(self, number: int) -> cKDTree:
        """Return the training atoms of an element, or all where it has none, as a tree: exact, and faster than all
        pairs by several times in 16 dimensions, since latents of one element lie in clusters."""
        if number not in self.trees:
            own = self.kept[self.kept_numbers == number]
            self.trees[number] = cKDTree(own if len(own) else self.kept)
        return self.trees[number]

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Return standardisation, and Gaussians or atoms."""
        tensors: Tensors = {f"standardiser.{key}": value for key, value in self.standardiser.state().items()}
        tensors["numbers"] = self.numbers
        if self.kind == "mahalanobis":
            tensors |= {"means": self.means, "factors": self.factors}
        else:
            tensors |= {"kept": self.kept, "kept_numbers": self.kept_numbers}
        return tensors, {"kind": self.kind, "n_neighbors": self.n_neighbors, "fallbacks": self.fallbacks}

    def restore(self, tensors: Tensors, settings: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        self.kind, self.n_neighbors, self.fallbacks = (settings[k] for k in ("kind", "n_neighbors", "fallbacks"))
        self.standardiser = Standardiser(tensors["standardiser.mean"], tensors["standardiser.scale"])
        self.numbers, self.trees = tensors["numbers"], {}
        if self.kind == "mahalanobis":
            self.means, self.factors = tensors["means"], tensors["factors"]
        else:
            self.kept, self.kept_numbers = tensors["kept"], tensors["kept_numbers"]


def mean_distance(features: Array, known: cKDTree, n_neighbors: int) -> Array:
    """Return the mean distance (N,) of features (N, d) to the nearest ``n_neighbors`` points of ``known``."""
    k = min(n_neighbors, known.n)
    distance, _ = known.query(features, k=list(range(1, k + 1)))
    out: Array = np.asarray(distance).mean(axis=1)
    return out
