"""Does the 80 % interval of the labels hold the truth where the target itself is estimated, from the tolerance?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from _curves import FAMILIES, draw_truth
from _simulated_campaigns import POOL, SPREAD, TEST, WORST, draw_setting, measured, sampling_sd
from scipy.stats import norm

from dubito.config.campaign import CampaignConfig
from dubito.config.planning import PlanningConfig
from dubito.config.selection import SelectionConfig
from dubito.core.random import generator
from dubito.stages._planning import outlook

Json = dict[str, Any]

LAST, BATCH, CAMPAIGNS = 6, 60, 150
# Control labels of a slice, with the risk they are made for.
SLICES = {20: 0.05, 40: 0.1}


def coverage(n_control: int, n_test: int, seed: int) -> Json:
    """Return how often the interval holds the truth, and had the best estimate of the target been taken as exact.

    True is the number of labels, 1.15 to 2 times those of the last point, at which the share of structures above the
    tolerance is the risk.
    """
    inside, of_exact, off = [], [], []
    risk = SLICES[n_control]
    for i in range(CAMPAIGNS):
        rng = generator(seed, "own_target", n_control, n_test, i)
        truth = draw_truth(FAMILIES[i % len(FAMILIES)], rng)
        test_error = float(np.exp(sampling_sd(n_test) * rng.standard_normal())) if n_test else 1.0
        setting = replace(
            draw_setting(truth, rng, n_control), batch=BATCH, risk=risk, n_test=n_test, test_error=test_error
        )
        true = setting.known(LAST if n_test else LAST - 1) * rng.uniform(1.15, 2)
        tolerance = float(WORST * truth.error(true) * np.exp(SPREAD * norm.isf(risk)))
        setting = replace(setting, tolerance=tolerance)
        history = [measured(k, truth, setting, rng) for k in range(LAST + 1)]
        size = BATCH + n_control
        manifests = [
            {"iteration": k, "n_selected": size, "n_candidates": POOL, "rejected": {}} for k in range(LAST + 1)
        ]
        sections = (
            CampaignConfig(max_iterations=60, seed=int(rng.integers(1 << 30))),
            SelectionConfig(n_select=BATCH, risk=risk, force_tolerance_ev_per_angstrom=tolerance),
        )
        plan = outlook(history, manifests, *sections, PlanningConfig()).plan or {}
        exact = PlanningConfig(target_force_rmse_ev_per_angstrom=plan["target_ev_per_angstrom"])
        inside.append(_holds(plan, true))
        of_exact.append(_holds(outlook(history, manifests, *sections, exact).plan or {}, true))
        off.append(abs(np.log(plan["target_ev_per_angstrom"] / (float(truth.error(true)) * test_error))))
    return {
        "campaigns": CAMPAIGNS,
        "coverage_80": round(float(np.mean(inside)), 3),
        "coverage_80_target_taken_as_exact": round(float(np.mean(of_exact)), 3),
        "median_log_target_off": round(float(np.median(off)), 3),
    }


def table(seed: int) -> dict[str, dict[str, Json]]:
    """Return the coverage by control labels of a slice and by what the curve is of."""
    kinds = {"test": TEST, "control": 0}
    return {str(n): {kind: coverage(n, of, seed) for kind, of in kinds.items()} for n in SLICES}


def _holds(plan: Json, true: float) -> bool:
    """Return whether the interval holds the truth; a bound that is not said lies beyond twice the labels."""
    low, high = (plan["labels_to_target"][q] for q in ("q10", "q90"))
    return low is not None and low <= true and (high is None or true <= high)
