"""The acceptance window: which scores are worth a label.

The very top of a pool is mostly unphysical, and what the certificate trusts needs no label. Both ends are cut before
any selector looks, and never from the control slice, which stands for the whole pool.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dubito.config.selection import SelectionConfig
from dubito.data.structures import Array
from dubito.selection.reasons import ABOVE_MAX_SCORE, ACCEPTED, BELOW_MIN_SCORE, SKIPPED_TOP


def outside(
    scores: Array, ids: list[str], config: SelectionConfig, accepted_up_to: Array | None = None
) -> Iterator[tuple[Array, str]]:
    """Yield which candidates fall out of the window, (n,) bool, and the reason; the first reason counts.

    Parameters
    ----------
    scores : (n,) of the open candidates
    ids : (n,) ties of scores are broken by them
    accepted_up_to : (n,) scores up to which the certificate of the iteration before accepts; NaN: nothing is accepted
    """
    ranked = sorted(range(len(scores)), key=lambda i: (-scores[i], ids[i]))
    # 0.29 * 100 is 28.999…; rounding down must not turn it into 28.
    top = np.zeros(len(scores), bool)
    top[ranked[: int(config.skip_top_fraction * len(ranked) + 1e-9)]] = True
    yield top, SKIPPED_TOP
    if config.max_score is not None:
        yield scores > config.max_score, ABOVE_MAX_SCORE
    yield scores < config.min_score, BELOW_MIN_SCORE
    if accepted_up_to is not None and config.heeds_certificate:
        # A comparison with NaN is false.
        yield scores <= accepted_up_to, ACCEPTED
