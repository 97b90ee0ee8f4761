"""The campaign in one small file whose keys scripts may rely on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dubito.reporting.collect import Campaign
from dubito.reporting.cost import hours

_FORCE = "force_rmse_ev_per_angstrom"


def force_rmse(campaign: Campaign) -> tuple[str | None, float | None]:
    """Return the most telling force error of the latest model and the set it was measured on.

    A test set before the validation set (used for early stopping), that before the training set.
    """
    errors = campaign.last.metrics["errors"]
    for name in ("test", "valid", "train"):
        if errors.get(name, {}).get(_FORCE) is not None:
            return name, errors[name][_FORCE]
    return None, None


def summarise(campaign: Campaign) -> dict[str, Any]:
    """Return ``summary.json``.

    ``iterations`` counts the evaluated iterations, the first (which labels the initial structures)
    included, so that it is the length of the lists under ``physics``. ``driver`` is the uncertainty method that drives.
    ``certificate`` and ``plan`` are null before there is one.
    """
    history = [iteration.metrics for iteration in campaign.iterations]
    decision, last = campaign.last.decision, history[-1]
    reports = [report for iteration in campaign.iterations for report in iteration.shard_reports]
    name, value = force_rmse(campaign)
    return {
        "state": decision.get("state", "running"),
        "reason": decision.get("reason", ""),
        "iterations": len(history),
        "driver": campaign.drives,
        "labels": {
            "done": last["labels"]["total"],
            "failed": sum(metrics["labels"]["failed"] for metrics in history),
            "reused": sum(metrics["labels"]["reused"] for metrics in history),
        },
        _FORCE: value,
        "force_rmse_set": name,
        "miss_rate": {key: last["miss_rate"][key] for key in _MISS},
        "certificate": _certificate(campaign.last.certificate),
        "plan": _plan(campaign.last.plan),
        "cost": hours(campaign.costs, reports, campaign.reference_cpu_s),
        "physics": _physics(history),
    }


_MISS = ("value", "low", "high", "tolerance_ev_per_angstrom", "risk")


def _certificate(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what counts of the latest certificate; the share of wrong ones is expected to be at most ``risk``.

    ``bound`` is the estimate that was held against the risk. ``drifted`` is null where drift was not tested.
    """
    if found is None:
        return None
    drift = found.get("drift")
    kept = {key: found[key] for key in ("holds", "accepted_fraction", "bound")}
    return kept | {"drifted": None if drift is None else bool(drift["drifted"])}


def _plan(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return how many labels the target takes (null: farther than is forecast), and whether it can be reached."""
    if found is None:
        return None
    return {key: found[key] for key in ("labels_to_target", "probability_unreachable")}


def _physics(history: list[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    names = sorted({name for metrics in history for name in metrics["physics"]})
    return {
        f"{name}_barrier_error_ev": [metrics["physics"].get(name, {}).get("barrier_error_ev") for metrics in history]
        for name in names
    }
