"""One Gaussian for each element, and how far atoms lie from it.

``sqrt((h - mu_z)^T Sigma_z^-1 (h - mu_z))`` (class-conditional, Lee et al. 2018, https://arxiv.org/abs/1807.03888).
``Sigma_z`` is shrunk towards a multiple of the identity as far as its atoms are few (Ledoit & Wolf 2004,
https://doi.org/10.1016/S0047-259X(03)00096-4).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from dubito.data.prediction import Array

# Added to the variances of standardised latents: a direction in which no atom varies must not divide by zero.
REGULARISATION = 1e-6


@dataclass(frozen=True)
class ElementGaussians:
    """The Gaussians of S elements in d dimensions.

    Attributes
    ----------
    numbers : (S,) atomic numbers
    means, factors : (S, d) and (S, d, d) with ``factors factors^T = Sigma^-1``
    fallbacks : elements with too few atoms, and what they are compared with
    """

    numbers: Array
    means: Array
    factors: Array
    fallbacks: dict[str, str] = field(default_factory=dict)

    @classmethod
    def fit(cls, features: Array, atomic_numbers: Array, species: Array) -> Self:
        """Fit to standardised features (N, d) of atoms of the elements ``atomic_numbers`` (N,)."""
        d, fallbacks = features.shape[1], dict[str, str]()
        mean_of = {int(z): features[atomic_numbers == z].mean(axis=0) for z in np.unique(atomic_numbers)}
        residual = features - np.stack([mean_of[int(z)] for z in atomic_numbers])
        within, total = shrunk_covariance(residual), None
        means, factors = np.zeros((len(species), d)), np.zeros((len(species), d, d))
        for row, number in enumerate(int(z) for z in species):
            own = residual[atomic_numbers == number]
            if len(own) > d:
                covariance = shrunk_covariance(own)
            elif len(own):
                covariance = within
                fallbacks[str(number)] = f"{len(own)} atoms: own mean, covariance about the means of all elements"
            else:
                total = shrunk_covariance(features - features.mean(axis=0)) if total is None else total
                covariance = total
                fallbacks[str(number)] = "0 atoms: mean and covariance of all atoms"
            means[row] = mean_of.get(number, features.mean(axis=0))
            factors[row] = np.linalg.inv(np.linalg.cholesky(covariance)).T
        return cls(species, means, factors, fallbacks)

    def distance(self, features: Array, atomic_numbers: Array) -> Array:
        """Return the Mahalanobis distance (N,) of standardised features (N, d); 0 for an element it does not know."""
        out = np.zeros(len(atomic_numbers))
        for row, number in enumerate(self.numbers):
            mine = atomic_numbers == number
            if mine.any():
                out[mine] = np.linalg.norm((features[mine] - self.means[row]) @ self.factors[row], axis=1)
        return out


def shrunk_covariance(residual: Array) -> Array:
    """Return Ledoit and Wolf's covariance (d, d) of residuals (n, d) about a mean; positive definite."""
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(residual, assume_centered=True)
    out: Array = covariance + REGULARISATION * np.eye(residual.shape[1])
    return out
