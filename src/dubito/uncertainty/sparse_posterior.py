"""The posterior of a sparse variational Gaussian process of atoms' energies, and of their sums.

``f ~ GP(0, k)``, inducing values ``u = f(Z) = L v``, ``L L^T = k(Z, Z)``, ``q(v) = N(m, C C^T)`` (whitened). Then for
any rows ``phi`` of covariances with ``u``, of an atom ``k(h, Z)`` or of a structure ``sum_i k(h_i, Z)``, with
``a = L^-1 phi``: mean ``a.m`` and variance ``prior - |a|^2 + |C^T a|^2`` (Hensman et al. 2015,
https://arxiv.org/abs/1411.2005). The variance of a structure's energy is that of the sum, with all covariances of its
atoms: taking atoms for independent would add variances of strongly correlated values.

Draws of whole functions (whose slopes give forces) are *pathwise*: a draw from the prior plus an update at the
inducing points (Wilson et al. 2020, https://arxiv.org/abs/2002.09309). ``k(h, Z) k(Z, Z)^-1 u`` alone would vanish
far from the inducing points: certain where nothing is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dubito.core.errors import ModelError
from dubito.model.predict import chunks
from dubito.uncertainty.latent_kernels import LatentKernel, RandomFeatures

# Added to the diagonal of k(Z, Z), relative to its mean: far above rounding, far below anything learnt.
JITTER = 1e-8
# Numbers in the largest array made on the way, 2 and 16 MB; a single atom's row is never split.
PAIR_VALUES = 2**18
KERNEL_VALUES = 2**21


def inducing_factor(kernel: LatentKernel, inducing: Tensor) -> Tensor:
    """Return the Cholesky factor L (m, m) of the inducing points' covariance; more jitter where it needs it."""
    covariance = kernel(inducing, inducing)
    unit = torch.eye(len(inducing), dtype=covariance.dtype, device=covariance.device)
    size = covariance.diagonal().mean().detach()
    jitter = JITTER
    while True:
        factor, failed = torch.linalg.cholesky_ex(covariance + jitter * size * unit)
        if not int(failed) or jitter > 1e-2:
            out: Tensor = factor
            return out
        jitter *= 10


def whiten(factor: Tensor, rows: Tensor) -> Tensor:
    """Return ``L^-1 phi`` for columns (m, n) of covariances with the inducing points."""
    out: Tensor = torch.linalg.solve_triangular(factor, rows, upper=False)
    return out


def covariance_factor(precision: Tensor) -> Tensor:
    """Return the lower Cholesky factor C (m, m) of the inverse of a precision, which itself is never formed.

    With the order of rows and columns reversed by ``J``, ``J P J = R R^T`` gives ``P^-1 = C C^T``,
    ``C = J R^-T J``: lower again, so the Cholesky factor there is.

    Raises
    ------
    ModelError
        When the precision is not positive definite, or not finite.
    """
    reverse, failed = torch.linalg.cholesky_ex(precision.flip(0, 1))
    unit = torch.eye(len(precision), dtype=precision.dtype, device=precision.device)
    out: Tensor = torch.linalg.solve_triangular(reverse, unit, upper=False).T.flip(0, 1)
    if int(failed) or not bool(torch.isfinite(out).all()):
        raise ModelError(
            f"The precision of {len(precision)} inducing values is not positive definite to rounding, so the Gaussian "
            "process has no covariance. Give it more training structures that differ, or fewer inducing points "
            "(n_inducing)."
        )
    return out


def structure_of_atom(ptr: Tensor) -> Tensor:
    """Return the structure (N,) that each atom belongs to."""
    return torch.repeat_interleave(torch.arange(len(ptr) - 1, device=ptr.device), ptr[1:] - ptr[:-1])


def atom_pairs(ptr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return all ordered pairs of atoms of the same structure, (p,) each: first atom, second atom, structure."""
    count = ptr[1:] - ptr[:-1]
    per_atom = torch.repeat_interleave(count, count)
    first = torch.repeat_interleave(torch.arange(int(ptr[-1]), device=ptr.device), per_atom)
    owner = torch.repeat_interleave(torch.arange(len(count), device=ptr.device), count)[first]
    start = torch.cumsum(per_atom, 0) - per_atom
    second = torch.arange(len(first), device=ptr.device) - start[first] + ptr[owner]
    return first, second, owner


def sums_over_atoms(values: Tensor, ptr: Tensor) -> Tensor:
    """Sum values (N, ...) of atoms over structures, (n, ...)."""
    return values.new_zeros(len(ptr) - 1, *values.shape[1:]).index_add(0, structure_of_atom(ptr), values)


def summed_covariances(kernel: LatentKernel, latent: Tensor, inducing: Tensor, ptr: Tensor) -> Tensor:
    """Return the covariances (n, m) of structures' sums with the inducing values, atoms in blocks."""
    owner, out = structure_of_atom(ptr), latent.new_zeros(len(ptr) - 1, len(inducing))
    some = max(1, KERNEL_VALUES // len(inducing))
    for rows, owners in zip(torch.split(latent, some), torch.split(owner, some), strict=True):
        out = out.index_add(0, owners, kernel(rows, inducing))
    return out


def prior_of_sums(kernel: LatentKernel, latent: Tensor, ptr: Tensor) -> Tensor:
    """Return the prior variance (n,) of the sum over each structure's atoms: all covariances of its atoms.

    In blocks: the pairs of atoms of many structures, or of one large one, take gigabytes.
    """
    if kernel.kind == "linear":
        return kernel.diagonal(sums_over_atoms(latent, ptr))
    most = PAIR_VALUES // latent.shape[1]
    parts = [latent.new_zeros(0)]
    for block in chunks((ptr[1:] - ptr[:-1]).square().cpu().numpy(), most):
        start, stop = ptr[block[0]], ptr[block[-1] + 1]
        atoms = latent[start:stop]
        if len(atoms) ** 2 > most and len(block) == 1:
            rows = torch.split(atoms, max(1, PAIR_VALUES // len(atoms)))
            parts.append(torch.stack([kernel(some, atoms).sum() for some in rows]).sum(0, keepdim=True))
        else:
            first, second, owner = atom_pairs(ptr[block[0] : block[-1] + 2] - start)
            covariances = kernel.of_pairs(atoms[first], atoms[second])
            parts.append(latent.new_zeros(len(block)).index_add(0, owner, covariances))
    return torch.cat(parts)


@dataclass(frozen=True)
class SparsePosterior:
    """See the module.

    Attributes
    ----------
    inducing : (m, d) Z
    mean : (m,) of the whitened inducing values
    factor : (m, m) C, lower triangle
    """

    kernel: LatentKernel
    inducing: Tensor
    mean: Tensor
    factor: Tensor

    @cached_property
    def inducing_factor(self) -> Tensor:
        """L (m, m)."""
        return inducing_factor(self.kernel, self.inducing)

    def atoms(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance (N,) of each atom's energy."""
        return self._marginal(
            whiten(self.inducing_factor, self.kernel(self.inducing, latent)), self.kernel.diagonal(latent)
        )

    def sums(self, latent: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance (n,) of each structure's energy, with the covariances of its atoms."""
        return self._marginal(self.whitened_sums(latent, ptr), prior_of_sums(self.kernel, latent, ptr))

    def whitened_sums(self, latent: Tensor, ptr: Tensor) -> Tensor:
        """Return the rows ``a`` (m, n) of structures' energies."""
        return whiten(self.inducing_factor, summed_covariances(self.kernel, latent, self.inducing, ptr).T)

    def function_weights(self, values: Tensor) -> Tensor:
        """Return weights (S, m) of functions ``sum_m w_sm k(h, Z_m)`` with whitened inducing values (S, m)."""
        out: Tensor = torch.linalg.solve_triangular(self.inducing_factor.T, values.T, upper=True)
        return out.T

    def _marginal(self, a: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        variance = prior - a.square().sum(dim=0) + (self.factor.T @ a).square().sum(dim=0)
        # prior - |a|^2 is zero at an inducing point, and below it by rounding.
        return a.T @ self.mean, variance.clamp_min(0.0)

    def draw(self, n_draws: int, n_features: int, rng: np.random.Generator) -> PosteriorDraws:
        """Draw deviations of whole functions from the posterior mean."""
        m, d = self.inducing.shape
        prior = RandomFeatures.draw(self.kernel, d, n_draws, n_features, rng)
        noise = torch.as_tensor(rng.normal(size=(n_draws, m)))
        seen = whiten(self.inducing_factor, prior(self.inducing).T).T
        return PosteriorDraws(prior, self.function_weights(noise @ self.factor.T - seen))


@dataclass(frozen=True)
class PosteriorDraws:
    """Functions ``prior_s(h) + sum_m update_sm k(h, Z_m)``: deviations from the posterior mean.

    Attributes
    ----------
    prior : the draws from the prior
    update : (S, m)
    """

    prior: RandomFeatures
    update: Tensor

    def values(self, posterior: SparsePosterior, latent: Tensor) -> Tensor:
        """Return the draws (S, n)."""
        return self.prior(latent) + self.update @ posterior.kernel(posterior.inducing, latent)

    def slopes(self, posterior: SparsePosterior, latent: Tensor) -> Tensor:
        """Return their derivatives (S, n, d) by the latents."""
        return self.prior.slopes(latent) + posterior.kernel.slopes(latent, posterior.inducing, self.update)
