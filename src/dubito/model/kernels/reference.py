"""Convolution through e3nn's own tensor product: slow, and the reference for every other kernel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dubito.model.irreps import Layout, Paths


def _to_e3nn(x: Tensor, layout: Layout) -> Tensor:
    """Turn (B, D, C), channels innermost, into e3nn's layout, channels outermost in each irrep."""
    return torch.cat([x[:, s].transpose(1, 2).flatten(1) for s in layout.slices], dim=1)


def _from_e3nn(x: Tensor, layout: Layout, channels: int) -> Tensor:
    parts, start = [], 0
    for ir in layout.irreps:
        block = x[:, start : start + channels * ir.dim].view(-1, channels, ir.dim)
        parts.append(block.transpose(1, 2))
        start += channels * ir.dim
    return torch.cat(parts, dim=1)


class E3nnKernel(nn.Module):
    """See :class:`dubito.model.kernels.Kernel`."""

    def __init__(self, paths: Paths, n_features: int, dtype: torch.dtype) -> None:
        super().__init__()
        from e3nn import o3

        self.paths, self.channels = paths, n_features
        degrees = [f"1x{l}{'e' if l % 2 == 0 else 'o'}" for l in range(paths.l_max + 1)]  # noqa: E741
        # e3nn bakes its constants in the default precision of the moment of construction.
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        self.product = o3.TensorProduct(
            "+".join(f"{n_features}x{ir}" for ir in paths.layout.irreps),
            "+".join(degrees),
            "+".join(f"{n_features}x{ir}" for ir in paths.output.irreps),
            [(p.source, p.harmonic, i, "uvu", True) for i, p in enumerate(paths.items)],
            shared_weights=False,
            internal_weights=False,
        )
        torch.set_default_dtype(before)

    def couple(self, harmonics: Tensor) -> Tensor:
        """Return the harmonics as they are, (M * E, K)."""
        return harmonics.flatten(0, 1)

    def forward(self, features: Tensor, coupling: Tensor, weights: Tensor, center: Tensor, neighbor: Tensor) -> Tensor:
        """Convolve; see :class:`dubito.model.kernels.Kernel`."""
        members, atoms, dim, channels = features.shape
        gathered = features.reshape(members * atoms, dim, channels).index_select(0, neighbor)
        message = self.product(_to_e3nn(gathered, self.paths.layout), coupling, weights.flatten(0, 1).flatten(1))
        message = _from_e3nn(message, self.paths.output, channels)
        out = features.new_zeros(members * atoms, *message.shape[1:])
        return out.index_add(0, center, message).view(members, atoms, -1, channels)
