"""Kernels on latents, with their derivatives and random features in closed form.

Closed forms because slopes are differentiated once more in training, where automatic derivatives of a distance divide
zero by zero at an atom that is itself an inducing point. Rasmussen & Williams 2006, chapter 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dubito.config.methods import Kernel

ROOT5 = math.sqrt(5.0)


@dataclass(frozen=True)
class LatentKernel:
    """``outputscale`` times a stationary kernel of unit variance, or times the scalar product.

    Attributes
    ----------
    kind : rbf, matern (smoothness 5/2) or linear
    lengthscale, outputscale : scalars, of float64; the lengthscale has no meaning where the kernel is linear
    """

    kind: Kernel
    lengthscale: Tensor
    outputscale: Tensor

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the covariances (n, m) of ``a`` (n, d) with ``b`` (m, d)."""
        if self.kind == "linear":
            return self.outputscale * (a @ b.T)
        return self.outputscale * self._shape(self._squared(a, b))

    def of_pairs(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the covariances (p,) of rows of ``a`` (p, d) with the same rows of ``b`` (p, d)."""
        if self.kind == "linear":
            return self.outputscale * (a * b).sum(dim=1)
        return self.outputscale * self._shape(((a - b) / self.lengthscale).square().sum(dim=1))

    def diagonal(self, a: Tensor) -> Tensor:
        """Return the prior variances (n,)."""
        if self.kind == "linear":
            return self.outputscale * a.square().sum(dim=1)
        return self.outputscale.expand(len(a))

    def slopes(self, a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
        """Return the derivatives by ``a`` (n, d) of the functions ``sum_m weights_sm k(a, b_m)``: (S, n, d)."""
        if self.kind == "linear":
            return (self.outputscale * (weights @ b))[:, None, :].expand(-1, len(a), -1)
        squared = self._squared(a, b)
        # Both stationary kernels have dk/da = -steepness(|a - b|) (a - b).
        steepness = self.outputscale * self._steepness(squared) / self.lengthscale**2
        # One function at a time: all at once would take (S, n, m).
        weighted = (w * steepness for w in weights)
        return torch.stack([w @ b - w.sum(dim=1, keepdim=True) * a for w in weighted])

    def _squared(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = a / self.lengthscale, b / self.lengthscale
        # About the mean: the difference of large squares would lose what distinguishes near atoms.
        center = b.mean(dim=0).detach()
        a, b = a - center, b - center
        return (a.square().sum(dim=1)[:, None] + b.square().sum(dim=1) - 2 * a @ b.T).clamp_min(0.0)

    def _shape(self, squared: Tensor) -> Tensor:
        if self.kind == "rbf":
            return torch.exp(-0.5 * squared)
        r = ROOT5 * squared.clamp_min(1e-30).sqrt()
        return (1 + r + r.square() / 3) * torch.exp(-r)

    def _steepness(self, squared: Tensor) -> Tensor:
        if self.kind == "rbf":
            return torch.exp(-0.5 * squared)
        r = ROOT5 * squared.clamp_min(1e-30).sqrt()
        return (5.0 / 3.0) * (1 + r) * torch.exp(-r)


@dataclass(frozen=True)
class RandomFeatures:
    """Draws from the prior as sums of ``F`` cosines (Rahimi & Recht 2007); for a linear kernel exact draws.

    Attributes
    ----------
    frequencies : (F, d); phases : (F,)
    weights : (S, F), of the draws; the prior's standard deviation is in them
    """

    kind: Kernel
    frequencies: Tensor
    phases: Tensor
    weights: Tensor

    @classmethod
    def draw(
        cls, kernel: LatentKernel, d: int, n_draws: int, n_features: int, rng: np.random.Generator
    ) -> RandomFeatures:
        """Draw functions from the prior of a kernel on ``d`` latents."""
        scale = float(kernel.outputscale)
        if kernel.kind == "linear":
            weights = math.sqrt(scale) * rng.normal(size=(n_draws, d))
            return cls(kernel.kind, torch.eye(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64),
                       torch.as_tensor(weights))  # fmt: skip
        frequencies = rng.normal(size=(n_features, d)) / float(kernel.lengthscale)
        if kernel.kind == "matern":
            # The spectral density of smoothness nu is Student's t with 2 nu degrees of freedom.
            frequencies /= np.sqrt(rng.chisquare(5, size=(n_features, 1)) / 5)
        phases = rng.uniform(0, 2 * np.pi, size=n_features)
        weights = math.sqrt(2 * scale / n_features) * rng.normal(size=(n_draws, n_features))
        return cls(kernel.kind, *(torch.as_tensor(x) for x in (frequencies, phases, weights)))

    def __call__(self, a: Tensor) -> Tensor:
        """Return the draws (S, n) at ``a`` (n, d)."""
        angle = a @ self.frequencies.T + self.phases
        return self.weights @ (angle if self.kind == "linear" else torch.cos(angle)).T

    def slopes(self, a: Tensor) -> Tensor:
        """Return the derivatives (S, n, d) of the draws by ``a`` (n, d)."""
        if self.kind == "linear":
            return self.weights[:, None, :].expand(-1, len(a), -1)
        sine = torch.sin(a @ self.frequencies.T + self.phases)
        return torch.stack([-(sine * w) @ self.frequencies for w in self.weights])
