"""The selectors by name. Third parties add theirs as entry points ``dubito.selectors``."""

from __future__ import annotations

from typing import cast

from dubito.core.plugins import Registry
from dubito.selection.base import Selector

SELECTORS = Registry(
    "selector",
    {
        "top_uncertainty": "dubito.selection.top_uncertainty:TopUncertainty",
        "farthest_point": "dubito.selection.farthest_point:FarthestPoint",
        "random": "dubito.selection.random_selector:RandomSelector",
        "threshold_window": "dubito.selection.threshold_window:ThresholdWindow",
        "clustered_top": "dubito.selection.clustered_top:ClusteredTop",
        "max_det": "dubito.selection.max_det:MaxDet",
        "lcmd": "dubito.selection.lcmd:LargestClusterMaximumDistance",
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
