"""Trains a sparse variational Gaussian process on energies, sums over atoms, and on forces.

Energies enter by the predictive log likelihood (Jankowiak et al. 2020, https://arxiv.org/abs/1910.07123) or by the
usual bound (Hensman et al. 2015, https://arxiv.org/abs/1411.2005), gpytorch's, on the marginal of each *structure*:
its energy is one observation, so the number of data is that of structures.

Forces are linear in the function too: with inducing values ``u = E u + (u - E u)``, their expected log likelihood is
Gaussian in ``|F - F[E f]|^2 + E |F[f - E f]|^2``. The second term is estimated with one draw of ``u`` in each step;
both need one sweep of the network. The variance left when ``u`` is known is not in it (as in DTC): forces have their
own noise, which is learnt.

Gradients alone contract a covariance slowly: after 1000 steps of Adam from the prior the deviations of atoms' energies
were still ordered the wrong way round on 3BPA. All likelihoods are Gaussian, so for given kernel, noise and inducing
points the bound's best ``q(u)`` has a closed form; it is put there at the start of each quarter of the steps, with the
forces of a few structures standing for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import gpytorch
import numpy as np
import torch
from linear_operator.operators import DiagLinearOperator
from torch import Tensor

from dubito.config.methods import Kernel, SvgpConfig
from dubito.core.errors import ModelError
from dubito.core.logs import get_logger
from dubito.core.random import generator, seed_for
from dubito.data.prediction import Array
from dubito.data.structures import Structures
from dubito.model.potential import Potential
from dubito.uncertainty.gaussian_process import function_forces
from dubito.uncertainty.latent_kernels import LatentKernel
from dubito.uncertainty.latents import member_graph
from dubito.uncertainty.sparse_posterior import SparsePosterior, covariance_factor
from dubito.uncertainty.standardiser import Standardiser

log = get_logger(__name__)
# gpytorch's defaults, softplus(0): where what is learnt starts when the data do not say.
DEFAULT = math.log(2.0)
# What noise starts at, relative to the variance of what it is noise of.
NOISE = 1e-2
# Closed forms on the way, and atoms whose force rows they use: each row costs a sweep per inducing point.
N_SOLVES = 4
SOLVE_ATOMS = 600


@dataclass(frozen=True)
class Observations:
    """What is learnt from, in units of the target's scale.

    Attributes
    ----------
    structures : the training set
    latent : (N, d) standardised
    standardiser : of the latents
    energy : (n,); forces : (N, 3), 1/Å
    """

    structures: Structures
    latent: Array
    standardiser: Standardiser
    energy: Array
    forces: Array


class AtomGp(gpytorch.models.ApproximateGP):  # type: ignore[misc]
    """An atom's energy as a function of its latents. Float64 throughout, without touching torch's default."""

    def __init__(self, inducing: Array, kind: Kernel, *, learn_inducing: bool) -> None:
        points = torch.as_tensor(inducing, dtype=torch.float64)
        distribution = gpytorch.variational.CholeskyVariationalDistribution(len(points))
        # Unit vectors span all linear functions: there is nothing to move.
        learn = learn_inducing and kind != "linear"
        super().__init__(
            gpytorch.variational.VariationalStrategy(self, points, distribution, learn_inducing_locations=learn)
        )
        self.kind: Kernel = kind
        self.mean_module = gpytorch.means.ZeroMean()
        kernels = gpytorch.kernels
        self.covar_module = (
            kernels.LinearKernel()
            if kind == "linear"
            else kernels.ScaleKernel(kernels.RBFKernel() if kind == "rbf" else kernels.MaternKernel(nu=2.5))
        )
        self.double()
        # It starts at the prior. gpytorch would do so at its first call, with noise from torch's global state.
        self.variational_strategy.variational_params_initialized.fill_(1)

    def forward(self, x: Tensor) -> Any:
        """Return the prior at ``x``, as gpytorch wants it."""
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    def start(self, *, lengthscale: float | None, outputscale: float | None) -> None:
        """Set what the data say of the kernel."""
        if self.kind == "linear":
            if outputscale is not None:
                self.covar_module.variance = outputscale
            return
        if outputscale is not None:
            self.covar_module.outputscale = outputscale
        if lengthscale is not None:
            self.covar_module.base_kernel.lengthscale = lengthscale

    def posterior(self) -> SparsePosterior:
        """Return the posterior, differentiable by all that is learnt."""
        if self.kind == "linear":
            scale = self.covar_module.variance.squeeze()
            kernel = LatentKernel(self.kind, torch.ones_like(scale), scale)
        else:
            length = self.covar_module.base_kernel.lengthscale.squeeze()
            kernel = LatentKernel(self.kind, length, self.covar_module.outputscale)
        # gpytorch keeps q(u) for the divergence until its model is called, which it is not here.
        self.variational_strategy._clear_cache()
        distribution = self.variational_strategy._variational_distribution
        factor = distribution.chol_variational_covar.tril()
        return SparsePosterior(kernel, self.variational_strategy.inducing_points, distribution.variational_mean, factor)


class VariationalTrainer:
    """Trains an :class:`AtomGp` by Adam with a rate that falls to zero; same seed, same result."""

    def __init__(self, member: Potential, data: Observations, model: AtomGp, config: SvgpConfig, *, seed: int) -> None:
        self.member, self.data, self.model, self.config = member, data, model, config
        self.random = torch.Generator().manual_seed(seed_for(seed, "svgp", "noise"))
        self.order = generator(seed, "svgp", "batches")
        # The least noise is in units of the target: gpytorch's would be 1e-4 eV^2, 10 meV, for energies in eV.
        self.likelihood = gpytorch.likelihoods.GaussianLikelihood(
            noise_constraint=gpytorch.constraints.GreaterThan(1e-8)
        ).double()
        bound = gpytorch.mlls.PredictiveLogLikelihood if config.objective == "predictive" else None
        bound = gpytorch.mlls.VariationalELBO if bound is None else bound
        self.bound = bound(self.likelihood, model, num_data=len(data.structures))
        self.log_force_noise = torch.nn.Parameter(torch.tensor(math.log(DEFAULT), dtype=torch.float64))
        if config.initialise_scales:
            self.likelihood.noise = max(NOISE * float(data.energy.var()), 2e-8)
            self.log_force_noise.data.fill_(math.log(max(NOISE * float(np.mean(data.forces**2)), 1e-16)))
        parameters = [*model.parameters(), *self.likelihood.parameters()]
        self.optimiser = torch.optim.Adam([*parameters, self.log_force_noise], lr=config.learning_rate)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, config.steps)

    def run(self) -> list[float]:
        """Take all steps; return the losses.

        Raises
        ------
        ModelError
            When the loss is not a finite number.
        """
        losses, rows = [], np.zeros(0, int)
        for step in range(self.config.steps):
            if len(rows) < 1:
                rows = self.order.permutation(len(self.data.structures))
            if self.config.solve and step % -(-self.config.steps // N_SOLVES) == 0:
                self.solve()
            batch, rows = rows[: self.config.batch_size], rows[self.config.batch_size :]
            self.optimiser.zero_grad()
            loss = self.loss(batch)
            if not torch.isfinite(loss):
                raise ModelError(
                    f"The Gaussian process' loss is not finite at step {step} of {self.config.steps}. Lower "
                    "uncertainty.svgp.learning_rate, or look for labels that are far off."
                )
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            self.schedule.step()
            losses.append(float(loss.detach()))
        return losses

    def loss(self, batch: Array) -> Tensor:
        """Return the loss of some structures: per structure, without unit."""
        posterior = self.model.posterior()
        latent, ptr = self._latent(batch)
        mean, variance = posterior.sums(latent, ptr)
        if not torch.isfinite(mean).all():
            # The likelihood would say so less clearly.
            return mean.sum()
        energies = gpytorch.distributions.MultivariateNormal(mean, DiagLinearOperator(variance))
        loss: Tensor = -self.bound(energies, torch.as_tensor(self.data.energy[batch]))
        if self.config.force_weight > 0:
            some = batch[: self.config.force_batch_size]
            loss = loss - self.config.force_weight * self._force_likelihood(posterior, some)
        return loss

    def _force_likelihood(self, posterior: SparsePosterior, batch: Array) -> Tensor:
        """Return the expected log likelihood of forces, per structure."""
        structures, (latent, _) = self.data.structures[batch], self._latent(batch)
        noise = torch.randn(1, len(posterior.mean), generator=self.random, dtype=torch.float64)
        weights = posterior.function_weights(torch.cat([posterior.mean[None], noise @ posterior.factor.T]))
        slopes = posterior.kernel.slopes(latent, posterior.inducing, weights)
        mean, deviation = self._forces(structures, slopes)
        target = torch.as_tensor(np.concatenate([self.data.forces[self._atoms(i)] for i in batch]))
        squares = (target - mean).square() + deviation.square()
        noise_variance = self.log_force_noise.exp()
        likelihood = -0.5 * (squares / noise_variance + self.log_force_noise + math.log(2 * math.pi))
        out: Tensor = likelihood.sum() / len(batch)
        return out

    @torch.no_grad()
    def solve(self) -> None:
        """Put the distribution of the inducing values at its optimum for the present kernel, noise and points.

        Whitened rows ``a``, noise variance ``s``, weight ``w``: the precision is
        ``1 + sum_E a a^T / s_E + w sum_F a a^T / s_F``.
        """
        posterior = self.model.posterior()
        m, n = len(posterior.mean), len(self.data.structures)
        precision, pull = torch.eye(m, dtype=torch.float64), torch.zeros(m, dtype=torch.float64)
        noise = self.likelihood.noise.squeeze()
        for first in range(0, n, self.config.batch_size):
            batch = np.arange(first, min(first + self.config.batch_size, n))
            a = posterior.whitened_sums(*self._latent(batch))
            precision += a @ a.T / noise
            pull += a @ torch.as_tensor(self.data.energy[batch]) / noise
        if self.config.force_weight > 0:
            order = self.order.permutation(n)
            some = order[: max(1, int(np.searchsorted(np.cumsum(self.data.structures.n_atoms[order]), SOLVE_ATOMS)))]
            weight = self.config.force_weight * n / len(some) / self.log_force_noise.exp()
            for row in some:
                a = self._force_rows(posterior, np.array([row]))
                precision += weight * (a @ a.T)
                pull += weight * (a @ torch.as_tensor(self.data.forces[self._atoms(row)]).reshape(-1))
        factor = covariance_factor(precision)
        distribution = self.model.variational_strategy._variational_distribution
        distribution.variational_mean.copy_(factor @ (factor.T @ pull))
        distribution.chol_variational_covar.copy_(factor)

    def _force_rows(self, posterior: SparsePosterior, batch: Array) -> Tensor:
        """Return the forces (m, 3 N) of each whitened inducing value alone."""
        structures, (latent, _) = self.data.structures[batch], self._latent(batch)
        unit = torch.eye(len(posterior.mean), dtype=torch.float64)
        slopes = posterior.kernel.slopes(latent, posterior.inducing, posterior.function_weights(unit))
        return self._forces(structures, slopes).flatten(1)

    def _forces(self, structures: Structures, slopes: Tensor) -> Tensor:
        """Return the forces (S, N, 3) of functions with slopes by the standardised latents."""
        return function_forces(self.member, member_graph(self.member, structures), slopes, self.data.standardiser)

    def _atoms(self, row: int) -> slice:
        ptr = self.data.structures.ptr
        return slice(int(ptr[row]), int(ptr[row + 1]))

    def _latent(self, batch: Array) -> tuple[Tensor, Tensor]:
        latent = np.concatenate([self.data.latent[self._atoms(i)] for i in batch])
        ptr = np.concatenate([[0], np.cumsum(self.data.structures.n_atoms[batch])])
        return torch.as_tensor(latent), torch.as_tensor(ptr)
