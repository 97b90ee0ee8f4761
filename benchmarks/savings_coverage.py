"""How often the intervals of the study of label savings hold the ratio that was planted: simulated pairs of campaigns.

    python benchmarks/savings_coverage.py

Learning curves are power laws with the labels of the study; pairs share a level, each campaign has one of its own, and
each point noise. Writes
benchmarks/results/savings_coverage.json (about a minute of one core).
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from _publish import publish

from dubito.core.random import generator
from dubito.studies.label_savings.savings import MIN_SEEDS, saving

LABELS = np.array([10.0, 15, 22, 33, 50])
N_STUDIES, N_RESAMPLES = 1000, 500
# Standard deviations of logarithms: level of a pair, level of a campaign, points; planted ratio; exponent of the curve.
CASES = {
    "campaigns (10 %), nothing shared": (0.0, 0.1, 0.05, 1.0, 0.5),
    "pairs (20 %), points 8 %": (0.2, 0.0, 0.08, 1.6, 0.4),
    "a little of all": (0.1, 0.05, 0.03, 1.6, 0.4),
    "a flat curve": (0.05, 0.04, 0.03, 1.0, 0.25),
    "a large saving": (0.1, 0.05, 0.05, 2.2, 0.5),
    "points with heavy tails": (0.1, 0.05, 0.05, 1.3, 0.4),
}


def curves(case: tuple[float, ...], heavy: bool, n: int, rng: np.random.Generator) -> list[Any]:
    """Return random's and the selector's errors, both (n, 5)."""
    pair, campaign, point, worth, exponent = case
    level = pair * rng.normal(size=(n, 1))
    out = []
    for ratio in (1.0, worth):
        noise = rng.standard_t(4, (n, 5)) / np.sqrt(2) if heavy else rng.normal(size=(n, 5))
        own = campaign * rng.normal(size=(n, 1))
        out.append(300 * np.exp(level + own + point * noise - exponent * np.log(LABELS * ratio)))
    return out


def measure(what: str, n: int) -> dict[str, Any]:
    """Return how often both intervals of ``n`` pairs hold the planted ratio, and how wide they are."""
    rng, case = generator(0, "savings_coverage", what, n), CASES[what]
    held, widths = np.zeros(2), []
    for study in range(N_STUDIES):
        found = saving(
            LABELS, *curves(case, "heavy" in what, n, rng), target_share=0.7, level=0.95,
            n_resamples=N_RESAMPLES, seed=study, min_seeds=2,
        )  # fmt: skip
        ends = (found.low, found.high), (found.t_low, found.t_high)
        held += [low <= case[3] <= high for low, high in ends]
        widths.append([high / low for low, high in ends])
    wide = np.median(widths, axis=0)
    held /= N_STUDIES
    return {
        "what": what, "ratio": case[3], "n_seeds": n, "bootstrap_coverage": float(held[0]),
        "paired_t_coverage": float(held[1]), "bootstrap_width": float(f"{wide[0]:.3g}"),
        "paired_t_width": float(f"{wide[1]:.3g}"),
    }  # fmt: skip


def main() -> None:
    """Measure, write, print."""
    began = time.process_time()
    cases = []
    first = next(iter(CASES))
    for what, n in [*((first, n) for n in range(2, MIN_SEEDS)), *((what, MIN_SEEDS) for what in CASES)]:
        cases.append(measure(what, n))
        sys.stderr.write(f"{cases[-1]}\n")
    full = [one for one in cases if one["n_seeds"] == MIN_SEEDS]
    mean = {kind: float(np.mean([one[f"{kind}_coverage"] for one in full])) for kind in ("bootstrap", "paired_t")}
    publish(
        "savings_coverage",
        {"n_studies": N_STUDIES, "n_resamples": N_RESAMPLES, "cases": cases,
         "mean_coverage": {kind: round(value, 4) for kind, value in mean.items()},
         "cpu_s": round(time.process_time() - began)},
    )  # fmt: skip


if __name__ == "__main__":
    main()
