"""Radial functions: splines whose knots are the values of a small network.

A cubic B-spline on a uniform grid is twice continuously differentiable, so energies, forces and their
training are exact derivatives of one another. The network is evaluated at the knots only, whatever the number
of pairs; each pair then needs four of them.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from dubito.model.linear import NORMALISED_SILU, Weight


class BesselBasis:
    """Bessel functions times a polynomial cutoff.

    ``b_n(r) = sqrt(2 / r_max) sin(n pi r / r_max) / r * u(r / r_max)``
    (https://arxiv.org/abs/2003.03123, eqs. 7 and 8), where ``u`` goes to zero at 1 with its first and
    second derivative.
    """

    def __init__(self, r_max: float, n_basis: int, exponent: int) -> None:
        self.r_max, self.n_basis, self.exponent = r_max, n_basis, exponent

    def __call__(self, length: Tensor) -> Tensor:
        """Return values (K, n_basis) at distances (K,) in Å; 0 is allowed."""
        n = torch.arange(1, self.n_basis + 1, dtype=length.dtype)
        # sin(n pi x) / r, with its limit at 0
        wave = torch.sinc(n * length[:, None] / self.r_max) * n * math.pi / self.r_max
        return math.sqrt(2.0 / self.r_max) * wave * self._cutoff(length / self.r_max)[:, None]

    def _cutoff(self, x: Tensor) -> Tensor:
        p = self.exponent
        a, b, c = (p + 1) * (p + 2) / 2, p * (p + 2), p * (p + 1) / 2
        return torch.where(x < 1, 1 - a * x**p + b * x ** (p + 1) - c * x ** (p + 2), 0.0)


class SplineGrid:
    """A uniform grid of cubic B-splines on [0, r_max].

    Interval ``i`` of width ``h`` needs the knots ``i`` to ``i + 3``, which lie at ``(i - 1) h`` to ``(i + 2) h``.
    The last three knots are zero, so that functions vanish at ``r_max`` with two derivatives.
    """

    def __init__(self, r_max: float, n_intervals: int) -> None:
        self.r_max, self.n_intervals = r_max, n_intervals
        self.n_knots = n_intervals + 3
        self.width = r_max / n_intervals

    def free_knots(self) -> Tensor:
        """Return the places (n_intervals,) in Å of the knots that are not zero by definition, float64."""
        return (torch.arange(self.n_intervals, dtype=torch.float64) - 1) * self.width

    def locate(self, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the first knot (E,) int32, and values and slopes (1/Å) of the four splines there (E, 4)."""
        place = length / self.width
        first = place.detach().floor().clamp(0, self.n_intervals - 1)
        t = place - first
        s = 1 - t
        values = torch.stack([s**3, 3 * t**3 - 6 * t**2 + 4, 3 * s**3 - 6 * s**2 + 4, t**3], 1) / 6
        slopes = torch.stack([-(s**2), 3 * t**2 - 4 * t, 4 * s - 3 * s**2, t**2], 1) / (2 * self.width)
        return first.to(torch.int32), values, slopes

    def matrix(self, length: Tensor) -> Tensor:
        """Return all splines (..., n_knots) at distances of any shape, differentiable by them."""
        first, values, _ = self.locate(length.flatten())
        columns = first.long()[:, None] + torch.arange(4, device=length.device)
        out = values.new_zeros(len(values), self.n_knots).scatter(1, columns, values)
        return out.view(*length.shape, self.n_knots)


class RadialNetwork(nn.Module):
    """Multilayer perceptron without biases from the basis to one weight per path and channel."""

    def __init__(
        self, n_members: int, n_basis: int, hidden: list[int], n_paths: int, n_features: int, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.n_paths, self.n_features = n_paths, n_features
        widths = [n_basis, *hidden, n_paths * n_features]
        self.weights = [Weight(n_members, (a, b), fan_in=a, dtype=dtype) for a, b in itertools.pairwise(widths)]
        self.layers = nn.ModuleList(self.weights)

    def forward(self, basis: Tensor) -> Tensor:
        """Map the basis at the free knots (K, n_basis) to all knots of all functions, (M, P, K + 3, C)."""
        members = len(self.weights[0].value)
        x = basis.expand(members, -1, -1)
        *hidden, last = self.weights
        for weight in hidden:
            x = torch.nn.functional.silu(torch.bmm(x, weight())) * NORMALISED_SILU
        x = torch.bmm(x, last())
        table = x.view(members, -1, self.n_paths, self.n_features).transpose(1, 2)
        return torch.nn.functional.pad(table, (0, 0, 0, 3))
