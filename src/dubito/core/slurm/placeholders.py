"""Values of a profile that were left to be filled in. A name that the cluster knows is never one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dubito.core.slurm.accounts import read_associations
from dubito.core.slurm.cluster import read_cluster

# How people write "put yours here"; names such as my-lab are names.
_PLACEHOLDER = re.compile(
    r"^<.*>$|^\{.*\}$|^\$|\?\?|^\?+$|^your[_ -]|^change[_ -]?me$|^fill[_ -]?(me|in|this)|^todo$|^fixme$|^x{3,}$", re.I
)


def is_placeholder(value: Any) -> bool:
    """Say whether a value is there to be replaced (an empty one is a choice: the cluster's default)."""
    if isinstance(value, Mapping):
        return any(is_placeholder(v) for v in value.values())
    return isinstance(value, str) and looks_unfilled(value) and value.strip() not in _names_of_site()


def looks_unfilled(text: str) -> bool:
    """Say whether a text reads like a placeholder."""
    return bool(_PLACEHOLDER.search(text.strip()))


def _names_of_site() -> frozenset[str]:
    """Return what the cluster calls its partitions, features, accounts and qualities of service.

    Asked only when a value looks like a placeholder; nothing where there is no Slurm.
    """
    cluster = read_cluster(20)
    known = (read_associations() if cluster.has_accounting else None) or []
    features = {name for node in cluster.nodes.values() for name in node.features}
    mine = {entry.account for entry in known} | {name for entry in known for name in entry.qos}
    return frozenset({*cluster.partitions, *features, *mine})
