"""Network and evidential heads trained together, from a network and heads that were trained already.

The warm start matters: from scratch, atoms that are hard to fit are explained by a large variance, and never fitted.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dubito.config.methods import EvidentialConfig
from dubito.core.errors import ModelError
from dubito.core.random import generator
from dubito.data.graphs import Graph, build_graph, select
from dubito.data.structures import Structures
from dubito.model.evaluation import Evaluation
from dubito.model.potential import Potential
from dubito.training.loss import Targets, make_targets
from dubito.uncertainty.evidential_heads import Heads, follow, put

GRADIENT_CLIP = 10.0


def train_together(
    backbone: Potential, heads: Heads, structures: Structures, config: EvidentialConfig, seed: int
) -> None:
    """Train a potential of one member and its heads in place; the average of the weights over the steps is kept.

    The loss is ``force_share mean_i[evidential] + (1 - force_share) mean_s[((E_s - E_s^ref) / (n_s F 1 Å))^2]`` with F
    the rms force component. No structure is spared to stop early: the number of epochs is small and fixed, and the
    rate falls along half a cosine to zero.

    Raises
    ------
    ModelError
        When the loss stops being finite.
    """
    device = next(backbone.parameters()).device
    full = build_graph(structures, backbone.species, backbone.config.r_max_angstrom, backbone.dtype, device)
    geometry, targets = backbone.geometry(full), make_targets(structures, backbone)
    backbone.requires_grad_(True)
    heads.requires_grad_(True).to(device)
    parameters = [*backbone.parameters(), *heads.parameters()]
    adam = torch.optim.Adam(parameters, lr=config.backbone_learning_rate)
    average = [p.detach().clone() for p in parameters]
    steps, total = 0, config.backbone_epochs * math.ceil(len(structures) / config.backbone_batch_size)
    for epoch in range(config.backbone_epochs):
        order = torch.from_numpy(generator(seed, "evidential", "backbone", epoch).permutation(len(structures)))
        for index in torch.split(order.to(device), config.backbone_batch_size):
            for group in adam.param_groups:
                group["lr"] = config.backbone_learning_rate * 0.5 * (1 + math.cos(math.pi * steps / total))
            graph, atoms, pairs = select(full, index)
            result = backbone.evaluate(graph, geometry.select(pairs), create_graph=True)
            loss = joint_loss(backbone, heads, result, targets.select(index, atoms), graph, config)
            loss = loss + heads.prior() / full.n_atoms
            if not bool(torch.isfinite(loss)):
                raise ModelError(
                    f"The evidential loss is {float(loss)} in epoch {epoch}; expected a finite number. Lower "
                    "uncertainty.evidential.backbone_learning_rate, or choose backbone: frozen."
                )
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, GRADIENT_CLIP)
            adam.step()
            steps += 1
            follow(average, parameters, steps)
    put(parameters, average)
    backbone.requires_grad_(False)
    heads.requires_grad_(False).cpu()


def joint_loss(
    backbone: Potential, heads: Heads, result: Evaluation, targets: Targets, graph: Graph, config: EvidentialConfig
) -> Tensor:
    """Return the loss of one batch, dimensionless; see :func:`train_together`."""
    if result.forces is None:
        raise ValueError("the evaluation has no forces")
    unit = backbone.statistics.force_scale_ev_per_angstrom
    squared = ((result.forces[0] - targets.forces).double() / unit).square().sum(1)
    forces = heads.loss(*heads.place(result.latent[0], graph.species), squared).mean()
    n_atoms = (graph.atom_ptr[1:] - graph.atom_ptr[:-1]).double()
    energy = ((result.energy[0] - targets.energy).double() / (n_atoms * unit)).square().mean()
    return config.force_share * forces + (1 - config.force_share) * energy
