"""Choose between the compiled network and torch's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dubito.core.errors import ModelError
from dubito.core.logs import get_logger
from dubito.model.fused.compiler import CompilationError
from dubito.model.fused.function import FusedNetwork
from dubito.model.fused.library import Description
from dubito.model.fused.source import Specification

if TYPE_CHECKING:
    from dubito.model.potential import Potential

log = get_logger(__name__)

# Said once in a process, whatever the number of potentials.
_said: set[str] = set()


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
                f"model.kernel 'fused' runs on the CPU, and the potential is on '{device}'. Set it to auto."
            )
        return None
    if potential.compiled is None:
        potential.compiled = _make(potential, must=wanted == "fused")
    return potential.compiled or None


def _make(potential: Potential, *, must: bool) -> FusedNetwork | bool:
    """Return the compiled network, or False when there is none."""
    config = potential.config
    specification = Specification(config.l_max, config.n_features, potential.dtype == torch.float64)
    description = Description(
        potential.interactions,
        potential.embedding,
        l_max=config.l_max,
        n_species=len(potential.species),
        n_knots=potential.grid.n_knots,
    )
    try:
        return FusedNetwork(description, specification)
    except CompilationError as error:
        if must:
            raise ModelError(
                f"The compiled network can't be used: {error}. Install a C compiler (for example gcc), or set "
                "model.kernel to auto, which falls back to torch."
            ) from error
        if str(error) not in _said:
            _said.add(str(error))
            log.warning("the network runs in torch, several times slower than compiled: %s", error)
        return False
