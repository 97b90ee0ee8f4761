"""Which candidates matter: those that the selector takes from."""

from __future__ import annotations

from dubito.config.scoring import ScoringConfig
from dubito.config.selection import SelectionConfig

# Candidates beyond n_select that a selector of the most doubtful looks at, as some fail the gates or are duplicates.
SPARE = 1.5
# What the other selectors that come with dubito choose from.
HALF = 0.5


def share_that_matters(scoring: ScoringConfig, selection: SelectionConfig, n: int) -> float:
    """Return the share of a pool of ``n`` candidates whose full score can change which are selected.

    ``scoring.top_fraction`` where it is set. Else what is skipped at the top, and then 1.5 ``n_select`` for
    ``top_uncertainty``, nothing for ``random``, half of the pool for all others.
    """
    if scoring.top_fraction is not None:
        return scoring.top_fraction
    own = {"top_uncertainty": SPARE * selection.n_select / max(1, n), "random": 1 / max(1, n)}
    return min(1.0, selection.skip_top_fraction + own.get(selection.selector, HALF))
