"""Convolution in plain torch: one small matrix per pair, all paths at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dubito.model.irreps import Paths
from dubito.model.tables import wigner_3j


def coupling_tensor(paths: Paths) -> Tensor:
    """Return the Clebsch-Gordan tensor of all paths, (K, Q, D) float64.

    Entry (k, q, d) couples harmonic component k and feature component d to output component q, with
    e3nn's normalisation: sqrt(2 l_out + 1) times the Wigner 3j symbols.
    """
    out = torch.zeros((paths.l_max + 1) ** 2, paths.output.dim, paths.layout.dim, dtype=torch.float64)
    for path, rows in zip(paths.items, paths.output.slices, strict=True):
        columns = paths.layout.slices[path.source]
        harmonics = slice(path.harmonic**2, (path.harmonic + 1) ** 2)
        w3j = torch.from_numpy(wigner_3j(paths.layout.irreps[path.source].l, path.harmonic, path.target.l))
        out[harmonics, rows, columns] = w3j.permute(1, 2, 0) * math.sqrt(path.target.dim)
    return out


class DenseKernel(nn.Module):
    """See :class:`dubito.model.kernels.Kernel`."""

    def __init__(self, paths: Paths, dtype: torch.dtype) -> None:
        super().__init__()
        self.paths = paths
        tensor = coupling_tensor(paths)
        self.register_buffer("_coupling", tensor.flatten(1).to(dtype).contiguous(), persistent=False)
        of_output = [i for i, path in enumerate(paths.items) for _ in range(path.target.dim)]
        self.register_buffer("_path_of_output", torch.tensor(of_output), persistent=False)
        self._coupling: Tensor
        self._path_of_output: Tensor

    def couple(self, harmonics: Tensor) -> Tensor:
        """Return one matrix per member and pair, (M * E, Q, D)."""
        matrices = harmonics.flatten(0, 1) @ self._coupling
        return matrices.view(-1, self.paths.output.dim, self.paths.layout.dim)

    def forward(self, features: Tensor, coupling: Tensor, weights: Tensor, center: Tensor, neighbor: Tensor) -> Tensor:
        """Convolve; see :class:`dubito.model.kernels.Kernel`."""
        members, atoms, dim, channels = features.shape
        rows = features.reshape(members * atoms, dim * channels)
        gathered = rows.index_select(0, neighbor).view(-1, dim, channels)
        # For a scalar input the product is an outer product, which broadcasting does without a copy.
        product = coupling * gathered if dim == 1 else torch.bmm(coupling, gathered)
        message = product * weights.flatten(0, 1).index_select(1, self._path_of_output)
        width = product.shape[1] * channels
        out = features.new_zeros(members * atoms, width)
        out = out.index_add(0, center, message.reshape(-1, width))
        return out.view(members, atoms, -1, channels)
