"""The potential: energies of atoms from geometry, forces and stress as exact derivatives.

The network sees each pair through its harmonics and its radial basis only. Derivatives are therefore
taken with respect to those, and carried to positions with their analytic Jacobians: nothing is
differentiated through the geometry, which for a training set is computed once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dubito.config.model import ModelConfig
from dubito.core.random import seed_for
from dubito.data.graphs import Graph
from dubito.data.prediction import Prediction
from dubito.data.statistics import Statistics
from dubito.data.structures import Structures
from dubito.model.harmonics import SphericalHarmonics
from dubito.model.interaction import Interaction
from dubito.model.irreps import SCALAR, Layout, hidden_layout
from dubito.model.linear import Weight
from dubito.model.radial import BesselBasis

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Geometry:
    """What the network needs of each pair; depends on positions only, not on weights.

    Attributes
    ----------
    harmonics : (E, K); harmonics_jacobian : (E, K, 3), 1/Å
    basis : (E, B); basis_slope : (E, B), 1/Å
    unit : (E, 3)
    """

    harmonics: Tensor
    harmonics_jacobian: Tensor
    basis: Tensor
    basis_slope: Tensor
    unit: Tensor

    def select(self, pairs: Tensor) -> Geometry:
        """Return the geometry of some pairs."""
        return Geometry(*(getattr(self, name)[pairs] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Evaluation:
    """What M members say of n structures with N atoms, in the network's precision.

    Energies are without the species' shifts, which are added in float64.

    Attributes
    ----------
    energies : (M, N) eV; energy : (M, n) eV
    forces : (M, N, 3) eV/Å or None; virial : (M, n, 3, 3) eV, the derivative with respect to strain, or None
    latent : (M, N, n_latent), invariant features the energies are linear in
    """

    energies: Tensor
    energy: Tensor
    latent: Tensor
    forces: Tensor | None = None
    virial: Tensor | None = None


class Potential(nn.Module):
    """``n_members`` equivariant networks of one architecture, evaluated together."""

    def __init__(self, config: ModelConfig, statistics: Statistics, n_members: int) -> None:
        super().__init__()
        self.config, self.statistics, self.n_members = config, statistics, n_members
        self.dtype = DTYPES[config.dtype]
        c, n_species = config.n_features, len(statistics.species)
        self.harmonics = SphericalHarmonics(config.l_max, self.dtype)
        self.basis = BesselBasis(config.r_max_angstrom, config.n_radial_basis, config.cutoff_exponent, self.dtype)
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
        self._interactions: list[Interaction] = layers
        self.to_latent = Weight(n_members, (c, config.n_latent), fan_in=c, dtype=self.dtype)
        self.to_energy = Weight(n_members, (config.n_latent, 1), fan_in=config.n_latent, dtype=self.dtype)
        scale = torch.as_tensor(statistics.scale_ev, dtype=self.dtype)
        self.register_buffer("_scale", scale, persistent=False)
        self._scale: Tensor

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

    def predict(self, structures: Structures) -> Prediction:
        """Predict energies, forces and the members' spread; see :func:`dubito.model.predict.predict`."""
        from dubito.model.predict import predict

        return predict(self, structures)

    def geometry(self, graph: Graph) -> Geometry:
        """Compute harmonics, radial basis and their derivatives for all pairs."""
        length = torch.linalg.vector_norm(graph.vectors, dim=1)
        unit = graph.vectors / length[:, None]
        harmonics, jacobian = self.harmonics(unit, length)
        basis, slope = self.basis(length)
        return Geometry(harmonics, jacobian, basis, slope, unit)

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
        create_graph : keep them differentiable with respect to the weights (training)
        """
        if geometry is None:
            geometry = self.geometry(graph)
        members = self.n_members
        harmonics = geometry.harmonics.expand(members, -1, -1)
        basis = geometry.basis.expand(members, -1, -1)
        if not forces:
            energies, latent = self._energies(graph, harmonics, basis)
            return Evaluation(energies, self._sum(graph, energies), latent)
        with torch.enable_grad():
            harmonics = harmonics.contiguous().detach().requires_grad_()
            basis = basis.contiguous().detach().requires_grad_()
            energies, latent = self._energies(graph, harmonics, basis)
            g_harmonics, g_basis = torch.autograd.grad(
                energies.sum(),
                (harmonics, basis),
                create_graph=create_graph,
                allow_unused=True,
                materialize_grads=True,
            )
            force, virial = self._mechanics(graph, geometry, g_harmonics, g_basis)
            energy = self._sum(graph, energies)
        if create_graph:
            return Evaluation(energies, energy, latent, force, virial)
        return Evaluation(energies.detach(), energy.detach(), latent.detach(), force.detach(), virial.detach())

    def _energies(self, graph: Graph, harmonics: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
        """Return energies (M, N) eV and latents (M, N, n_latent)."""
        members, atoms = self.n_members, graph.n_atoms
        offset = torch.arange(members, device=graph.center.device)[:, None] * atoms
        center, neighbor = (graph.center + offset).flatten(), (graph.neighbor + offset).flatten()
        one_hot = torch.nn.functional.one_hot(graph.species, len(self.species)).to(self.dtype)
        features = torch.matmul(one_hot, self.embedding())[:, :, None, :]
        couplings: dict[object, Tensor] = {}
        for layer in self._interactions:
            kernel = layer.kernel
            if kernel.paths not in couplings:
                couplings[kernel.paths] = kernel.couple(harmonics)
            features = layer(features, couplings[kernel.paths], basis, one_hot, center, neighbor)
        latent = torch.bmm(features[:, :, 0, :], self.to_latent())
        energies = torch.bmm(latent, self.to_energy())[:, :, 0] * self._scale[graph.species]
        return energies, latent

    def _sum(self, graph: Graph, energies: Tensor) -> Tensor:
        out = energies.new_zeros(self.n_members, graph.n_structures)
        return out.index_add(1, graph.structure, energies)

    def _mechanics(
        self, graph: Graph, geometry: Geometry, g_harmonics: Tensor, g_basis: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return forces (M, N, 3) and virial (M, n, 3, 3) from the derivatives by harmonics and basis."""
        slope = (g_basis * geometry.basis_slope).sum(-1, keepdim=True)
        pull = torch.einsum("mek,ekx->mex", g_harmonics, geometry.harmonics_jacobian) + slope * geometry.unit
        forces = pull.new_zeros(self.n_members, graph.n_atoms, 3)
        forces = forces.index_add(1, graph.center, pull).index_add(1, graph.neighbor, pull, alpha=-1)
        if not bool((graph.volume > 0).any()):
            return forces, pull.new_zeros(self.n_members, graph.n_structures, 3, 3)
        outer = graph.vectors[None, :, :, None] * pull[:, :, None, :]
        virial = pull.new_zeros(self.n_members, graph.n_structures, 3, 3)
        return forces, virial.index_add(1, graph.structure[graph.center], outer)
