"""One interaction layer: convolution, self-connection, gate."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dubito.model.irreps import SCALAR, Layout, find_paths
from dubito.model.kernels import make_kernel
from dubito.model.linear import NORMALISED_SILU, NORMALISED_TANH, Weight
from dubito.model.radial import RadialNetwork


class Interaction(nn.Module):
    """A NequIP interaction block (https://doi.org/10.1038/s41467-022-29939-5, fig. 1c).

    ``x -> gate(W_out [conv(W_in x) / sqrt(avg neighbours), x (species)])``: the convolution's output
    and the species-dependent self-connection are mapped by one product per target irrep.
    """

    def __init__(
        self,
        n_members: int,
        layout: Layout,
        wanted: Layout,
        *,
        l_max: int,
        n_features: int,
        n_species: int,
        n_basis: int,
        radial_hidden: list[int],
        avg_num_neighbors: float,
        kernel: str,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.input = layout
        self.kernel = make_kernel(kernel, find_paths(layout, l_max, wanted), n_features, dtype)
        paths = self.kernel.paths
        self.output = Layout(tuple(ir for ir in wanted.irreps if ir in paths.targets))
        self.n_features, self.n_species = n_features, n_species
        self.n_gates = sum(ir.l > 0 for ir in self.output.irreps)
        self.neighbor_scale = 1.0 / math.sqrt(avg_num_neighbors)
        c = n_features
        self.mix_in = Weight(n_members, (len(layout.irreps), c, c), fan_in=c, dtype=dtype)
        self.radial = RadialNetwork(n_members, n_basis, radial_hidden, len(paths.items), c, dtype)
        # Plain dictionaries beside the module ones, whose values have lost their type.
        self.maps: dict[str, Weight] = {}
        self.connections: dict[str, Weight] = {}
        for ir in self.output.irreps:
            width = c * (1 + self.n_gates) if ir == SCALAR else c
            n_in = sum(path.target == ir for path in paths.items)
            self.maps[str(ir)] = Weight(n_members, (n_in * c, width), fan_in=n_in * c, dtype=dtype)
            if ir in layout.irreps:
                self.connections[str(ir)] = Weight(n_members, (n_species * c, width), fan_in=c, dtype=dtype)
        self.mix_out, self.connect = nn.ModuleDict(self.maps), nn.ModuleDict(self.connections)

    def forward(
        self,
        features: Tensor,
        coupling: Tensor,
        splines: Tensor,
        table: Tensor,
        one_hot: Tensor,
        center: Tensor,
        neighbor: Tensor,
    ) -> Tensor:
        """Map features (M, N, D_in, C) to (M, N, D_out, C).

        ``splines`` (M, E, K) and ``table`` (M, P, K, C) make the radial weights; ``one_hot`` (N, S) marks the
        species; indices as the kernel's.
        """
        members, paths, knots, c = table.shape
        flat = table.transpose(1, 2).reshape(members, knots, paths * c)
        weights = torch.bmm(splines, flat).view(members, -1, paths, c)
        message = self.kernel(self._mixed(features), coupling, weights, center, neighbor)
        return self._gate(self._map_out(message * self.neighbor_scale, features, one_hot))

    def _mixed(self, features: Tensor) -> Tensor:
        """Mix the channels of each irrep."""
        weight = self.mix_in()
        parts = [torch.matmul(features[:, :, s], weight[:, i].unsqueeze(1)) for i, s in enumerate(self.input.slices)]
        return torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]

    def _map_out(self, message: Tensor, features: Tensor, one_hot: Tensor) -> list[Tensor]:
        """Return, for each output irrep, the mapped channels (M, N, 2l+1, width)."""
        members, atoms, _, c = message.shape
        out, start = [], 0
        for ir in self.output.irreps:
            n_in = sum(path.target == ir for path in self.kernel.paths.items)
            block = message[:, :, start : start + n_in * ir.dim].view(members, atoms, n_in, ir.dim, c)
            start += n_in * ir.dim
            rows = [block.transpose(2, 3).reshape(members, atoms * ir.dim, n_in * c)]
            weights = [self.maps[str(ir)]()]
            if str(ir) in self.connections:
                own = features[:, :, self.input.slices[self.input.irreps.index(ir)]]
                spread = own.unsqueeze(3) * one_hot[:, None, :, None]
                rows.append(spread.reshape(members, atoms * ir.dim, self.n_species * c))
                weights.append(self.connections[str(ir)]())
            mapped = torch.bmm(torch.cat(rows, 2), torch.cat(weights, 1))
            out.append(mapped.view(members, atoms, ir.dim, -1))
        return out

    def _gate(self, mapped: list[Tensor]) -> Tensor:
        """Apply the non-linearity: scalars by themselves, the others times an activated scalar."""
        c, silu = self.n_features, torch.nn.functional.silu
        gates: Iterator[Tensor] = iter(())
        parts = []
        for ir, x in zip(self.output.irreps, mapped, strict=True):
            if ir == SCALAR:
                activated = silu(x) * NORMALISED_SILU
                gates = iter(torch.split(activated[..., c:], c, dim=-1))
                parts.append(activated[..., :c])
            elif ir.l == 0:
                parts.append(torch.tanh(x) * NORMALISED_TANH)
            else:
                parts.append(x * next(gates))
        return torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
