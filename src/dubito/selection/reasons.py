"""Why a candidate was not selected: every code of ``rejected.csv``, what it means, and the number beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dubito.data.sanity import BOND_GRAPH, ENERGY, FORCE, FRAGMENTS, MIN_DISTANCE, NOT_FINITE, SPIN_PARITY

DUPLICATE_POOL = "duplicate_in_pool"
DUPLICATE_LABELLED = "duplicate_labelled"
DUPLICATE_BATCH = "duplicate_in_batch"
SKIPPED_TOP = "skipped_top"
ABOVE_MAX_SCORE = "above_max_score"
BELOW_MIN_SCORE = "below_min_score"
ACCEPTED = "accepted"
OVER_BUDGET = "over_budget"


@dataclass(frozen=True)
class Reason:
    """What a code means.

    Attributes
    ----------
    meaning : why the candidate was left out
    value : the number beside it in ``rejected.csv``
    key : the setting that decides
    """

    meaning: str
    value: str
    key: str


REASONS: Final[dict[str, Reason]] = {
    NOT_FINITE: Reason("a prediction, a score or a feature is not a finite number", "–", "–"),
    MIN_DISTANCE: Reason(
        "atoms too close",
        "shortest distance over the sum of covalent radii",
        "sampling.sanity.min_distance_factor",
    ),
    FRAGMENTS: Reason("it falls into pieces", "number of pieces", "sampling.sanity.max_fragments"),
    SPIN_PARITY: Reason(
        "no state of that charge and multiplicity exists", "number of electrons", "sampling.sanity.spin_parity"
    ),
    BOND_GRAPH: Reason(
        "its bonds are those of no labelled structure of the same formula",
        "number of bonds",
        "sampling.sanity.bond_graph",
    ),
    ENERGY: Reason(
        "predicted energy too high",
        "eV per atom above the lowest label",
        "sampling.sanity.max_energy_above_min_ev_per_atom",
    ),
    FORCE: Reason("a predicted force is too large", "eV/Å", "sampling.sanity.max_force_ev_per_angstrom"),
    DUPLICATE_POOL: Reason("the very same candidate is there already", "0", "–"),
    DUPLICATE_LABELLED: Reason(
        "as good as labelled already", "rms difference, Å", "selection.duplicate_distance_angstrom"
    ),
    DUPLICATE_BATCH: Reason(
        "as good as selected already", "rms difference, Å", "selection.duplicate_distance_angstrom"
    ),
    SKIPPED_TOP: Reason("among the most doubtful, which are mostly unphysical", "score", "selection.skip_top_fraction"),
    ABOVE_MAX_SCORE: Reason("too doubtful to be physical", "score", "selection.max_score"),
    BELOW_MIN_SCORE: Reason("not doubtful enough", "score", "selection.min_score"),
    ACCEPTED: Reason(
        "the certificate of the iteration before trusts it", "score", "selection.skip_accepted, or threshold_window"
    ),
    OVER_BUDGET: Reason("the budget does not reach that far", "–", "campaign.max_labels"),
}
"""All codes, in the order in which they are looked for. A candidate gets the first that applies."""
