"""Train or validation: decided once for every structure, and for ever.

Structures that belong together (of one trajectory, or the same structure twice) are never parted
between training and validation, since a model that saw a neighbour 10 fs away has seen the structure. Each
walker is a trajectory of its own; it starts from a labelled structure of either side, so that its first
candidates are near that one: validation errors are a little too small in the first femtoseconds.
"""

from __future__ import annotations

import numpy as np

from dubito.core.errors import DataError
from dubito.core.logs import get_logger
from dubito.core.random import generator
from dubito.data.structures import Array, Structures

log = get_logger(__name__)

TRAIN = "train"
VALID = "valid"
CONTROL = "control"


def drop_duplicates(structures: Structures) -> tuple[Structures, int]:
    """Keep the first of structures with the same content id; return them and how many were dropped."""
    first: dict[str, int] = {}
    for i, name in enumerate(structures.ids):
        first.setdefault(name, i)
    kept = structures[np.fromiter(first.values(), int, len(first))] if len(first) < len(structures) else structures
    return kept, len(structures) - len(first)


def group_labels(trajectories: list[str], ids: list[str]) -> Array:
    """Return the group of each structure, (n,): linked by a common trajectory or content id.

    Groups are numbered in the order of their smallest content id, so that the numbers don't depend on
    the order of the structures.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(ids)
    names: dict[str, int] = {}
    rows, columns = [], []
    for i, (trajectory, name) in enumerate(zip(trajectories, ids, strict=True)):
        for key in (f"id {name}", f"trajectory {trajectory}" if trajectory else None):
            if key is not None:
                rows.append(i)
                columns.append(n + names.setdefault(key, len(names)))
    size = n + len(names)
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(size, size))
    labels = connected_components(graph, directed=False)[1][:n]
    smallest: dict[int, str] = {}
    for label, name in zip(labels.tolist(), ids, strict=True):
        smallest[label] = min(name, smallest.get(label, name))
    rank = {label: i for i, label in enumerate(sorted(smallest, key=lambda k: smallest[k]))}
    return np.array([rank[label] for label in labels.tolist()], dtype=int)


def assign_splits(structures: Structures, *, fraction: float, seed: int, iteration: int) -> Structures:
    """Give every structure without a split one; those that have one keep it.

    Parameters
    ----------
    structures : ``origin/split`` is train, valid, control or empty; control ones neither change nor
        bind their trajectory
    fraction : share of train and valid together that is to be validation; what an earlier batch took
        too much or too little of whole trajectories is made good by this one
    seed, iteration : decide, together with the content ids, which groups become validation

    Notes
    -----
    A new structure of a trajectory that is already split joins it. With two structures or more there
    is at least one of each kind. If everything is one trajectory, its last part in the order given
    becomes validation (neighbours across the cut are then correlated, and a warning says so).

    Raises
    ------
    DataError
        When a split is none of the known ones.
    """
    split = np.array(structures.text("origin/split"), dtype=object)
    unknown = sorted(set(split) - {"", TRAIN, VALID, CONTROL})
    if unknown:
        raise DataError(
            f"origin/split holds {unknown[0]!r}; expected {TRAIN}, {VALID}, {CONTROL} or nothing. "
            "Remove the column, or write one of these words."
        )
    bound = np.flatnonzero(split != CONTROL)
    trajectories, ids = structures.text("origin/trajectory"), structures.ids
    groups = group_labels([trajectories[i] for i in bound], [ids[i] for i in bound])
    names = [ids[i] for i in bound], [trajectories[i] for i in bound]
    is_new = split == ""
    split[bound] = _assign(split[bound], groups, *names, fraction, seed, iteration)
    _teach_elements(structures, split, is_new)
    return structures.with_columns(origin__split=list(split) if len(split) else np.zeros(0, "S8"))


def _teach_elements(structures: Structures, split: Array, is_new: Array) -> None:
    """Move new validation structures to training when they hold an element that no training structure has.

    A network can't be validated on an element it never saw.
    """
    elements = [set(one.atomic_numbers.tolist()) for one in structures]
    taught: set[int] = set().union(*(e for e, side in zip(elements, split, strict=True) if side == TRAIN))
    trajectories = structures.text("origin/trajectory")
    for i in np.flatnonzero(is_new & (split == VALID)):
        if elements[i] <= taught:
            continue
        same = [trajectories[i] != "" and other == trajectories[i] for other in trajectories]
        moved = (np.array(same, bool) | (np.arange(len(split)) == i)) & is_new & (split == VALID)
        split[moved] = TRAIN
        taught |= elements[i]


def _assign(
    split: Array, groups: Array, ids: list[str], trajectories: list[str], fraction: float, seed: int, iteration: int
) -> Array:
    """Return the splits of structures, given those already assigned and the groups."""
    split = split.copy()
    for group in np.unique(groups[split == ""]):
        members = groups == group
        known = set(split[members]) - {""}
        if len(known) == 1:
            split[members] = known.pop()
        elif known:
            _follow(split, np.flatnonzero(members), ids, trajectories)
    free = np.unique(groups[split == ""])
    if not len(free):
        return split
    if len(free) == 1 and not {TRAIN, VALID} & set(split) and (groups == free[0]).sum() >= 2:
        return _cut(split, groups == free[0], ids, fraction)
    sizes = {int(g): int((groups == g).sum()) for g in free}
    want = round(fraction * len(split)) - int((split == VALID).sum())
    chosen = _choose(sizes, want, generator(seed, "split", iteration))
    if not chosen and VALID not in split and (len(sizes) > 1 or TRAIN in split):
        chosen = {min(sizes, key=lambda g: (sizes[g], g))}
    if len(chosen) == len(sizes) and TRAIN not in split:
        chosen -= {max(sizes, key=lambda g: (sizes[g], -g))}
    for group in sizes:
        split[groups == group] = VALID if group in chosen else TRAIN
    return split


def _follow(split: Array, members: Array, ids: list[str], trajectories: list[str]) -> None:
    """Assign the rest of a group that lies on both sides: like the same structure, else like the trajectory.

    A trajectory that is itself on both sides can only be trained on, since its validation part is fixed.
    """
    of_id = {ids[i]: split[i] for i in members if split[i]}
    for i in members:
        split[i] = split[i] or of_id.get(ids[i], "")
    of_trajectory: dict[str, set[str]] = {}
    for i in members:
        if split[i] and trajectories[i]:
            of_trajectory.setdefault(trajectories[i], set()).add(split[i])
    left = [i for i in members if not split[i]]
    sides: dict[str, set[str]] = {}
    for i in left:
        sides.setdefault(ids[i], set()).update(of_trajectory.get(trajectories[i], set()))
    for i in left:
        split[i] = VALID if sides[ids[i]] == {VALID} else TRAIN


def _choose(sizes: dict[int, int], want: int, rng: np.random.Generator) -> set[int]:
    """Return random groups whose sizes add up to about ``want``."""
    chosen: set[int] = set()
    count = 0
    for group in rng.permutation(sorted(sizes)).tolist():
        if abs(count + sizes[group] - want) < abs(count - want):
            chosen.add(group)
            count += sizes[group]
    return chosen


def _cut(split: Array, members: Array, ids: list[str], fraction: float) -> Array:
    """Make the last part of the only trajectory validation."""
    names = list(dict.fromkeys(ids[i] for i in np.flatnonzero(members)))
    n_valid = min(max(1, round(fraction * len(names))), len(names) - 1)
    last = set(names[len(names) - n_valid :])
    if n_valid:
        log.warning(
            "all %d structures are of one trajectory: its last %d become validation; neighbours across the "
            "cut are correlated, so validation errors are a little too small",
            len(names),
            n_valid,
        )
    split[members] = [VALID if ids[i] in last else TRAIN for i in np.flatnonzero(members)]
    return split
