"""Real spherical harmonics and their derivatives, as polynomials of the unit vector.

The polynomials are those of e3nn (component normalisation: the squares of one degree's 2l+1 values
sum to 2l+1), written as one matrix acting on monomials. The derivative is another matrix, so that
forces and their training need no differentiation through the harmonics.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn


def _monomials(l_max: int) -> list[tuple[int, int, int]]:
    return [
        (a, b, degree - a - b)
        for degree in range(l_max + 1)
        for a in range(degree, -1, -1)
        for b in range(degree - a, -1, -1)
    ]


@lru_cache(maxsize=8)
def _coefficients(l_max: int) -> Tensor:
    """Return the ((l_max+1)^2, n_monomials) float64 coefficients of e3nn's harmonics.

    Each harmonic of degree l is a homogeneous polynomial of degree l, so that its coefficients
    follow exactly (to rounding) from its values at more points than monomials.
    """
    from e3nn import o3

    points = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 3)))
    exponents = _monomials(l_max)
    values = torch.stack([points[:, 0] ** a * points[:, 1] ** b * points[:, 2] ** c for a, b, c in exponents], 1)
    out = torch.zeros((l_max + 1) ** 2, len(exponents), dtype=torch.float64)
    for degree in range(l_max + 1):
        columns = [i for i, e in enumerate(exponents) if sum(e) == degree]
        target = o3.spherical_harmonics(degree, points, normalize=False, normalization="component")
        solution = torch.linalg.lstsq(values[:, columns], target).solution
        solution[solution.abs() < 1e-12] = 0.0
        for column, coefficients in zip(columns, solution, strict=True):
            out[degree**2 : (degree + 1) ** 2, column] = coefficients
    return out


class SphericalHarmonics(nn.Module):
    """Harmonics of degrees 0 to ``l_max`` of vectors of any length, with Jacobian."""

    def __init__(self, l_max: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.l_max = l_max
        exponents = _monomials(l_max)
        coefficients = _coefficients(l_max)
        index = {e: i for i, e in enumerate(exponents)}
        gradient = torch.zeros(3, *coefficients.shape, dtype=torch.float64)
        for column, exponent in enumerate(exponents):
            for axis in range(3):
                if exponent[axis]:
                    lower = tuple(e - (k == axis) for k, e in enumerate(exponent))
                    gradient[axis][:, index[lower]] += exponent[axis] * coefficients[:, column]  # type: ignore[index]
        self.register_buffer("_exponents", torch.tensor(exponents), persistent=False)
        self.register_buffer("_values", coefficients.T.to(dtype).contiguous(), persistent=False)
        stacked = gradient.permute(2, 1, 0).reshape(len(exponents), -1)
        self.register_buffer("_slopes", stacked.to(dtype).contiguous(), persistent=False)
        self._exponents: Tensor
        self._values: Tensor
        self._slopes: Tensor

    def forward(self, unit: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Return values (E, K) and the Jacobian with respect to the vector (E, K, 3), 1/Å.

        ``unit`` (E, 3) are unit vectors, ``length`` (E,) in Å; K = (l_max + 1)^2.
        """
        powers = torch.stack([unit**k for k in range(self.l_max + 1)], dim=-1)
        e = self._exponents
        monomials = powers[:, 0, e[:, 0]] * powers[:, 1, e[:, 1]] * powers[:, 2, e[:, 2]]
        values = monomials @ self._values
        slopes = (monomials @ self._slopes).view(len(unit), (self.l_max + 1) ** 2, 3)
        # d(unit)/d(vector) = (1 - unit unit^T) / length
        radial = (slopes * unit[:, None, :]).sum(-1, keepdim=True)
        jacobian = (slopes - radial * unit[:, None, :]) / length[:, None, None]
        return values, jacobian
