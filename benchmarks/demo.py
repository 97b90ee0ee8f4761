"""The demo campaign, timed: where the time goes, and how errors fall; run in a folder of its own.

    python benchmarks/demo.py           minutes
    python benchmarks/demo.py --short   one iteration instead of four

Writes benchmarks/results/demo.json (demo_short.json) and prints it as one line. `busy_s` is the time in which at
least one job of a group ran (jobs run side by side, so groups may overlap); `orchestration_s` is the time in which no
job ran at all.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import yaml
from _campaign import ROOT, events_of, labelling_overhead_s, run_campaign, split
from _publish import publish

from dubito.core.files import read_json
from dubito.data.store import read_attributes, read_predictions, read_structures


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


def certificate(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the random control slice of one iteration says; None in the first, which explores nothing."""
    said = metrics["certificate"]
    if said is None:
        return None
    kept = ("holds", "accepted_fraction", "n_control", "n_bad", "n_accepted_bad", "miss_rate", "audit")
    moved = said["drift"] or {}
    return {key: said[key] for key in kept} | {key: moved.get(key) for key in ("drifted", "cautious")}


def main() -> None:
    """Run, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="one iteration instead of four")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
        if options.short:
            raw["campaign"]["max_iterations"] = 1
        (folder / "campaign.yaml").write_text(yaml.safe_dump(raw))
        results, wall_s = run_campaign(folder, folder / "campaign.yaml")
        metrics = [read_json(path) for path in sorted(results.glob("iter_*/metrics.json"))]
        done = events_of(results)
        times, overhead = split(done, wall_s), labelling_overhead_s(results, done)
        summary = read_json(results / "summary.json")
        profiles = [profile(p) for p in sorted(results.glob("iter_*/predictions/profile_inversion.h5"))]
    content = {
        "wall_s": round(wall_s, 1),
        "stages": times,
        "orchestration_share": round(times["orchestration_s"] / wall_s, 3),
        "labelling_job_beside_labels_s": overhead,
        "iterations": [
            {
                "labels": m["labels"]["total"],
                "barrier_error_mev": round(1e3 * m["physics"]["inversion"]["barrier_error_ev"], 2),
                "barrier_reference_mev": round(1e3 * m["physics"]["inversion"]["barrier_reference_ev"], 2),
                "force_rmse_mev_per_angstrom": {
                    name: round(1e3 * e["force_rmse_ev_per_angstrom"], 1) for name, e in m["errors"].items()
                },
                "certificate": certificate(m),
                "profile": curve,
            }
            for m, curve in zip(metrics, profiles, strict=True)
        ],
        "summary": summary,
    }
    publish("demo_short" if options.short else "demo", content)


if __name__ == "__main__":
    main()
