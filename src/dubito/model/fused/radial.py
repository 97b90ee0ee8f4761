"""The radial networks of all layers, compiled: their knots, and gradients by their weights."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dubito.core.errors import ModelError
from dubito.model.fused.library import MOST_MAPS, CRadial
from dubito.model.linear import NORMALISED_SILU

if TYPE_CHECKING:
    from dubito.model.fused.source import Specification
    from dubito.model.radial import RadialNetwork


class FusedRadial:
    """Computes the tables of all layers; see :class:`dubito.model.radial.RadialNetwork` for one in torch."""

    def __init__(self, networks: Sequence[RadialNetwork], library: ctypes.CDLL) -> None:
        self.networks, self.library = list(networks), library

    @staticmethod
    def fits(networks: Sequence[RadialNetwork], specification: Specification) -> bool:
        """Say whether hidden layers are few enough and fill vectors."""
        hidden = [weight.value.shape[2] for network in networks for weight in network.weights[:-1]]
        deepest = max(len(network.weights) for network in networks)
        return deepest <= MOST_MAPS and all(width % specification.lanes == 0 for width in hidden)

    def __call__(self, basis: Tensor, n_knots: int) -> list[Tensor]:
        """Return the tables (M, P, n_knots, C) of all layers from the basis (K, n_basis) at the free knots."""
        weights = [weight.value for network in self.networks for weight in network.weights]
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            tables: Any = _Tables.apply
            return list(tables(self, basis, n_knots, *weights))
        return self.forward(basis, n_knots, weights)[0]

    def forward(self, basis: Tensor, n_knots: int, weights: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the tables, and what the gradient needs."""
        members = len(weights[0])
        tables, kept = [], []
        for network in self.networks:
            hidden = sum(weight.value.shape[2] for weight in network.weights[:-1])
            tables.append(basis.new_empty(members, network.n_paths, n_knots, network.n_features))
            kept.append(basis.new_empty(members, len(basis), hidden))
        self._run(basis, n_knots, weights, tables, kept, None)
        return tables, kept

    def backward(
        self, basis: Tensor, weights: Sequence[Tensor], kept: list[Tensor], of_tables: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return the gradients of the weights."""
        gradients = [torch.empty_like(w, memory_format=torch.contiguous_format) for w in weights]
        self._run(basis, of_tables[0].shape[2], weights, [t.contiguous() for t in of_tables], kept, gradients)
        return gradients

    def _run(
        self,
        basis: Tensor,
        n_knots: int,
        weights: Sequence[Tensor],
        tables: Sequence[Tensor],
        kept: Sequence[Tensor],
        gradients: Sequence[Tensor] | None,
    ) -> None:
        structures, held, at = [], [], 0
        for network, table, hidden in zip(self.networks, tables, kept, strict=True):
            n = len(network.weights)
            own = [w if w[0].is_contiguous() else w.contiguous() for w in weights[at : at + n]]
            held += own
            structures.append(
                CRadial(
                    n,
                    network.n_paths,
                    (ctypes.c_int32 * MOST_MAPS)(*(w.shape[1] for w in own)),
                    (ctypes.c_void_p * MOST_MAPS)(*(w.data_ptr() for w in own)),
                    (ctypes.c_int64 * MOST_MAPS)(*(w.stride(0) for w in own)),
                    (ctypes.c_double * MOST_MAPS)(*(w.scale for w in network.weights)),
                    (ctypes.c_void_p * MOST_MAPS)(*(g.data_ptr() for g in (gradients or [])[at : at + n])),
                    table.data_ptr(),
                    hidden.data_ptr(),
                )
            )
            at += n
        failed = self.library.radial_tables(
            (CRadial * len(structures))(*structures),
            len(structures),
            len(weights[0]),
            basis.data_ptr(),
            len(basis),
            n_knots,
            NORMALISED_SILU,
            int(gradients is not None),
            torch.get_num_threads(),
        )
        if failed:
            raise ModelError("There was not enough memory for the radial functions. Ask for more memory.")


class _Tables(torch.autograd.Function):
    """Tables of all layers as a differentiable function of the weights."""

    @staticmethod
    def forward(ctx: Any, radial: FusedRadial, basis: Tensor, n_knots: int, *weights: Tensor) -> tuple[Tensor, ...]:
        tables, kept = radial.forward(basis, n_knots, weights)
        ctx.save_for_backward(basis, *weights)
        ctx.radial, ctx.kept = radial, kept
        return tuple(tables)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *of_tables: Tensor) -> tuple[Tensor | None, ...]:
        basis, *weights = ctx.saved_tensors
        return (None, None, None, *ctx.radial.backward(basis, weights, ctx.kept, of_tables))
