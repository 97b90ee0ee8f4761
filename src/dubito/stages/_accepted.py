"""What the certificate of the iteration before accepts: up to which score a candidate needs no label."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dubito.core.files import read_json
from dubito.data.structures import Array


def accepted_up_to(metrics: Path, strata: list[str], method: str) -> Array | None:
    """Return the accepted score of each candidate, (n,), NaN where nothing of its stratum is accepted.

    None where there is no certificate, it is of another method (whose scores are on another scale), or it has drifted.

    Parameters
    ----------
    metrics : ``metrics.json`` of the iteration before
    strata : (n,) what found each candidate
    method : the one that scored them
    """
    said = read_json(metrics).get("certificate")
    if not said or said.get("method") != method or (said.get("drift") or {}).get("drifted"):
        return None
    pooled = said.get("threshold")
    if pooled is not None:
        return np.full(len(strata), float(pooled))
    by_name = {entry["name"]: entry["threshold"] for entry in said.get("strata", [])}
    found = [by_name.get(name) for name in strata]
    return np.array([np.nan if value is None else float(value) for value in found])
