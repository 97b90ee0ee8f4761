"""How many jobs share the labels of a batch.

A job costs ``fixed_s`` seconds before its first label (start, imports, on a cluster also the scheduler), and
``seconds`` for each structure. With ``s`` structures in a job the share of the fixed cost is
``fixed_s / (fixed_s + s * seconds)``; it is at most ``f`` when ``s >= fixed_s * (1 - f) / (f * seconds)``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from dubito.data.structures import REFERENCE, Structures

# Taken while nothing is measured: the first batch of a campaign.
UNMEASURED = 8
# Fixed costs take at most this share of a job ...
FIXED_SHARE = 0.05
# ... but for the sake of places that would stand idle.
IDLE_SHARE = 0.2
# More jobs than this for each place serve nothing: they even out the load already.
ROUNDS = 4
# No job is planned to be longer. Labels are kept one by one, but a cluster's queue prefers short jobs.
LONGEST_S = 4 * 3600.0


@dataclass(frozen=True)
class Sharding:
    """How a batch is cut into jobs, and from what that follows; the manifest keeps it.

    Attributes
    ----------
    structures_per_shard : at most so many in a job
    chosen_by : "configuration"; "measured" labels; or "default", while there are none
    seconds_per_structure, fixed_s : s; None where they played no part
    places : jobs that can run side by side
    """

    structures_per_shard: int
    chosen_by: Literal["configuration", "measured", "default"]
    seconds_per_structure: float | None = None
    fixed_s: float | None = None
    places: int | None = None

    def record(self) -> dict[str, Any]:
        """Return what the manifest keeps."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def n_shards(self, n: int) -> int:
        """Return the number of jobs for ``n`` structures."""
        return -(-n // self.structures_per_shard)


def plan_shards(
    n: int, wanted: int | Literal["auto"], *, labelled: Structures, places: int, fixed_s: float
) -> Sharding:
    """Cut a batch of ``n`` structures into jobs.

    Parameters
    ----------
    wanted : structures per job, or ``auto``: from the wall times of the labels so far
    labelled : the dataset so far; equal datasets give equal plans
    places : jobs that can run side by side
    fixed_s : seconds that a job costs before its first label
    """
    if wanted != "auto":
        return Sharding(wanted, "configuration")
    seconds = seconds_per_label(labelled)
    if seconds is None:
        return Sharding(UNMEASURED, "default")
    shards = n_jobs(n, seconds, places=places, fixed_s=fixed_s)
    return Sharding(max(1, -(-n // shards)), "measured", round(seconds, 6), fixed_s, places)


def n_jobs(n: int, seconds: float, *, places: int, fixed_s: float) -> int:
    """Return how many jobs should share ``n`` labels of ``seconds`` each: at least 1, at most ``n``.

    As many as keep the fixed share low, and no more than ``ROUNDS`` for each place; enough to fill the places
    if that costs a tolerable share; and in any case so many that none is longer than ``LONGEST_S``.
    """
    places, n = max(1, places), max(1, n)
    cheap = n // smallest_job(seconds, fixed_s, FIXED_SHARE)
    filling = min(places, n // smallest_job(seconds, fixed_s, IDLE_SHARE))
    longest = max(1, math.floor((LONGEST_S - fixed_s) / seconds))
    return min(n, max(1, min(cheap, ROUNDS * places), filling, -(-n // longest)))


def smallest_job(seconds: float, fixed_s: float, share: float) -> int:
    """Return the fewest structures with which fixed costs take at most ``share`` of a job."""
    # 1e-9 keeps a quotient that is whole but for rounding from being rounded up.
    return max(1, math.ceil(fixed_s * (1 - share) / (share * seconds) - 1e-9))


def seconds_per_label(labelled: Structures) -> float | None:
    """Return the mean wall time of the computed labels, s; None when there is none."""
    times = labelled.column("provenance/wall_time")
    computed = np.array([kind == REFERENCE for kind in labelled.text("provenance/kind")], dtype=bool)
    known = times[computed & np.isfinite(times) & (times > 0)]
    return float(known.mean()) if len(known) else None
