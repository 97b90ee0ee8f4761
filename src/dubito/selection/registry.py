"""The selectors by name. Third parties add theirs as entry points ``dubito.selectors``."""

from __future__ import annotations

from typing import cast

from dubito.core.plugins import Registry
from dubito.selection.base import Selector

SELECTORS = Registry(
    "selector",
    {
        "top_uncertainty": "dubito.selection.selectors:TopUncertainty",
        "farthest_point": "dubito.selection.selectors:FarthestPoint",
        "random": "dubito.selection.selectors:RandomSelector",
    },
    "dubito.selectors",
)


def make_selector(name: str) -> Selector:
    """Return a selector.

    Raises
    ------
    ConfigError
        When no selector has this name.
    """
    return cast(Selector, SELECTORS.load(name)())
