"""How long Snakemake thinks before it starts, for campaigns of 10, 100 and 1,000 label jobs.

    python benchmarks/dag.py            10, 100, 1,000 shards
    python benchmarks/dag.py --short    10, 100

A batch of N one-structure shards is selected; then `snakemake -n` is timed, once with all shards to be made and once
with all made (a campaign that is taken up again). `per_job_ms` is the slope between the smallest and the largest.
Medians of three. Writes benchmarks/results/dag.json (dag_short.json) and prints it as one line.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from _campaign import ROOT
from _publish import publish

from dubito.config import Config, parse_config
from dubito.stages import prepare_structures, select_batch

REPEATS = 3


def prepared(folder: Path, n: int) -> Config:
    """Make a campaign whose first batch of ``n`` one-structure shards is selected."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "config" / "examples" / "teacher.yaml").read_text())
    raw["campaign"]["name"] = "wide"
    raw["data"]["initial"]["n_structures"] = n
    raw["labelling"]["structures_per_shard"] = 1
    raw["selection"]["duplicate_distance_angstrom"] = 1e-6  # a thousand displaced ammonias are all to be labelled
    (folder / "campaign.yaml").write_text(yaml.safe_dump(raw))
    config = parse_config(raw)
    first = folder / "results" / "wide" / "iter_000"
    prepare_structures.run(output=first / "candidates.h5", data=config.data, seed=config.campaign.seed)
    select_batch.run(
        candidates=first / "candidates.h5", dataset=None, selected=first / "selected.h5",
        manifest=first / "selection.json", rejected=first / "rejected.csv", selection=config.selection,
        sanity=config.sampling.sanity, method=None, structures_per_shard=1, places=1, fixed_s=2.0,
        remaining_labels=None, seed=config.campaign.seed, iteration=0,
    )  # fmt: skip
    # Snakemake must take the batch for its own: as old as what it was made from.
    for path in sorted(first.iterdir()):
        os.utime(path)
    return config


def finish_shards(folder: Path, n: int) -> None:
    """Put empty files where the shards' results go."""
    labels = folder / "results" / "wide" / "iter_000" / "labels"
    labels.mkdir()
    for shard in range(n):
        for ending in ("h5", "json"):
            (labels / f"shard_{shard:03d}.{ending}").touch()


def seconds(folder: Path) -> tuple[float, int]:
    """Return the time of a dry run, s, and the number of jobs it plans."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--configfile"]
    start = time.perf_counter()
    done = subprocess.run([*command, "campaign.yaml", "-n", "--rerun-triggers", "mtime"], cwd=folder,
                          capture_output=True, text=True, check=False)  # fmt: skip
    took = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    total = [line for line in done.stdout.splitlines() if line.startswith("total ")]
    return took, int(total[0].split()[1]) if total else 0


def measured(n: int) -> dict[str, Any]:
    """Return medians for ``n`` shards."""
    out: dict[str, Any] = {"shards": n}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepared(folder, n)
        for what in ("to_label", "labelled"):
            found = [seconds(folder) for _ in range(REPEATS)]
            out[what] = {"s": round(statistics.median(s for s, _ in found), 2), "jobs": found[0][1]}
            finish_shards(folder, n) if what == "to_label" else None
    return out


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    rows = [measured(n) for n in ((10, 100) if options.short else (10, 100, 1000))]
    few, many = rows[0], rows[-1]
    slope = (many["to_label"]["s"] - few["to_label"]["s"]) / (many["shards"] - few["shards"])
    publish("dag_short" if options.short else "dag", {"rows": rows, "per_job_ms": round(1e3 * slope, 1)})


if __name__ == "__main__":
    main()
