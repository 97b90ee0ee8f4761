"""The uncertainty methods by name. Third parties add theirs as entry points ``dubito.uncertainty``."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from dubito.core.errors import ConfigError, unknown_name
from dubito.uncertainty.base import UncertaintyMethod

METHODS = {"ensemble": "dubito.uncertainty.ensemble:EnsembleUncertainty"}
ENTRY_POINT_GROUP = "dubito.uncertainty"


def known_methods() -> dict[str, str]:
    """Return every method's name and where its class is."""
    return METHODS | {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}


def method_class(name: str) -> type[UncertaintyMethod]:
    """Return the class of a method.

    Raises
    ------
    ConfigError
        When no method has this name.
    """
    known = known_methods()
    if name not in known:
        raise ConfigError(unknown_name("uncertainty method", name, known))
    module, _, attribute = known[name].partition(":")
    found: type[UncertaintyMethod] = getattr(import_module(module), attribute)
    return found


def load_method(method: str, ensemble: Path, state: Path, *, threads: int | None = None) -> Any:
    """Load a fitted method with its potential, ready to ``predict``."""
    import torch

    from dubito.model.artifact import load_potential

    if threads is not None:
        torch.set_num_threads(threads)
    return method_class(method).load(state, load_potential(ensemble))
