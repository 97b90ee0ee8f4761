"""Choose between the compiled network and torch's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from dubito.core.errors import ModelError
from dubito.core.logs import get_logger
from dubito.data.graphs import Graph, build_graph
from dubito.data.statistics import Statistics
from dubito.data.structures import Structures
from dubito.model.fused.compiler import CompilationError
from dubito.model.fused.function import FusedNetwork
from dubito.model.fused.library import Description
from dubito.model.fused.source import Specification

if TYPE_CHECKING:
    from dubito.model.potential import Potential

log = get_logger(__name__)

# Once in a process, whatever the number of potentials: what was said, and what was found right.
_said: set[str] = set()
_checked: set[tuple[object, ...]] = set()
# Largest difference from torch's network, relative to the largest value, that rounding explains.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}


def choose_network(potential: Potential, device: torch.device) -> FusedNetwork | None:
    """Return the compiled network of a potential, made at its first use; None: torch does it.

    Raises
    ------
    ModelError
        When ``model.kernel`` is ``fused`` and it can't be had.
    """
    wanted = potential.config.kernel
    if wanted not in ("auto", "fused"):
        return None
    if device.type != "cpu":
        if wanted == "fused":
            raise ModelError(
                f"model.kernel is 'fused', which runs on the CPU, and the potential is on '{device}'. Set "
                "resources.device to cpu (which reruns nothing), or model.kernel to auto (which trains again)."
            )
        return None
    if potential.compiled is None:
        potential.compiled = _make(potential, must=wanted == "fused")
    return potential.compiled or None


def _make(potential: Potential, *, must: bool) -> FusedNetwork | Literal[False]:
    """Return the compiled network, or False when there is none."""
    try:
        network = _compile(potential)
        # Whatever mode the first evaluation is in.
        with torch.inference_mode(mode=False), torch.enable_grad():
            _check(potential, network.specification)
    except CompilationError as error:
        if must:
            raise ModelError(
                f"The compiled network can't be used: {error}. Install a C compiler (for example gcc), or set "
                "model.kernel to auto, which falls back to torch."
            ) from error
        if str(error) not in _said:
            _said.add(str(error))
            log.warning("the network runs in torch, many times slower than compiled: %s", error)
        return False
    return network


def _compile(potential: Potential) -> FusedNetwork:
    config = potential.config
    specification = Specification(config.l_max, config.parity, config.n_features, potential.dtype == torch.float64)
    description = Description(
        potential.interactions, potential.embedding, specification, len(potential.species), potential.grid.n_knots
    )
    radial = [layer.radial for layer in potential.interactions]
    return FusedNetwork(description, radial, specification)


def _check(potential: Potential, specification: Specification) -> None:
    """Compare with torch's network on a few atoms, once in a process.

    Raises
    ------
    CompilationError
        When a compiler or a processor does not do what it should.
    """
    config = potential.config
    key = (specification, config.n_layers, tuple(config.radial_hidden))
    if key in _checked:
        return
    n = len(potential.species)
    plain = Statistics(potential.species, np.zeros(n), np.ones(n), 1.0, 4.0)
    compared = type(potential)(config.model_copy(update={"kernel": "dense"}), plain, 1)
    compared.initialise(0, [0])
    for parameter in compared.parameters():
        parameter.requires_grad_()
    r_max = config.r_max_angstrom
    graph = build_graph(_cluster(potential.species, r_max), potential.species, r_max, potential.dtype)
    expected, found = (_everything(compared, network, graph) for network in (None, _compile(compared)))
    for a, b in zip(expected, found, strict=True):
        if not float((a - b).abs().max()) <= _TOLERANCE[potential.dtype] * (float(a.abs().max()) + 1e-30):
            raise CompilationError("its numbers differ from torch's; compiler and processor do not fit each other")
    _checked.add(key)


def _everything(potential: Potential, network: FusedNetwork | None, graph: Graph) -> list[Tensor]:
    """Return energies, forces, and a gradient that needs all sweeps."""
    result = potential.evaluate_with(network, graph, create_graph=True)
    forces = result.energies if result.forces is None else result.forces
    loss = forces.square().sum() + result.energy.sum()
    gradient = torch.autograd.grad(loss, list(potential.parameters()), materialize_grads=True)
    return [tensor.detach() for tensor in (result.energies, forces, *gradient)]


def _cluster(species: tuple[int, ...], r_max: float) -> Structures:
    """Return five atoms within the cutoff, of as many species as there are."""
    places = np.random.default_rng(0).normal(size=(5, 3)) + np.arange(5)[:, None] * [1.5, 0.0, 0.0]
    return Structures.build([np.resize(species, 5)], [places * r_max / 8])
