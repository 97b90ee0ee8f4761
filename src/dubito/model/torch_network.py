"""The network in plain torch: on any device, and the reference of the compiled one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dubito.data.graphs import Graph
from dubito.model.evaluation import Evaluation
from dubito.model.geometry import Geometry

if TYPE_CHECKING:
    from dubito.model.potential import Potential


def evaluate_in_torch(
    potential: Potential, graph: Graph, geometry: Geometry, tables: list[Tensor], *, forces: bool, create_graph: bool
) -> Evaluation:
    """Evaluate all members; see :meth:`dubito.model.potential.Potential.evaluate`."""
    members = potential.n_members
    harmonics = geometry.harmonics.expand(members, -1, -1)
    length = geometry.length.expand(members, -1)
    if not forces:
        features = features_in_torch(potential, graph, harmonics, length, tables)
        energies, latent = potential.read_out(graph, features)
        return Evaluation(energies, potential.sum_atoms(graph, energies), latent, features)
    with torch.enable_grad():
        harmonics = harmonics.contiguous().detach().requires_grad_()
        length = length.contiguous().detach().requires_grad_()
        features = features_in_torch(potential, graph, harmonics, length, tables)
        energies, latent = potential.read_out(graph, features)
        of_harmonics, of_length = torch.autograd.grad(
            energies.sum(), (harmonics, length), create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
        force, virial = mechanics(graph, geometry, of_harmonics, of_length)
        energy = potential.sum_atoms(graph, energies)
    if create_graph:
        return Evaluation(energies, energy, latent, features, force, virial)
    parts = (energies, energy, latent, features, force, virial)
    return Evaluation(*(part.detach() for part in parts))


def features_in_torch(
    potential: Potential, graph: Graph, harmonics: Tensor, length: Tensor, tables: list[Tensor]
) -> Tensor:
    """Return the last features (M, N, C)."""
    members, atoms = potential.n_members, graph.n_atoms
    offset = torch.arange(members, device=graph.center.device)[:, None] * atoms
    center, neighbor = (graph.center + offset).flatten(), (graph.neighbor + offset).flatten()
    one_hot = torch.nn.functional.one_hot(graph.species, len(potential.species)).to(potential.dtype)
    features = torch.matmul(one_hot, potential.embedding())[:, :, None, :]
    splines = potential.grid.matrix(length)
    couplings: dict[object, Tensor] = {}
    for layer, table in zip(potential.interactions, tables, strict=True):
        kernel = layer.kernel
        if kernel.paths not in couplings:
            couplings[kernel.paths] = kernel.couple(harmonics)
        features = layer(features, couplings[kernel.paths], splines, table, one_hot, center, neighbor)
    return features[:, :, 0, :]


def mechanics(graph: Graph, geometry: Geometry, of_harmonics: Tensor, of_length: Tensor) -> tuple[Tensor, Tensor]:
    """Return forces (M, N, 3) and virial (M, n, 3, 3) from the derivatives by harmonics and distances."""
    members = len(of_length)
    pull = torch.einsum("mek,ekx->mex", of_harmonics, geometry.jacobian) + of_length[:, :, None] * geometry.unit
    forces = pull.new_zeros(members, graph.n_atoms, 3)
    forces = forces.index_add(1, graph.center, pull).index_add(1, graph.neighbor, pull, alpha=-1)
    if not bool((graph.volume > 0).any()):
        return forces, pull.new_zeros(members, graph.n_structures, 3, 3)
    outer = graph.vectors[None, :, :, None] * pull[:, :, None, :]
    virial = pull.new_zeros(members, graph.n_structures, 3, 3)
    return forces, virial.index_add(1, graph.structure[graph.center], outer)
