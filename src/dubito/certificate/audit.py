"""How the thresholds of the iteration before fare on a slice that played no part in choosing them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dubito.certificate.certify import CONFIDENCE, Slice
from dubito.metrics.binomial import clopper_pearson


def audit(before: Mapping[str, Any], iteration: int, control: Slice, tolerance: float) -> dict[str, Any] | None:
    """Judge the thresholds of an earlier certificate on a fresh slice; None when it accepted nothing.

    The slice is independent of the thresholds, so the interval of Clopper and Pearson
    (https://doi.org/10.1093/biomet/26.4.404) holds as it is. A stratum that was not there before is not accepted.

    Parameters
    ----------
    before : the certificate of iteration ``iteration``
    """
    thresholds = {
        member: stratum["threshold"]
        for stratum in before["strata"]
        for member in stratum["members"]
        if stratum["threshold"] is not None
    }
    if not thresholds:
        return None
    limit = np.array([thresholds.get(name, -np.inf) for name in control.strata], dtype="f8")
    accepted = control.scores <= limit
    n_accepted, missed = int(accepted.sum()), int((accepted & control.is_bad(tolerance)).sum())
    low, high = clopper_pearson(missed, n_accepted, CONFIDENCE)
    return {
        "threshold_of_iteration": iteration,
        "n_accepted": n_accepted,
        "missed": missed,
        "value": missed / n_accepted if n_accepted else None,
        "low": low,
        "high": high,
    }
