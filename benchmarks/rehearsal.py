"""A rehearsal campaign with 1,000 candidates in each iteration: where the time goes when labels cost nothing.

    python benchmarks/rehearsal.py           the demo's network, two iterations
    python benchmarks/rehearsal.py --short   a tiny network, one iteration

An analytic potential makes the labels. Writes benchmarks/results/rehearsal.json (rehearsal_short.json) and prints it
as one line. `orchestration_share` is the part of the wall time in which no job ran: Snakemake itself, and the start of
Python in each job. `imports` is the time it takes to import each stage, and what heavy packages came with it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from _campaign import ROOT, events_of, labelling_overhead_s, run_campaign, split
from _publish import publish

from dubito.core.files import read_json

HEAVY = ("torch", "e3nn", "pyscf", "ase", "scipy", "pandas", "altair", "h5py", "pydantic")
REPEATS = 3

# 20 walkers, 50 candidates each.
SAMPLER = {
    "kind": "langevin",
    "temperatures_K": [300.0, 600.0],
    "n_walkers": 20,
    "n_steps": 500,
    "save_every_steps": 10,
    "stop_uncertainty_ev_per_angstrom": 1000.0,
}
# Nothing but the end of a trajectory stops a walker: a rehearsal of the work, whatever the model is worth.
SANITY = {
    "min_distance_factor": 0.05,
    "max_bond_factor": 4.0,
    "max_fragments": 8,
    "max_energy_above_min_ev_per_atom": 1e6,
    "max_force_ev_per_angstrom": 1e6,
}
IMPORT = """
import sys, time
start = time.perf_counter()
import dubito.stages.{stage}
import json
print(json.dumps([time.perf_counter() - start, [m for m in {heavy} if m in sys.modules]]))
"""


def config(*, short: bool) -> dict[str, Any]:
    """Return the configuration of the rehearsal."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "config" / "examples" / "teacher.yaml").read_text())
    raw["sampling"] = {"sampler": SAMPLER, "sanity": SANITY}
    raw["campaign"] |= {"name": "thousand", "max_iterations": 1 if short else 2}
    raw["data"]["initial"]["n_structures"] = 12
    if not short:
        del raw["model"]
        raw["training"] = {"max_epochs": 100}
        raw["selection"] |= {"n_select": 16}
    return raw


def imports() -> dict[str, dict[str, Any]]:
    """Return the time to import each stage in a fresh process, s (least of some), and what came with it."""
    out = {}
    for path in sorted((ROOT / "src" / "dubito" / "stages").glob("[a-z]*.py")):
        code, found = IMPORT.format(stage=path.stem, heavy=HEAVY), []
        for _ in range(REPEATS):
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout))
        out[path.stem] = {"import_s": round(min(s for s, _ in found), 3), "heavy": found[0][1]}
    return out


def python_start_s() -> float:
    """Return the time an empty Python process takes, s (least of some)."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", ""], check=True)
        times.append(time.perf_counter() - start)
    return round(min(times), 3)


def main() -> None:
    """Run, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a tiny network, one iteration")
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "campaign.yaml").write_text(yaml.safe_dump(config(short=options.short)))
        results, wall_s = run_campaign(folder, folder / "campaign.yaml", options.cores)
        done = events_of(results)
        manifests = [read_json(path) for path in sorted(results.glob("iter_*/selection.json"))]
        overhead = labelling_overhead_s(results, done)
    times = split(done, wall_s)
    content = {
        "cores": options.cores,
        "wall_s": round(wall_s, 1),
        "jobs": len(done),
        "candidates": [m["n_candidates"] for m in manifests],
        "stages": times,
        "orchestration_share": round(times["orchestration_s"] / wall_s, 3),
        "labelling_job_beside_labels_s": overhead,
        "python_start_s": python_start_s(),
        "imports": imports(),
    }
    publish("rehearsal_short" if options.short else "rehearsal", content)


if __name__ == "__main__":
    main()
