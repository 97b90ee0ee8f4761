"""The demo campaign, timed: where the time goes, and how errors fall; run in a folder of its own.

    python benchmarks/demo.py

Writes benchmarks/results/demo.json and prints it as one line. `busy_s` is the time in which at least one job of a
group ran (jobs run side by side, so groups may overlap); `orchestration_s` is the time in which no job ran at all.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _publish import publish

from dubito.core.files import read_json
from dubito.core.progress import read
from dubito.data.store import read_attributes, read_predictions, read_structures

ROOT = Path(__file__).parents[1]
GROUPS = {
    "dft": ("label_structures", "prepare_reference"),
    "training": ("train_ensemble",),
    "exploring": ("explore_structures",),
    "scoring_and_prediction": ("score_candidates", "fit_uncertainty", "predict_structures"),
    "reporting": ("write_report",),
    "small_stages": ("prepare_structures", "select_batch", "build_dataset", "merge_ensemble", "evaluate", "decide"),
}


def covered(intervals: list[tuple[float, float]]) -> float:
    """Return the length of the union of intervals."""
    total, end = 0.0, -float("inf")
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def split(events: list[dict[str, Any]], wall_s: float) -> dict[str, Any]:
    """Return the time by group of stages."""
    done = [e for e in events if e["event"] == "finished"]
    intervals = {e["stage"]: [] for e in done}
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


def profile(path: Path) -> dict[str, Any]:
    """Return the profile of one iteration, meV above its minimum structure."""
    structures, attributes = read_structures(path), read_attributes(path)["profile"]
    predicted = read_predictions(path)["ensemble"]
    lowest = attributes["minimum_index"]
    members = predicted["energy_ensemble"] - predicted["energy_ensemble"][lowest]
    return {
        "coordinate_angstrom": attributes["coordinate"],
        "reference_mev": rounded(structures.energy - structures.energy[lowest]),
        "predicted_mev": rounded(predicted["energy"] - predicted["energy"][lowest]),
        "uncertainty_mev": rounded(members.std(axis=1, ddof=1)),
    }


def rounded(energies_ev: Any) -> list[float]:
    """Return energies in meV with two decimals."""
    return [round(1e3 * float(e), 2) for e in energies_ev]


def main() -> None:
    """Run, write and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
        command += ["--configfile", str(ROOT / "config" / "config.yaml")]
        start = time.time()
        subprocess.run(command, cwd=folder, check=True)
        wall_s = time.time() - start
        results = next(p for p in (folder / "results").iterdir() if p.is_dir())
        metrics = [read_json(path) for path in sorted(results.glob("iter_*/metrics.json"))]
        times = split(read(results / "progress.jsonl"), wall_s)
        summary = read_json(results / "summary.json")
        profiles = [profile(p) for p in sorted(results.glob("iter_*/predictions/profile_inversion.h5"))]
    content = {
        "wall_s": round(wall_s, 1),
        "stages": times,
        "iterations": [
            {
                "labels": m["labels"]["total"],
                "barrier_error_mev": round(1e3 * m["physics"]["inversion"]["barrier_error_ev"], 2),
                "barrier_reference_mev": round(1e3 * m["physics"]["inversion"]["barrier_reference_ev"], 2),
                "force_rmse_mev_per_angstrom": {
                    name: round(1e3 * e["force_rmse_ev_per_angstrom"], 1) for name, e in m["errors"].items()
                },
                "profile": curve,
            }
            for m, curve in zip(metrics, profiles, strict=True)
        ],
        "summary": summary,
    }
    publish("demo", content)


if __name__ == "__main__":
    main()
