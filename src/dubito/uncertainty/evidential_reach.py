"""How far an atom lies from what the heads have seen, and what they are told of it there.

Heads fitted to errors near the data say anything far from it: on strongly displaced molecules their doubt was as low
as on ordinary ones in a quarter of all pairs (AUROC 0.75). Two rules better that, both functions
of the squared Mahalanobis distance ``m2`` from the training atoms of the element:

- Inside, ``nu`` is divided by ``r = m2 / d``, whose mean over the training atoms is about one. In Bayesian linear
  regression on d features the virtual observations of the mean *are* the inverse leverage, which falls as ``1 / m2``;
  here the scale and its dependence on the environment stay the heads' to learn. The data then have a say in ``nu``,
  which the bare likelihood can't tell from ``beta``.
- Outside the ellipsoid that holds most training atoms of the element, the heads are evaluated at its surface, in the
  direction of the atom. They don't extrapolate, and the total grows as ``1 + r / nu``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# The ellipsoid holds this share of the training atoms of each element.
SHARE_INSIDE = 0.9
# Added to the variances of standardised latents: a direction in which no atom varies must not divide by zero.
REGULARISATION = 1e-6
# An atom at the very mean would have infinitely many virtual observations.
MIN_RATIO = 1e-3


class Reach(nn.Module):
    """One Gaussian of the latents for each element; buffers only, float64.

    Attributes
    ----------
    mean, deviation : (d,) of the latents of all atoms
    centre : (S, d) mean of each element, standardised; whitening : (S, d, d), ``W W^T = Sigma^-1``
    radius : (S,) Mahalanobis distance that holds ``SHARE_INSIDE`` of the element's atoms
    """

    mean: Tensor
    deviation: Tensor
    centre: Tensor
    whitening: Tensor
    radius: Tensor

    def __init__(self, n_latent: int, n_species: int) -> None:
        super().__init__()
        self.n_latent = n_latent
        shapes = {
            "mean": (n_latent,),
            "deviation": (n_latent,),
            "centre": (n_species, n_latent),
            "whitening": (n_species, n_latent, n_latent),
            "radius": (n_species,),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    def fit(self, latent: Tensor, species: Tensor) -> None:
        """Take up the training atoms: latents (N, d) float64 and species (N,).

        The covariance of an element is shrunk towards that of all elements about their means with the weight of d
        atoms; an element without atoms gets the mean of all.
        """
        self.mean.copy_(latent.mean(0))
        spread = latent.std(0, correction=0)
        # A latent that never moves says nothing; dividing by its noise would make it shout.
        self.deviation.copy_(torch.where(spread > 1e-6 * spread.max(), spread, 1.0))
        x = self.standardised(latent)
        for z in torch.unique(species).tolist():
            self.centre[z] = x[species == z].mean(0)
        residual, d = x - self.centre[species], self.n_latent
        identity = torch.eye(d, dtype=torch.float64)
        pooled = residual.T @ residual / len(x) + REGULARISATION * identity
        for z in range(len(self.centre)):
            mine = residual[species == z]
            covariance = (mine.T @ mine + d * pooled) / (len(mine) + d)
            self.whitening[z] = torch.linalg.inv(torch.linalg.cholesky(covariance)).T
            # Of a Gaussian, for want of atoms, m2 has the mean d.
            lengths = (mine @ self.whitening[z]).norm(dim=1) if len(mine) else torch.full((1,), d**0.5).double()
            self.radius[z] = torch.quantile(lengths, SHARE_INSIDE)

    def standardised(self, latent: Tensor) -> Tensor:
        """Return latents of zero mean and unit variance over the training atoms."""
        return (latent.double() - self.mean) / self.deviation

    def forward(self, latent: Tensor, species: Tensor) -> tuple[Tensor, Tensor]:
        """Return the standardised latents (N, d), drawn back to the ellipsoid, and the ratio ``r`` (N,)."""
        residual = self.standardised(latent) - self.centre[species]
        squared = torch.empty(len(latent), dtype=torch.float64, device=latent.device)
        for z in torch.unique(species).tolist():
            mine = species == z
            squared = squared.masked_scatter(mine, (residual[mine] @ self.whitening[z]).square().sum(1))
        # The root has no gradient at 0; nothing is drawn back there.
        inside = squared <= self.radius[species] ** 2
        length = torch.where(inside, 1.0, squared).sqrt()
        share = torch.where(inside, 1.0, self.radius[species] / length)
        ratio = (squared / self.n_latent).clamp_min(MIN_RATIO)
        return self.centre[species] + residual * share[:, None], ratio
