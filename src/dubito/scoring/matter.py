"""Which candidates matter: those whose full score can change which are selected."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dubito.config.scoring import ScoringConfig
from dubito.config.selection import LOOK_AT_NO_SCORES, SelectionConfig
from dubito.scoring.cascade import Rule

# Candidates beyond n_select that a selector of the most doubtful looks at, as some fail the gates or are duplicates.
SPARE = 1.5
# What clustered_top and farthest_point choose from.
HALF = 0.5
_TOP = "top_uncertainty"
_HALF_OF_THE_POOL = ("clustered_top", "farthest_point")


def rule_of(
    scoring: ScoringConfig, selection: SelectionConfig, n: int, accepted_up_to: Sequence[float] | None = None
) -> Rule:
    """Return which candidates of a pool of ``n`` matter.

    Two things can: the rank of a score, to selectors that look at it, and the side on which it lies of an end of the
    acceptance window. Up to ``min_score``, or what the certificate of the iteration before accepts, nothing is selected
    whatever the score, so a threshold no higher than that loses nothing; above ``max_score`` nothing is selected
    either, but that candidates lie there must be known.

    Parameters
    ----------
    accepted_up_to : scores up to which the certificate of the iteration before accepts, one for each sampler of the
        pool, NaN where it accepts none; None: there is none, or it is not heeded
    """
    share = share_that_matters(scoring, selection, n)
    if scoring.decision == "tolerance":
        return Rule(scoring.recall, share, level=selection.force_tolerance_ev_per_angstrom)
    if scoring.top_fraction is not None:
        return Rule(scoring.recall, share)
    limits = set(accepted_up_to or ())
    known = {limit for limit in limits if not math.isnan(limit)}
    if selection.selector in LOOK_AT_NO_SCORES:
        ends = [end for end in (selection.min_score, selection.max_score) if end]
        return Rule(scoring.recall, share, highest=min([*known, *ends], default=None))
    if known and known != limits:
        # What is left of a sampler of which nothing is accepted may rank below what is accepted of another.
        return Rule(scoring.recall, 1.0)
    # Half of the pool is half of what the window leaves: its lower end decides how many that are.
    ends = [selection.min_score] if selection.min_score and selection.selector != _TOP else []
    ends += known if len(known) > 1 or selection.selector != _TOP else []
    return Rule(scoring.recall, share, highest=min(ends, default=None), skipped_above=selection.max_score)


def share_that_matters(scoring: ScoringConfig, selection: SelectionConfig, n: int) -> float:
    """Return the share of a pool of ``n`` candidates whose rank can change which are selected.

    ``scoring.top_fraction`` where it is set. Else what is skipped at the top, and then 1.5 ``n_select`` for
    ``top_uncertainty``, half of the pool for ``clustered_top`` and ``farthest_point``, nothing for selectors that look
    at no scores, and everything for those of other packages, of which nothing is known.
    """
    if scoring.top_fraction is not None:
        return scoring.top_fraction
    own = {_TOP: SPARE * selection.n_select / max(1, n)}
    own |= dict.fromkeys(LOOK_AT_NO_SCORES, 1 / max(1, n)) | dict.fromkeys(_HALF_OF_THE_POOL, HALF)
    return min(1.0, selection.skip_top_fraction + own.get(selection.selector, 1.0))
