"""How many random control labels a risk takes, known before a single one is paid for."""

from __future__ import annotations

import math

from dubito.core.errors import ConfigError

_ROUNDING = 1e-9
"""1 / 0.05 - 1 is 19 up to rounding; without this slack it could ask for 20."""


def control_labels_needed(risk: float, accepted_fraction: float = 1.0) -> int:
    """Smallest control slice that can certify ``risk`` while accepting ``accepted_fraction`` of the pool.

    With no bad label among the accepted ones the conformal bound is ``1 / ((n + 1) accepted_fraction)``; the answer is
    the smallest n that brings it down to ``risk``. It is the best case: every bad label that is accepted takes about
    as many labels again. (Jin & Candes, JMLR 24(244), 2023, arXiv:2210.01408, eq. 7 with no bad calibration label.)

    Parameters
    ----------
    risk:
        Asked share of accepted structures whose error may exceed the tolerance, strictly between 0 and 1.
    accepted_fraction:
        Share of the pool that is to be accepted, in (0, 1].

    Raises
    ------
    ConfigError
        If ``risk`` is not strictly between 0 and 1 or ``accepted_fraction`` not in (0, 1]: no number of labels is
        enough for a risk of 0.
    """
    if not 0.0 < risk < 1.0:
        message = (
            f"A risk of {risk:g} cannot be certified, it must lie between 0 and 1: no number of control labels shows "
            "that an error never happens. Type for example `risk: 0.05` under `selection`."
        )
        raise ConfigError(message)
    if not 0.0 < accepted_fraction <= 1.0:
        message = (
            f"Found an accepted fraction of {accepted_fraction:g}, expected a number above 0 and at most 1. Type for "
            "example `min_accepted_fraction: 0.5` under `selection`."
        )
        raise ConfigError(message)
    return max(1, math.ceil(1.0 / (risk * accepted_fraction) - 1.0 - _ROUNDING))
