"""Stacked weights: one matrix per member, applied as batched products."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn


def _second_moment_norm(function: str) -> float:
    """Return c such that c f(z) has unit second moment for a standard normal z (Gauss-Hermite)."""
    z, w = np.polynomial.hermite_e.hermegauss(200)
    f = z / (1 + np.exp(-z)) if function == "silu" else np.tanh(z)
    return float(1 / math.sqrt(float(np.sum(w * f**2) / np.sum(w))))


NORMALISED_SILU = _second_moment_norm("silu")
NORMALISED_TANH = _second_moment_norm("tanh")


class Weight(nn.Module):
    """A stacked parameter ``(n_members, *shape)`` of unit variance, scaled by 1/sqrt(fan_in) when used.

    Keeping the parameter itself at unit variance makes one learning rate fit all layers.
    """

    def __init__(self, n_members: int, shape: tuple[int, ...], fan_in: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.empty(n_members, *shape, dtype=dtype))
        self.scale = 1.0 / math.sqrt(fan_in)

    def forward(self) -> Tensor:
        """Return the scaled weights."""
        return self.value * self.scale
