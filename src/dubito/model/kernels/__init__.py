"""The convolution: gather, weighted tensor product with the harmonics, sum over neighbours.

A kernel is made for the paths of a layer. ``couple`` contracts Clebsch-Gordan coefficients with the
harmonics, once for all layers with the same paths; calling it convolves. All kernels give the same
numbers; ``e3nn`` is the reference. The compiled network (:mod:`dubito.model.fused`) fuses them with the rest of
the layers and needs none of these but their paths.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from dubito.core.errors import ModelError, unknown_name
from dubito.model.irreps import Paths

KERNELS = ("auto", "fused", "dense", "e3nn")


class Kernel(Protocol):
    """A convolution for given paths."""

    paths: Paths

    def couple(self, harmonics: Tensor) -> Tensor:
        """Turn harmonics (M, E, K) into what the convolution needs of each pair."""
        ...

    def __call__(self, features: Tensor, coupling: Tensor, weights: Tensor, center: Tensor, neighbor: Tensor) -> Tensor:
        """Convolve.

        Parameters
        ----------
        features : (M, N, D, C)
        coupling : what ``couple`` gave
        weights : (M, E, P, C), one per path and channel
        center, neighbor : (M * E,), atom indices offset by ``N`` for each member

        Returns
        -------
        (M, N, Q, C), Q the components of all paths' outputs
        """
        ...


def make_kernel(name: str, paths: Paths, n_features: int, dtype: torch.dtype) -> Kernel:
    """Make the kernel called ``name`` (``auto`` and ``fused``: what torch falls back to)."""
    if name in ("auto", "fused", "dense"):
        from dubito.model.kernels.dense import DenseKernel

        return DenseKernel(paths, dtype)
    if name == "e3nn":
        from dubito.model.kernels.reference import E3nnKernel

        return E3nnKernel(paths, n_features, dtype)
    raise ModelError(unknown_name("kernel", name, KERNELS))
