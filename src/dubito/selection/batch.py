"""From a pool to a batch: gates, duplicate guard, control slice, acceptance window, selection, budget.

The control slice is drawn at random from the gated pool *before* anything is selected, so that it
stands for the pool: errors measured on it are those of the structures the campaign visits. A near-copy of one drawn
before is not labelled, but counts as drawn: it inherits the label.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from dubito.config.sanity import SanityConfig
from dubito.config.selection import SelectionConfig
from dubito.core.random import generator
from dubito.data.fingerprints import fingerprints
from dubito.data.sanity import NOT_FINITE, SanityCheck
from dubito.data.structures import Array, Structures
from dubito.selection.base import Pool, Selector
from dubito.selection.centers import nearest_centers
from dubito.selection.quota import quota
from dubito.selection.reasons import OVER_BUDGET
from dubito.selection.registry import make_selector
from dubito.selection.search import Copy, Rejection, Search
from dubito.selection.strata import shares
from dubito.selection.window import outside

INITIAL = "initial"
CONTROL = "control"


@dataclass(frozen=True)
class Batch:
    """What is to be labelled: indices of candidates with the reason for each, and the rejected.

    Attributes
    ----------
    pool : indices of the candidates that the control slice was drawn from, those drawn included
    copies : drawn for the control slice, but near-copies of a control structure that is labelled
    """

    chosen: list[int]
    reasons: list[str]
    rejected: list[Rejection]
    pool: Array
    copies: list[Copy] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Return how many candidates were rejected for each reason."""
        return dict(sorted(Counter(r.reason for r in self.rejected).items()))


@dataclass(frozen=True)
class Features:
    """What diversity is measured with instead of fingerprints.

    Attributes
    ----------
    pool : (n, d); labelled : (m, d)
    """

    pool: Array
    labelled: Array


def choose_batch(
    candidates: Structures,
    *,
    labelled: Structures,
    config: SelectionConfig,
    sanity: SanityConfig,
    seed: int,
    iteration: int,
    scores: Array | None = None,
    energy: Array | None = None,
    forces: Array | None = None,
    features: Array | None = None,
    labelled_features: Array | None = None,
    accepted_up_to: Array | None = None,
    counts_electrons: bool = True,
    remaining: int | None = None,
) -> Batch:
    """Choose what to label.

    Parameters
    ----------
    candidates : the pool, ``n`` structures
    labelled : all structures labelled so far, ``m``
    scores : (n,) higher is more doubtful; None (iteration 0): everything that passes the gates and is
        no duplicate is taken, with the reason "initial"
    energy, forces : (n,) eV and (N, 3) eV/Å, predicted; None: not gated
    features : (n, d) to measure diversity with; None: fingerprints
    labelled_features : (m', d) the same of labelled structures; None: diversity is measured against the control
        slice and the batch alone
    accepted_up_to : (n,) scores up to which the certificate of the iteration before accepts, NaN where it accepts none;
        heeded where the configuration says so
    counts_electrons : whether the labeller needs a charge and multiplicity that exist
    remaining : labels the budget still allows; None: no limit

    Notes
    -----
    The same arguments give the same batch, whatever the order of the candidates (but features: those of the network
    may differ in the last digits).
    """
    search = Search(candidates, labelled, config.duplicate_distance_angstrom)
    given = None if features is None else Features(features, _known(features, labelled_features))
    check = SanityCheck(sanity, labelled, counts_electrons=counts_electrons)
    search.gate(check.check(candidates, energy=energy, forces=forces))
    for numbers in (scores, None if features is None else np.sum(features, axis=1)):
        if numbers is not None:
            search.reject(np.flatnonzero(search.open & ~np.isfinite(numbers)), NOT_FINITE)
    search.drop_copies()
    search.drop_known()
    pool = search.open_by_id()
    rng = generator(seed, "selection", iteration)
    if scores is None:
        search.take(rng.permutation(pool).tolist(), INITIAL, remaining)
        search.reject(search.open_by_id(), OVER_BUDGET)
        # In the order they came: neighbours of a file are often neighbours in space.
        search.chosen.sort()
        return Batch(search.chosen, search.reasons, search.rejected, pool)
    n_control, n_select = quota(config, len(pool), remaining)
    # The first of a random order: a simple random draw, whatever is like what.
    drawn = generator(seed, "control", iteration).permutation(pool)[:n_control]
    copies = search.draw(drawn.tolist(), CONTROL)
    rows = np.flatnonzero(search.open)
    limits = None if accepted_up_to is None else accepted_up_to[rows]
    for out, reason in outside(scores[rows], [search.ids[i] for i in rows], config, limits):
        search.reject(rows[out & search.open[rows]], reason, scores)
    selector = make_selector(config.selector)
    strata = candidates.text("origin/sampler") if config.stratify_by_sampler else [""] * len(candidates)
    _select(search, selector, scores, given, strata, n_select, rng)
    return Batch(search.chosen, search.reasons, search.rejected, pool, copies)


def _known(features: Array, labelled_features: Array | None) -> Array:
    return np.zeros((0, features.shape[1])) if labelled_features is None else labelled_features


def _select(
    search: Search,
    selector: Selector,
    scores: Array,
    features: Features | None,
    strata: list[str],
    n_select: int,
    rng: np.random.Generator,
) -> None:
    """Let the selector choose in each stratum; places that one can't fill (duplicates) are shared out again."""
    names = np.array(strata, dtype=object)
    left = n_select
    while left:
        rows = search.open_by_id()
        wanted = shares(Counter(names[rows].tolist()), left)
        before = len(search.chosen)
        for name, n in wanted.items():
            inside = rows[names[rows] == name]
            pool = _pool(search, inside, scores, features, n)
            search.take((int(inside[i]) for i in selector.order(pool, rng)), selector.reason, n)
        taken = len(search.chosen) - before
        left -= taken
        if not taken:
            return


def _pool(search: Search, rows: Array, scores: Array, features: Features | None, n_select: int) -> Pool:
    """Return some candidates as a selector wants them, with all that is known so far."""
    pool = Pool(
        ids=[search.ids[i] for i in rows],
        scores=scores[rows],
        # With features nobody looks at them, and those of a pool may be large.
        fingerprints=search.prints.take(rows if features is None else rows[:0]),
        nearest=search.nearest[rows],
        n_select=n_select,
    )
    if features is None:
        known = Structures.concatenate(
            [replace(part, columns={}) for part in (search.labelled, search.candidates[search.chosen])]
        )
        return replace(pool, known_fingerprints=fingerprints(known))
    around = np.concatenate([features.labelled, features.pool[search.chosen]])
    mine = features.pool[rows]
    nearest = np.sqrt(nearest_centers(mine, around)[0])
    return replace(pool, nearest=nearest, features=mine, known_features=around)
