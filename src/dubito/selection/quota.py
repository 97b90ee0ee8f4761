"""How many labels the control slice and the selection get."""

from __future__ import annotations

from dubito.config.selection import SelectionConfig


def quota(config: SelectionConfig, n_open: int, remaining: int | None) -> tuple[int, int]:
    """Return how many structures the control slice and the selection may have.

    The control slice takes at most half of the pool; near-copies in it are counted, though not labelled. A budget that
    does not suffice for both is shared in proportion, and each gets a label at least while there are two.

    Parameters
    ----------
    n_open : candidates that passed the gates and are no duplicates
    remaining : labels the budget still allows; None: no limit
    """
    n_select, n_control = config.n_select, min(config.n_control, n_open // 2)
    if remaining is not None and n_select + n_control > remaining:
        remaining = max(0, remaining)
        share = round(remaining * n_control / (n_select + n_control))
        most = max(1, remaining - 1)
        n_control = min(remaining, most, max(1, share)) if n_control else 0
        n_select = remaining - n_control
    return n_control, n_select
