"""Gaussian mixture on the latents of the first member: how unlikely an atom is among those trained on.

Zhu et al. 2023, https://doi.org/10.1063/5.0136574: the score of an atom is the negative logarithm of its density,
``-log sum_m w_m N(h | mu_m, Sigma_m)``. It is a density in units of standardised latents: it may be negative, and
can't be compared between models. Thresholds are quantiles of unseen structures, or the calibrated deviations.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from dubito.config.uncertainty import UncertaintyConfig
from dubito.core.logs import get_logger
from dubito.core.random import seed_for
from dubito.data.prediction import Array, Prediction
from dubito.data.structures import Structures
from dubito.uncertainty.gaussian_mixture import GaussianMixture, MixtureChoice, fit_mixture
from dubito.uncertainty.latents import TrainingAtoms, training_atoms
from dubito.uncertainty.method import Doubt, FittedMethod, Tensors
from dubito.uncertainty.standardiser import Standardiser

log = get_logger(__name__)
POOLED = "pooled"
# An element with fewer atoms per dimension than this gets no mixture of its own.
MIN_ATOMS_PER_DIMENSION = 5


class MixtureUncertainty(FittedMethod):
    """See :class:`dubito.uncertainty.base.UncertaintyMethod`.

    Attributes
    ----------
    mixtures : by atomic number (as text), and ``pooled`` for all other atoms
    choices : how each came about
    fallbacks : elements that were to have a mixture of their own, but have too few atoms: how many
    """

    name: ClassVar[str] = "gmm"
    is_sigma: ClassVar[bool] = False
    signed_score: ClassVar[bool] = True
    standardiser: Standardiser
    mixtures: dict[str, GaussianMixture]
    choices: dict[str, dict[str, Any]]
    fallbacks: dict[str, int]

    def learn(self, train: Structures, unseen: Structures, *, seed: int, config: UncertaintyConfig) -> Structures:
        """Fit the mixtures to the training atoms."""
        settings = config.gmm
        atoms = training_atoms(self.member, train, max_atoms=settings.max_atoms, seed=seed_for(seed, self.name))
        self.standardiser = Standardiser.fit(atoms.latent)
        self.mixtures, self.choices, self.fallbacks = {}, {}, {}

        def fit(key: str, some: TrainingAtoms) -> None:
            self.mixtures[key], choice = fit_mixture(
                self.standardiser.apply(some.latent),
                some.structure,
                max_components=settings.max_components,
                regularisation=settings.regularisation,
                seed=seed_for(seed, self.name, key),
            )
            self.choices[key] = choice.record()
            _tell(key, choice, settings.regularisation)

        if settings.per_species:
            for number in self.potential.species:
                own = atoms.of_element(number)
                if len(own) >= MIN_ATOMS_PER_DIMENSION * atoms.latent.shape[1]:
                    fit(str(number), own)
                else:
                    self.fallbacks[str(number)] = len(own)
                    log.warning(
                        "%d atoms of element %d are too few for a mixture of its own; it is judged by the one of all",
                        len(own),
                        number,
                    )
        if self.fallbacks or not settings.per_species:
            fit(POOLED, atoms)
        return unseen

    def doubt(self, structures: Structures, prediction: Prediction) -> Doubt:
        """Return the negative log densities."""
        score = self.score(structures, prediction.latent)
        return Doubt(score, score)

    def score(self, structures: Structures, latent: Array | None) -> Array:
        """Return ``-log p`` of each atom, (N,), from latents (N, d)."""
        out = np.zeros(len(structures.atomic_numbers))
        if latent is None or not len(out):
            return out
        features = self.standardiser.apply(latent)
        for number in np.unique(structures.atomic_numbers):
            rows = structures.atomic_numbers == number
            mixture = self.mixtures.get(str(number), self.mixtures.get(POOLED))
            if mixture is not None:
                out[rows] = mixture.negative_log_likelihood(features[rows])
        return out

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Return standardisation and mixtures; how they were chosen stands in the settings."""
        tensors: Tensors = {f"standardiser.{key}": value for key, value in self.standardiser.state().items()}
        for key, mixture in self.mixtures.items():
            tensors |= mixture.state(f"mixture.{key}")
        return tensors, {"choices": self.choices, "fallbacks": self.fallbacks}

    def restore(self, tensors: Tensors, settings: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        self.standardiser = Standardiser(tensors["standardiser.mean"], tensors["standardiser.scale"])
        self.choices, self.fallbacks = settings["choices"], settings["fallbacks"]
        self.mixtures = {key: GaussianMixture.from_state(tensors, f"mixture.{key}") for key in self.choices}


def _tell(key: str, choice: MixtureChoice, asked: float) -> None:
    log.info(
        "mixture of %s: %d components, decided by %s, of %d atoms",
        key,
        choice.n_components,
        choice.decided_by,
        choice.n_atoms,
    )
    if choice.regularisation > asked:
        log.warning("mixture of %s: regularisation raised from %g to %g", key, asked, choice.regularisation)
