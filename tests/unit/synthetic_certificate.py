"""Certificates, plans and adaptive scoring as they stand in the result files, put into a synthetic campaign."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from synthetic_campaign import Builder

from dubito.core.files import read_json, write_json
from dubito.metrics.binomial import clopper_pearson

STRATUM = "langevin 300 K"
HOSTILE = "<b>langevin</b> & 600 K"
GUARANTEE = "In 95 % of pools at least 95 % of the candidates that matter get the full score & no more <i>is</i> said."


def certificate(
    *,
    n: int = 20,
    bad: int = 0,
    accepted: float = 0.93,
    bound: float = 1 / 21,
    holds: bool = True,
    missed: int = 0,
    threshold: float | None = 0.41,
    **others: Any,
) -> dict[str, Any]:
    """Return a certificate as ``evaluate`` writes it."""
    n_accepted = round(accepted * n)
    low, high = clopper_pearson(missed, n_accepted)
    found = {
        "method": "ensemble",
        "tolerance_ev_per_angstrom": 0.3,
        "risk": 0.05,
        "confidence": 0.95,
        "n_pool": 240,
        "n_control": n,
        "n_control_failed": 0,
        "n_bad": bad,
        "holds": holds,
        "threshold": threshold,
        "accepted_fraction": accepted,
        "bound": bound,
        "n_accepted_bad": missed,
        "miss_rate": {
            "value": missed / n_accepted if n_accepted else None,
            "low": low,
            "high": high,
            "n_accepted": n_accepted,
        },
        "labels_needed": 20,
        "strata": [stratum(STRATUM, n=n, bad=bad, accepted=accepted, bound=bound, holds=holds, threshold=threshold)],
        "audit": None,
        "drift": None,
        "drift_note": None,
        "reason": "as planted",
    }
    return found | others


def stratum(name: str, **values: Any) -> dict[str, Any]:
    """Return one stratum of a certificate."""
    return {
        "name": name,
        "members": [name],
        "n_pool": 240,
        "n_control": values["n"],
        "n_bad": values["bad"],
        "threshold": values["threshold"],
        "accepted_fraction": values["accepted"],
        "bound": values["bound"],
        "holds": values["holds"],
    }


def audit(iteration: int, missed: int, accepted: int) -> dict[str, Any]:
    """Return what the threshold of an iteration missed on the next slice."""
    low, high = clopper_pearson(missed, accepted)
    return {
        "threshold_of_iteration": iteration,
        "n_accepted": accepted,
        "missed": missed,
        "value": missed / accepted,
        "low": low,
        "high": high,
    }


def drift(
    *,
    before: float | None = 1.8,
    now: float | None = 2.7,
    p: float | None = 0.0012,
    scores: float = 0.34,
    drifted: bool = True,
    cautious: bool = False,
) -> dict[str, Any]:
    """Return the outcome of a drift test."""
    return {
        "p_value": p,
        "ratio_before": before,
        "ratio_now": now,
        "scores_p_value": scores,
        "drifted": drifted,
        "cautious_p_value": 0.0001 if cautious else 1.0,
        "cautious": cautious,
        "margin": 1.15,
    }


def plan(**others: Any) -> dict[str, Any]:
    """Return a plan as ``decide`` writes it: a power law without floor through three points."""
    labels = [12, 48, 84]
    error = [1.3 * n**-0.7 for n in labels]
    ahead = np.geomspace(84, 168, 9).round()
    found = {
        "error_kind": "control",
        "points": [
            {"iteration": k + 1, "labels": n, "error_ev_per_angstrom": e, "relative_sd": 0.11}
            for k, (n, e) in enumerate(zip(labels, error, strict=True))
        ],
        "target_ev_per_angstrom": 0.0432,
        "target_from": "certificate",
        "forecast": [
            {
                "labels": int(n),
                "q10": 1.3 * n**-0.7 * 0.8,
                "q50": 1.3 * n**-0.7,
                "q90": 1.3 * n**-0.7 * (1.2 + (n - 84) / 300),
            }
            for n in ahead
        ],
        "labels_to_target": {"q10": 103, "q50": 129, "q90": None},
        "probability_unreachable": 0.137,
        "probability_by_budget": 0.618,
        "core_hours_to_target": {"q10": 0.0123, "q50": 0.0345, "q90": None},
        "core_hours_per_label": 0.000305,
        "gain_percent_per_100_labels": {"q10": 12.3, "q50": 45.6, "q90": 67.8},
        "price_percent_per_100_labels": 5.0,
        "limited_by": "data",
        "train_test_ratio": 0.4321,
        "past_forecasts": [
            {"made_at_iteration": 2, "labels": 84, "q10": 0.051, "q50": 0.06, "q90": 0.083, "realised": error[2]}
        ],
    }
    return found | others


def adaptive(**others: Any) -> dict[str, Any]:
    """Return what ``score_candidates`` says of adaptive scoring."""
    return {
        "n": 1234,
        "n_calibration": 111,
        "n_escalated": 321,
        "threshold": 0.5,
        "recall_target": 0.95,
        "guarantee": GUARANTEE,
        "compute_ratio": 0.432,
        "saved_evaluations": 2804,
        "note": "",
    } | others


def put(campaign: Builder, k: int, **values: Any) -> None:
    """Put ``certificate``, ``plan``, ``decision``, ``manifest`` into the result files of iteration ``k``."""
    where = campaign.where(k)
    if "certificate" in values:
        found = values["certificate"]
        metrics = read_json(where / "metrics.json") | {"certificate": found}
        if found is not None:
            shared = ("n_control", "n_control_failed", "tolerance_ev_per_angstrom", "risk")
            metrics["miss_rate"] = found["miss_rate"] | {key: found[key] for key in shared}
        write_json(where / "metrics.json", metrics)
    decision: Mapping[str, Any] = values.get("decision", {})
    if "plan" in values:
        decision = {**decision, "plan": values["plan"]}
    if decision:
        write_json(where / "decision.json", read_json(where / "decision.json") | dict(decision))
    if "manifest" in values:
        write_json(where / "selection.json", read_json(where / "selection.json") | dict(values["manifest"]))


def pool_scores(campaign: Builder, k: int, names: tuple[str, ...] = (STRATUM, HOSTILE)) -> dict[str, Any]:
    """Return the keys that the selection writes of the pool: scores by stratum, and the stratum of each selected."""
    ids = read_json(campaign.where(k) / "selection.json")["ids"]
    return {
        "pool_scores": {
            name: {"n": 77 + i, "quantiles": np.linspace(0.1, 0.9 + i, 77 + i).tolist()} for i, name in enumerate(names)
        },
        "strata": [names[i % len(names)] for i in range(len(ids))],
    }
