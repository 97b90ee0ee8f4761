"""What the certificate of the iteration before accepts: up to which score a candidate needs no label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dubito.core.files import read_json
from dubito.data.structures import Array

FULL, ADAPTIVE = "full", "adaptive"


@dataclass(frozen=True)
class TrustedBefore:
    """What an earlier certificate accepts of a pool.

    Attributes
    ----------
    limits : accepted score of each candidate, (n,), NaN where nothing of its stratum is accepted; None: it says nothing
    ignored : why a certificate that is there says nothing; None: it does, or there is none
    """

    limits: Array | None
    ignored: str | None


def scoring_mode(adaptive: Mapping[str, Any] | None) -> str:
    """Return on which scale a pool was scored: ``full`` where every candidate has the full score, else ``adaptive``.

    Parameters
    ----------
    adaptive : what the manifest says under that key. Adaptive scoring gives up by itself where nothing could be saved:
        that pool has full scores.
    """
    if not adaptive or adaptive.get("n_escalated") == adaptive.get("n", -1):
        return FULL
    return ADAPTIVE


def accepted_up_to(metrics: Path, strata: list[str], method: str, mode: str = FULL) -> TrustedBefore:
    """Return the accepted score of each candidate.

    A stratum that the certificate has not seen is not accepted, as in its audit.

    Parameters
    ----------
    metrics : ``metrics.json`` of the iteration before
    strata : (n,) what found each candidate
    method : the one that scored them
    mode : on which scale, see :func:`scoring_mode`
    """
    said = read_json(metrics).get("certificate")
    if not said:
        return TrustedBefore(None, None)
    before = said.get("scoring_mode", FULL)
    if said["method"] != method:
        return _ignored(f"it is about scores of '{said['method']}', these are of '{method}'")
    if before != mode:
        return _ignored(f"it is about {_WORDS[before]}, these are {_WORDS[mode]}, which lie on another scale")
    if (said.get("drift") or {}).get("drifted"):
        return _ignored("errors or scores had drifted since the one before it")
    limit_of = {
        member: float(stratum["threshold"])
        for stratum in said["strata"]
        for member in stratum["members"]
        if stratum["threshold"] is not None
    }
    return TrustedBefore(np.array([limit_of.get(name, np.nan) for name in strata], dtype="f8"), None)


_WORDS = {FULL: "full scores", ADAPTIVE: "scores of adaptive scoring"}


def _ignored(why: str) -> TrustedBefore:
    return TrustedBefore(None, f"The certificate of the iteration before is not used: {why}.")
