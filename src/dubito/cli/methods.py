"""What `dubito methods` says of the uncertainty methods: what each gives, needs and costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dubito.config.packages import how_to_install
from dubito.config.uncertainty import CONTROLS
from dubito.core.errors import DubitoError
from dubito.core.plugins import Registry

_TARGETS = {"energy": "energy", "energies": "atom energies", "forces": "forces"}


def table(registry: Registry) -> list[str]:
    """Return one line for each uncertainty method, in the order of the registry."""
    names = list(registry.known())
    width = max(len(name) for name in names)
    return [f"  {name:<{width}}  {_said(registry, name)}" for name in names]


def _said(registry: Registry, name: str) -> str:
    lacking = how_to_install(name)
    if lacking:
        return f"can't be fitted here: {lacking.partition(', or take')[0]}"
    try:
        method = registry.load(name)
    except (ImportError, AttributeError, DubitoError) as error:
        return f"can't be loaded here: {error}"
    facts = facts_of(method)
    parts = [facts["kind"], f"of {facts['targets']}", facts["members"]]
    if name in CONTROLS:
        parts.append("a control, to be beaten by the others")
    return ", ".join(part for part in parts if part)


def facts_of(method: Any) -> Mapping[str, str]:
    """Return in words what a class gives and needs."""
    needed = int(getattr(method, "min_members", 1))
    kind = "standard deviation" if getattr(method, "is_sigma", False) else "score, calibrated to a standard deviation"
    return {
        "kind": kind,
        "targets": " and ".join(word for key, word in _TARGETS.items() if key in method.targets),
        "members": "one network" if needed == 1 else f"{needed} members or more",
    }
