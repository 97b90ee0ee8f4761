"""The potential: energies of atoms from geometry, forces and stress as exact derivatives.

The network sees each pair through its harmonics and its radial splines only. Derivatives are therefore
taken with respect to those, and carried to positions with their analytic Jacobians: nothing is
differentiated through the geometry, which for a training set is computed once.

Two ways lead through the layers: the compiled one (:mod:`dubito.model.fused`), and torch's, which runs
anywhere and which the compiled one is tested against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Self

import torch
from torch import Tensor, nn

from dubito.config.model import ModelConfig
from dubito.core.random import seed_for
from dubito.data.graphs import Graph
from dubito.data.prediction import Prediction
from dubito.data.statistics import Statistics
from dubito.data.structures import Structures
from dubito.model.evaluation import Evaluation
from dubito.model.fused.choice import choose_network
from dubito.model.fused.function import FusedNetwork
from dubito.model.geometry import Geometry, make_geometry
from dubito.model.harmonics import SphericalHarmonics
from dubito.model.interaction import Interaction
from dubito.model.irreps import SCALAR, Layout, hidden_layout
from dubito.model.linear import Weight
from dubito.model.radial import BesselBasis, SplineGrid
from dubito.model.torch_network import evaluate_in_torch

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Potential(nn.Module):
    """``n_members`` equivariant networks of one architecture, evaluated together."""

    def __init__(self, config: ModelConfig, statistics: Statistics, n_members: int) -> None:
        super().__init__()
        self.config, self.statistics, self.n_members = config, statistics, n_members
        self.dtype = DTYPES[config.dtype]
        c, n_species = config.n_features, len(statistics.species)
        self.harmonics = SphericalHarmonics(config.l_max, self.dtype)
        self.grid = SplineGrid(config.r_max_angstrom, config.n_spline_intervals)
        basis = BesselBasis(config.r_max_angstrom, config.n_radial_basis, config.cutoff_exponent)
        self.register_buffer("_knot_basis", basis(self.grid.free_knots()).to(self.dtype), persistent=False)
        self._knot_basis: Tensor
        self.embedding = Weight(n_members, (n_species, c), fan_in=1, dtype=self.dtype)
        hidden = hidden_layout(config.l_max, config.parity)
        layout, layers = Layout((SCALAR,)), []
        for i in range(config.n_layers):
            last = i == config.n_layers - 1
            layer = Interaction(
                n_members,
                layout,
                Layout((SCALAR,)) if last else hidden,
                l_max=config.l_max,
                n_features=c,
                n_species=n_species,
                n_basis=config.n_radial_basis,
                radial_hidden=list(config.radial_hidden),
                avg_num_neighbors=statistics.avg_num_neighbors,
                kernel=config.kernel,
                dtype=self.dtype,
            )
            layers.append(layer)
            layout = layer.output
        self.layers = nn.ModuleList(layers)
        self.interactions: list[Interaction] = layers
        # The compiled layers: None before their first use, False where there are none.
        self.compiled: FusedNetwork | Literal[False] | None = None
        self._kept: tuple[list[Tensor], list[Tensor]] | None = None
        self.to_latent = Weight(n_members, (c, config.n_latent), fan_in=c, dtype=self.dtype)
        self.to_energy = Weight(n_members, (config.n_latent, 1), fan_in=config.n_latent, dtype=self.dtype)
        scale = torch.as_tensor(statistics.scale_ev, dtype=self.dtype)
        self.register_buffer("scale", scale, persistent=False)
        self.scale: Tensor

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers the potential knows."""
        return self.statistics.species

    def initialise(self, seed: int, members: list[int]) -> None:
        """Draw the weights of each member from its own seed, whatever the others trained beside it."""
        for row, member in enumerate(members):
            random = torch.Generator().manual_seed(seed_for(seed, "member", member))
            for parameter in self.parameters():
                draw = torch.randn(parameter.shape[1:], generator=random, dtype=torch.float64)
                parameter.data[row] = draw.to(parameter.dtype)

    def __getstate__(self) -> dict[str, object]:
        """Leave out what belongs to this process and is made again: the library, and what was kept."""
        return {**self.__dict__, "compiled": None, "_kept": None}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Forget the same when device or precision change."""
        self.compiled, self._kept = None, None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def member(self, row: int) -> Potential:
        """Return a copy of one member as a potential of its own, with fixed weights."""
        return self.part([row])

    def part(self, rows: Sequence[int]) -> Potential:
        """Return a copy of some members as a potential of its own, with fixed weights."""
        some = Potential(self.config, self.statistics, len(rows))
        for mine, theirs in zip(some.parameters(), self.parameters(), strict=True):
            mine.data.copy_(theirs.data[list(rows)])
        return some.to(next(self.parameters()).device).requires_grad_(False).eval()

    def predict(self, structures: Structures, *, members: bool = False) -> Prediction:
        """Predict energies, forces and the members' spread; see :func:`dubito.model.predict.predict`."""
        from dubito.model.predict import predict

        return predict(self, structures, members=members)

    def geometry(self, graph: Graph) -> Geometry:
        """Compute harmonics, splines and their derivatives for all pairs."""
        network = choose_network(self, graph.vectors.device)
        return self._geometry(network, graph)

    def _geometry(self, network: FusedNetwork | None, graph: Graph) -> Geometry:
        if network is not None:
            return network.geometry(graph, self.grid)
        return make_geometry(graph, self.harmonics, self.grid)

    def evaluate(
        self,
        graph: Graph,
        geometry: Geometry | None = None,
        *,
        forces: bool = True,
        create_graph: bool = False,
    ) -> Evaluation:
        """Evaluate all members.

        Parameters
        ----------
        graph, geometry : the structures; the geometry is computed when it is not given
        forces : also return forces and virial
        create_graph : keep everything differentiable with respect to the weights (training)
        """
        network = choose_network(self, graph.vectors.device)
        return self.evaluate_with(network, graph, geometry, forces=forces, create_graph=create_graph)

    def evaluate_with(
        self,
        network: FusedNetwork | None,
        graph: Graph,
        geometry: Geometry | None = None,
        *,
        forces: bool = True,
        create_graph: bool = False,
    ) -> Evaluation:
        """Evaluate all members with a compiled network, or with torch's (None); see :meth:`evaluate`."""
        if geometry is None:
            geometry = self._geometry(network, graph)
        with torch.set_grad_enabled(create_graph):
            tables = self.tables(network, keep=not create_graph)
            if network is None:
                return evaluate_in_torch(self, graph, geometry, tables, forces=forces, create_graph=create_graph)
            readout = self._readout(graph) if forces else None
            periodic = bool((graph.volume > 0).any())
            features, force, virial = network(graph, geometry, readout, tables, virial=periodic)
            energies, latent = self.read_out(graph, features)
            energy = self.sum_atoms(graph, energies)
        if forces and virial is None:
            virial = energy.new_zeros(self.n_members, graph.n_structures, 3, 3)
        return Evaluation(energies, energy, latent, features, force, virial)

    def _readout(self, graph: Graph) -> Tensor:
        """Return the derivative of the energy by the last features, (M, N, C): they are linear in them."""
        per_feature = torch.bmm(self.to_latent(), self.to_energy())[:, None, :, 0]
        return per_feature * self.scale[graph.species][None, :, None]

    def read_out(self, graph: Graph, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return energies (M, N) in eV and latents (M, N, n_latent) of the last features (M, N, C)."""
        latent = torch.bmm(features, self.to_latent())
        return torch.bmm(latent, self.to_energy())[:, :, 0] * self.scale[graph.species], latent

    def sum_atoms(self, graph: Graph, energies: Tensor) -> Tensor:
        """Return the energies (M, n) of structures from those of atoms (M, N)."""
        return torch.segment_reduce(energies.T, "sum", offsets=graph.atom_ptr, axis=0).T

    def tables(self, network: FusedNetwork | None, *, keep: bool) -> list[Tensor]:
        """Return the knots of each layer's radial functions; kept while the weights stay as they are.

        The weights are compared, not their version counters: the optimiser moves them through another tensor.
        """
        now = [weight.value for layer in self.interactions for weight in layer.radial.weights]
        if keep and self._kept is not None and all(map(torch.equal, self._kept[0], now)):
            return self._kept[1]
        if network is not None and network.radial is not None:
            tables = network.radial(self._knot_basis, self.grid.n_knots)
        else:
            tables = [layer.radial(self._knot_basis) for layer in self.interactions]
        self._kept = ([value.detach().clone() for value in now], tables) if keep else None
        return tables
