"""Names of third-party plug-ins, without importing them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import entry_points


def known_names(own: Iterable[str], group: str) -> tuple[str, ...]:
    """Return dubito's own names and those installed under an entry-point group."""
    return tuple(dict.fromkeys([*own, *(point.name for point in entry_points(group=group))]))
