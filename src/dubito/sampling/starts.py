"""Where samplers start from: labelled structures inside the sane region, of training and validation alike."""

from __future__ import annotations

from collections import Counter

import numpy as np

from dubito.core.errors import DataError
from dubito.core.random import generator
from dubito.data.formula import formula_keys
from dubito.data.sanity import SanityCheck
from dubito.data.structures import Structures


def sane_labelled(labelled: Structures, check: SanityCheck) -> Structures:
    """Return the labelled structures that are sane by their labels.

    Raises
    ------
    DataError
        When there is none.
    """
    known = labelled[labelled.is_labelled]
    verdict = check.check(known, energy=known.energy, forces=known.forces)
    sane = np.flatnonzero(verdict.sane)
    if not len(sane):
        raise DataError(
            f"None of the {len(known)} labelled structures is inside the sane region "
            f"({dict(Counter(verdict.reasons))}), so there is nowhere to start exploring from. "
            "Widen sampling.sanity (for several molecules raise max_fragments)."
        )
    return known[sane]


def draw(structures: Structures, n: int, rng: np.random.Generator) -> Structures:
    """Return ``n`` structures at random, all different where there are enough."""
    rows = np.arange(len(structures))
    rounds = [rng.permutation(rows) for _ in range(-(-n // len(rows)))]
    return structures[np.concatenate(rounds)[:n]]


def sane_starts(labelled: Structures, check: SanityCheck, n: int, seed: int, *scope: str | int) -> Structures:
    """Return ``n`` of the sane labelled structures, drawn for one job; ``scope`` says which.

    Raises
    ------
    DataError
        When no labelled structure is sane.
    """
    return draw(sane_labelled(labelled, check), n, generator(seed, *scope, "starts"))


def lowest_first(structures: Structures, rng: np.random.Generator) -> Structures:
    """Return labelled structures in turn by composition: first the lowest in energy of each, then others at random."""
    keys = np.array(formula_keys(structures), dtype=object)
    queues = []
    for key in sorted(set(keys)):
        rows = np.flatnonzero(keys == key)
        lowest = rows[np.argmin(structures.energy[rows])]
        queues.append([lowest, *rng.permutation(rows[rows != lowest])])
    longest = max(len(queue) for queue in queues)
    order = [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
    return structures[np.array(order)]
