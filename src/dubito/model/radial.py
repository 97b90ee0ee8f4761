"""Radial basis, cutoff, and the network that turns distances into weights."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from dubito.model.linear import NORMALISED_SILU, Weight


class BesselBasis(nn.Module):
    """Bessel functions times a polynomial cutoff, with their derivative.

    ``b_n(r) = sqrt(2 / r_max) sin(n pi r / r_max) / r * u(r / r_max)``
    (https://arxiv.org/abs/2003.03123, eqs. 7 and 8), where ``u`` goes to zero at 1 with its first and
    second derivative.
    """

    def __init__(self, r_max: float, n_basis: int, exponent: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.r_max, self.exponent = r_max, exponent
        frequency = torch.arange(1, n_basis + 1, dtype=torch.float64) * math.pi / r_max
        self.register_buffer("_frequency", frequency.to(dtype), persistent=False)
        self._frequency: Tensor

    def forward(self, length: Tensor) -> tuple[Tensor, Tensor]:
        """Return values and derivatives (E, n_basis) at distances (E,) in Å."""
        r = length[:, None]
        phase = r * self._frequency
        sine, cosine = torch.sin(phase), torch.cos(phase)
        value = sine / r
        slope = (cosine * self._frequency - value) / r
        u, du = self._cutoff(r)
        norm = math.sqrt(2.0 / self.r_max)
        return norm * value * u, norm * (slope * u + value * du)

    def _cutoff(self, r: Tensor) -> tuple[Tensor, Tensor]:
        p, x = self.exponent, r / self.r_max
        a, b, c = (p + 1) * (p + 2) / 2, p * (p + 2), p * (p + 1) / 2
        u = 1 - a * x**p + b * x ** (p + 1) - c * x ** (p + 2)
        du = (-a * p * x ** (p - 1) + b * (p + 1) * x**p - c * (p + 2) * x ** (p + 1)) / self.r_max
        inside = x < 1
        return torch.where(inside, u, 0.0), torch.where(inside, du, 0.0)


class RadialNetwork(nn.Module):
    """Multilayer perceptron without biases from the basis to one weight per path and channel.

    Without biases the weights vanish with the basis, hence smoothly, at the cutoff.
    """

    def __init__(self, n_members: int, n_basis: int, hidden: list[int], n_out: int, dtype: torch.dtype) -> None:
        super().__init__()
        widths = [n_basis, *hidden, n_out]
        self.layers = nn.ModuleList(
            Weight(n_members, (a, b), fan_in=a, dtype=dtype) for a, b in itertools.pairwise(widths)
        )

    def forward(self, basis: Tensor) -> Tensor:
        """Map (M, E, n_basis) to (M, E, n_out)."""
        x = basis
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            x = torch.bmm(x, layer())
            if i < last:
                x = torch.nn.functional.silu(x) * NORMALISED_SILU
        return x
