"""A campaign in a folder of its own, timed by its own record."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dubito.core.files import read_json
from dubito.core.progress import read

ROOT = Path(__file__).parents[1]
GROUPS = {
    "dft": ("label_structures", "prepare_reference"),
    "training": ("train_ensemble",),
    "exploring": ("explore_structures",),
    "scoring_and_prediction": ("score_candidates", "fit_uncertainty", "predict_structures"),
    "reporting": ("write_report",),
    "small_stages": ("prepare_structures", "select_batch", "build_dataset", "merge_ensemble", "evaluate", "decide"),
}


def run_campaign(folder: Path, config: Path, cores: int = 2) -> tuple[Path, float]:
    """Run a campaign in ``folder``; return the folder of its results and its wall time, s."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", str(cores)]
    start = time.time()
    subprocess.run([*command, "--configfile", str(config)], cwd=folder, check=True)
    wall_s = time.time() - start
    results = next(p for p in (folder / "results").iterdir() if p.is_dir() and p.name != "label_cache")
    return results, wall_s


def events_of(results: Path) -> list[dict[str, Any]]:
    """Return the jobs that finished."""
    return [e for e in read(results / "progress.jsonl") if e["event"] == "finished"]


def covered(intervals: Sequence[tuple[float, float]]) -> float:
    """Return the length of the union of intervals."""
    total, end = 0.0, -float("inf")
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def split(done: Sequence[dict[str, Any]], wall_s: float) -> dict[str, Any]:
    """Return the time by group of stages, and the time in which no job ran."""
    intervals: dict[str, list[tuple[float, float]]] = {e["stage"]: [] for e in done}
    for e in done:
        intervals[e["stage"]].append((e["time"] - e["wall_s"], e["time"]))
    out: dict[str, Any] = {}
    for group, stages in GROUPS.items():
        mine = [e for e in done if e["stage"] in stages]
        out[group] = {
            "jobs": len(mine),
            "busy_s": round(covered([i for s in stages for i in intervals.get(s, [])]), 1),
            "cpu_s": round(sum(e["cpu_s"] for e in mine), 1),
        }
    out["orchestration_s"] = round(wall_s - covered([i for v in intervals.values() for i in v]), 1)
    return out


def labelling_overhead_s(results: Path, done: Sequence[dict[str, Any]]) -> float | None:
    """Return the mean time of a labelling job beside its labels (imports, files), s, of jobs that reused none."""
    beside = []
    for e in done:
        if e["stage"] == "label_structures":
            report = read_json(results / f"iter_{e['iteration']:03d}" / "labels" / f"shard_{e['part']}.json")
            if not report["reused"]:
                beside.append(e["wall_s"] - report["wall_s"])
    return round(sum(beside) / len(beside), 2) if beside else None
