"""A pause in ``summary.json``: written where no report can be, taken back when the campaign goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dubito.core.errors import CampaignPaused, DataError
from dubito.core.files import atomic_path, read_object
from dubito.core.progress import read
from dubito.reporting.cost import hours, stage_costs

PAUSED = "paused"


def write_pause(folder: Path, pause: CampaignPaused, config: Mapping[str, Any]) -> None:
    """Say in ``folder/summary.json`` that the campaign is paused, and why, when no model was trained to report on.

    What an earlier iteration left there stays.

    Parameters
    ----------
    config : the resolved configuration, as JSON
    """
    summary = read_summary(folder) or _nothing_measured(folder, pause.iteration, config)
    summary |= {"state": PAUSED, "reason": str(pause), "labels": {**summary["labels"], **pause.labels}}
    _write(folder, summary)


def end_pause(folder: Path, reason: str) -> bool:
    """Take a pause back, since the campaign goes on; return whether there was one."""
    summary = read_summary(folder)
    if summary is None or summary.get("state") != PAUSED:
        return False
    _write(folder, summary | {"state": "running", "reason": reason})
    return True


def paused_because(folder: Path) -> str | None:
    """Return why a campaign is paused, None when it is not."""
    summary = read_summary(folder)
    if summary is None or summary.get("state") != PAUSED:
        return None
    return str(summary.get("reason", ""))


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Return ``folder/summary.json``; None where there is none, or a damaged one: the next job writes it anew."""
    try:
        return read_object(folder / "summary.json", labels=dict)
    except DataError:
        return None


def _nothing_measured(folder: Path, iteration: int, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a summary of what is known before the first model."""
    reports = [_report(path) for path in sorted(folder.glob("iter_*/labels/shard_*.json"))]
    selection = config["selection"]
    unknown = dict.fromkeys(("value", "low", "high"))
    return {
        "iterations": 0,
        "driver": None,
        "labels": {"done": 0, "failed": 0, "reused": 0},
        "force_rmse_ev_per_angstrom": None,
        "force_rmse_set": None,
        "miss_rate": unknown
        | {
            "tolerance_ev_per_angstrom": selection["force_tolerance_ev_per_angstrom"],
            "risk": selection["risk"],
        },
        "certificate": None,
        "plan": None,
        "cost": hours(stage_costs(read(folder / "progress.jsonl"), iteration), reports),
        "physics": {},
    }


def _report(path: Path) -> dict[str, Any]:
    try:
        return read_object(path, cpu_s=(int, float))
    except DataError:
        return {}


def _write(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write the summary, dated 1970: it is an output of the last job, which must not take it for its own."""
    with atomic_path(folder / "summary.json") as partial:
        partial.write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.utime(partial, (1, 1))
