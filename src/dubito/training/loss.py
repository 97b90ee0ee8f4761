"""The loss, member by member."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dubito.config.training import TrainingConfig
from dubito.data.graphs import Graph
from dubito.data.statistics import composition
from dubito.data.structures import Structures
from dubito.model.evaluation import Evaluation
from dubito.model.potential import Potential


@dataclass(frozen=True)
class Targets:
    """Labels in the network's precision: ``energy`` (n,) eV without the species' shifts, ``forces`` (N, 3) eV/Å."""

    energy: Tensor
    forces: Tensor

    def select(self, structures: Tensor, atoms: Tensor) -> Targets:
        """Return the labels of some structures and their atoms."""
        return Targets(self.energy[structures], self.forces[atoms])


def make_targets(structures: Structures, potential: Potential) -> Targets:
    """Take the shifts from the energies in float64, and only then cast (float32 keeps 7 digits)."""
    shift = composition(structures, potential.species) @ potential.statistics.atomic_energies_ev
    device = next(potential.parameters()).device
    energy = torch.from_numpy(structures.energy - shift)
    return Targets(energy.to(device, potential.dtype), torch.from_numpy(structures.forces).to(device, potential.dtype))


@dataclass(frozen=True)
class Errors:
    """Mean squared errors of each member, (M,): per-atom energy in eV², force component in (eV/Å)²."""

    energy: Tensor
    forces: Tensor


def mean_squared_errors(result: Evaluation, targets: Targets, graph: Graph) -> Errors:
    """Return the errors of each member on a batch."""
    if result.forces is None:
        raise ValueError("the evaluation has no forces")
    n_atoms = (graph.atom_ptr[1:] - graph.atom_ptr[:-1]).to(targets.energy.dtype)
    energy = ((result.energy - targets.energy) / n_atoms).square().mean(1)
    return Errors(energy, (result.forces - targets.forces).square().mean((1, 2)))


def weighted(errors: Errors, force_scale: float, config: TrainingConfig) -> Tensor:
    """Return each member's loss (M,), dimensionless; see :class:`TrainingConfig` for the formula."""
    scale = 1.0 / force_scale**2
    return scale * (config.energy_weight * errors.energy + config.force_weight * errors.forces)
