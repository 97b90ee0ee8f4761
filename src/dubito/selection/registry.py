"""The selectors by name. Third parties add theirs as entry points ``dubito.selectors``."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from dubito.core.errors import ConfigError, unknown_name
from dubito.selection.base import Selector

SELECTORS = {
    "top_uncertainty": "dubito.selection.selectors:TopUncertainty",
    "farthest_point": "dubito.selection.selectors:FarthestPoint",
    "random": "dubito.selection.selectors:RandomSelector",
}
ENTRY_POINT_GROUP = "dubito.selectors"


def known_selectors() -> dict[str, str]:
    """Return every selector's name and where its class is."""
    return SELECTORS | {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}


def make_selector(name: str) -> Selector:
    """Return a selector.

    Raises
    ------
    ConfigError
        When no selector has this name.
    """
    # Entry points are looked through only for names that are not dubito's own.
    where = SELECTORS.get(name) or known_selectors().get(name)
    if where is None:
        raise ConfigError(unknown_name("selector", name, known_selectors()))
    module, _, attribute = where.partition(":")
    found: Selector = getattr(import_module(module), attribute)()
    return found
