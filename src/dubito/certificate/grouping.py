"""Which strata get a threshold of their own. It may depend on counts only, never on errors."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dubito.config.control_size import control_labels_needed


def labels_for_own_threshold(risk: float) -> int:
    """Return the control labels from which on a stratum is judged on its own.

    ``ceil(1 / risk) - 1`` accept the whole stratum when none of them is bad, but then a single bad one refuses nearly
    all of it. Twice that leaves room for one.
    """
    control_labels_needed(risk)  # refuses a risk that no number of labels can show
    return max(1, math.ceil(2.0 / risk - 1.0 - 1e-9))


def group_strata(n_control: Mapping[str, int], risk: float) -> list[list[str]]:
    """Return groups of strata: each has enough control labels of its own, unless there is only one group.

    Strata with too few are pooled; when even those together have too few, the smallest own group joins them.
    Given the counts, the control slice of each group is a random draw from that group (Mondrian conformal prediction,
    Vovk et al., https://doi.org/10.1007/978-3-031-06649-8, section 4.6), so that each group's bound holds in it.

    Parameters
    ----------
    n_control : control labels by stratum, failed ones included; strata of the pool without any are there with 0
    """
    needed = labels_for_own_threshold(risk)
    by_count = sorted(n_control, key=lambda name: (-n_control[name], name))
    own = [name for name in by_count if n_control[name] >= needed]
    rest = [name for name in by_count if n_control[name] < needed]
    while rest and own and sum(n_control[name] for name in rest) < needed:
        rest.append(own.pop())
    return [[name] for name in sorted(own)] + ([sorted(rest)] if rest else [])
