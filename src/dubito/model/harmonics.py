"""Real spherical harmonics and their derivatives, as polynomials of the unit vector.

The polynomials are those of e3nn (component normalisation: the squares of one degree's 2l+1 values
sum to 2l+1), written as one matrix acting on monomials. The derivative is another matrix, so that
forces and their training need no differentiation through the harmonics.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dubito.model.tables import harmonic_coefficients, monomials


def _coefficients(l_max: int) -> Tensor:
    """Return the ((l_max+1)^2, n_monomials) float64 coefficients of the harmonics up to degree ``l_max``."""
    out = torch.zeros((l_max + 1) ** 2, len(monomials(l_max)), dtype=torch.float64)
    column = 0
    for degree in range(l_max + 1):
        block = torch.from_numpy(harmonic_coefficients(degree))
        out[degree**2 : (degree + 1) ** 2, column : column + block.shape[1]] = block
        column += block.shape[1]
    return out


class SphericalHarmonics(nn.Module):
    """Harmonics of degrees 0 to ``l_max`` of vectors of any length, with Jacobian."""

    def __init__(self, l_max: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.l_max = l_max
        exponents = monomials(l_max)
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
