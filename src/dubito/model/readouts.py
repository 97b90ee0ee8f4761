"""Forces of any energy that is a function of the last features: what heads beside the energy need.

For an energy ``E_s = sum_i g_s(f_i)`` of the last features ``f_i``, the force is
``-sum_i (dg_s/df_i) df_i/dr``: the network's own reverse sweep, started from ``dg_s/df_i`` instead of the
energy's readout. One sweep for each ``s``; the network is evaluated once for each too, since the compiled
one keeps no state between calls.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dubito.core.errors import ModelError
from dubito.data.graphs import Graph
from dubito.model.fused.choice import choose_network
from dubito.model.fused.function import CompiledCall, FusedNetwork
from dubito.model.geometry import Geometry
from dubito.model.potential import Potential
from dubito.model.torch_network import features_in_torch, mechanics

# So many sweeps at a time: memory grows with them.
SWEEPS = 8


def feature_forces(potential: Potential, graph: Graph, slopes: Tensor, geometry: Geometry | None = None) -> Tensor:
    """Return the forces of energies with given derivatives by the last features.

    Parameters
    ----------
    potential : of one member, see :meth:`dubito.model.potential.Potential.member`
    slopes : (S, N, C) in eV, the derivatives ``dg_s/df_i``, constants; in the network's precision
    geometry : of the graph; computed when it is not given

    Returns
    -------
    (S, N, 3) tensor, eV/Å, in the network's precision. Differentiable by ``slopes`` where they require it.

    Raises
    ------
    ModelError
        When the potential has several members, or slopes another shape.
    """
    if potential.n_members != 1:
        raise ModelError(f"Readouts are made of one member, found {potential.n_members}; give potential.member(0).")
    if slopes.shape[1:] != (graph.n_atoms, potential.config.n_features):
        raise ModelError(
            f"Slopes have shape {tuple(slopes.shape)}; expected (S, {graph.n_atoms}, {potential.config.n_features})."
        )
    network = choose_network(potential, graph.vectors.device)
    geometry = potential.geometry(graph) if geometry is None else geometry
    with torch.no_grad():
        tables = potential.tables(network, keep=True)
    if network is None:
        return _in_torch(potential, graph, geometry, slopes, tables)
    if torch.is_grad_enabled() and slopes.requires_grad:
        sweeps: Any = _Sweeps.apply
        out: Tensor = sweeps(slopes, network, graph, geometry, tables)
        return out
    return _forces(network, graph, geometry, slopes, tables)


def latent_forces(potential: Potential, graph: Graph, slopes: Tensor, geometry: Geometry | None = None) -> Tensor:
    """Return the same for derivatives (S, N, n_latent) by the latents.

    Raises
    ------
    ModelError
        As :func:`feature_forces`.
    """
    if slopes.shape[-1] != potential.config.n_latent:
        raise ModelError(f"Slopes have width {slopes.shape[-1]}; expected {potential.config.n_latent} latents.")
    return feature_forces(potential, graph, slopes @ potential.to_latent()[0].detach().T, geometry)


def latent_jacobian(potential: Potential, graph: Graph, geometry: Geometry | None = None) -> Tensor:
    """Return ``-d(sum_i scale_i h_i)/dr``, (n_latent, N, 3) in eV/Å: the force rows of a linear readout."""
    d = potential.config.n_latent
    slopes = torch.eye(d, dtype=potential.dtype, device=graph.vectors.device)[:, None, :]
    return latent_forces(potential, graph, slopes * potential.scale[graph.species][None, :, None], geometry)


def _forces(network: FusedNetwork, graph: Graph, geometry: Geometry, readouts: Tensor, tables: list[Tensor]) -> Tensor:
    out = [_call(network, graph, geometry, part, tables).evaluate(virial=False, keep=False)[1]
           for part in torch.split(readouts.detach(), SWEEPS)]  # fmt: skip
    return torch.cat([part for part in out if part is not None])


def _call(
    network: FusedNetwork, graph: Graph, geometry: Geometry, readouts: Tensor, tables: list[Tensor]
) -> CompiledCall:
    """Return the call in which each readout is a member, all with the same weights."""
    n = len(readouts)
    weights = [w.value.detach().expand(n, *w.value.shape[1:]) for w in network.description.weights]
    return CompiledCall(network, graph, geometry, weights, [t.expand(n, *t.shape[1:]) for t in tables], readouts)


class _Sweeps(torch.autograd.Function):
    """Forces, and their gradient by the readouts. They are linear in those."""

    @staticmethod
    def forward(
        ctx: Any, readouts: Tensor, network: FusedNetwork, graph: Graph, geometry: Geometry, tables: list[Tensor]
    ) -> Tensor:
        ctx.calls = [_call(network, graph, geometry, part, tables) for part in torch.split(readouts.detach(), SWEEPS)]
        out = [call.evaluate(virial=False, keep=True)[1] for call in ctx.calls]
        return torch.cat([part for part in out if part is not None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_forces: Tensor) -> tuple[Tensor | None, ...]:
        parts = torch.split(of_forces, SWEEPS)
        out = [call.differentiate(None, part, None)[0] for call, part in zip(ctx.calls, parts, strict=True)]
        return (torch.cat(out), None, None, None, None)


def _in_torch(potential: Potential, graph: Graph, geometry: Geometry, readouts: Tensor, tables: list[Tensor]) -> Tensor:
    create_graph = torch.is_grad_enabled() and readouts.requires_grad
    with torch.enable_grad():
        harmonics = geometry.harmonics.detach()[None].clone().requires_grad_()
        length = geometry.length.detach()[None].clone().requires_grad_()
        features = features_in_torch(potential, graph, harmonics, length, tables)[0]
        out = []
        for readout in readouts:
            slopes = torch.autograd.grad(
                (features * readout).sum(), (harmonics, length), retain_graph=True, create_graph=create_graph,
                allow_unused=True, materialize_grads=True,
            )  # fmt: skip
            out.append(mechanics(graph, geometry, *slopes)[0][0])
    forces = torch.stack(out)
    return forces if create_graph else forces.detach()
