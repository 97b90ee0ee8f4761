"""How many of the accepted structures are bad: an interval that stays valid although the threshold was chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dubito.certificate.band import simultaneous_band
from dubito.certificate.threshold import Accepted, Group


@dataclass(frozen=True)
class MissRate:
    """Share of bad structures among the accepted ones of the rest of the pool, with its interval.

    Attributes
    ----------
    value : None where nothing is accepted; low and high are then 0 and 1
    n_accepted : control structures at or below the threshold
    """

    value: float | None
    low: float
    high: float
    n_accepted: int


def miss_rate(groups: Sequence[Group], accepted: Sequence[Accepted], risk: float, level: float = 0.95) -> MissRate:
    """Return the miss rate among what :func:`select_thresholds` accepts at ``risk``.

    The band of each group bounds its bad structures at or below every threshold; those of the control slice, which are
    known, are taken off, and the rest is divided by what is accepted of the rest. With several groups each band has its
    share of the missing probability. At ``k`` of ``n`` bad the value is ``k / n`` over the accepted share of the
    pool.
    """
    taking = [(group, one) for group, one in zip(groups, accepted, strict=True) if one.threshold is not None]
    n_accepted = sum(one.n_control for _, one in taking)
    if not taking:
        return MissRate(None, 0.0, 1.0, 0)
    low, value, high = 0.0, 0.0, 0.0
    for group, one in taking:
        band = simultaneous_band(group.n_control, largest_count(group.n_control, risk), 1 - (1 - level) / len(groups))
        low += max(0.0, group.n_pool * float(band.low[one.n_bad]) - one.n_bad)
        value += one.n_bad / group.n_control * group.n_rest
        high += min(float(one.n_rest_most), group.n_pool * float(band.high[one.n_bad]) - one.n_bad)
    least, most = sum(one.n_rest for _, one in taking), sum(one.n_rest_most for _, one in taking)
    middle = min(1.0, value / least)
    return MissRate(middle, min(middle, low / most), max(middle, min(1.0, high / least)), n_accepted)


def largest_count(n: int, risk: float) -> int:
    """Return the most bad control structures, of ``n``, that can lie at or below a threshold that keeps ``risk``."""
    return max(0, math.floor(risk * (n + 1) + 1e-9) - 1)
