"""What Slurm and Snakemake add to a campaign: seconds per job, share of the wall time.

    python benchmarks/slurm_overhead.py        needs root and Slurm's packages; some minutes

A rehearsal whose label jobs take a minute each runs on a throw-away cluster with the profile as it is shipped. For each
job: from its submission to the first line of its work (queue, two starts of Snakemake, Python), and from the end of its
work to Snakemake's notice of it. `share_of_long_jobs` is the median of both together over the whole, for jobs that work
a minute or longer; `orchestration_share` the part of the campaign's wall time in which no job worked at all.
Writes benchmarks/results/slurm_overhead.json and prints it as one line.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from _campaign import ROOT, covered
from _publish import publish

from dubito.core.progress import read
from dubito.testing.slurm_cluster import SlurmCluster

LONG_S = 60.0
SUBMITTED = re.compile(r"Job (\d+) has been submitted with SLURM jobid (\d+)")
STAMP = re.compile(r"^\[(\w{3} \w{3} +\d+ [\d:]{8} \d{4})\]$")
FINISHED = re.compile(r"^Finished jobid: (\d+) ")


def raw() -> dict[str, Any]:
    """Return the campaign: two label jobs of a minute for the first batch, two for the second."""
    out: dict[str, Any] = yaml.safe_load((ROOT / "config" / "examples" / "teacher.yaml").read_text())
    out["campaign"]["name"] = "overhead"
    out["labelling"]["labeller"]["seconds_per_label"] = 16.0
    out["labelling"]["structures_per_shard"] = 4
    return out


def noticed(log: Path) -> dict[str, float]:
    """Return when Snakemake noticed the end of each Slurm job (whole seconds), from its log."""
    slurm_of: dict[str, str] = {}
    out: dict[str, float] = {}
    now = 0.0
    for line in log.read_text().splitlines():
        if found := SUBMITTED.search(line):
            slurm_of[found[1]] = found[2]
        elif found := STAMP.match(line):
            now = datetime.strptime(found[1], "%a %b %d %H:%M:%S %Y").astimezone().timestamp()
        elif (found := FINISHED.match(line)) and found[1] in slurm_of:
            out[slurm_of[found[1]]] = now
    return out


def submitted(cluster: SlurmCluster) -> dict[str, float]:
    """Return when each job was submitted (whole seconds)."""
    out = {}
    for line in cluster.run(["scontrol", "show", "jobs", "--oneliner"]).stdout.splitlines():
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "JobId" in fields:
            out[fields["JobId"]] = datetime.fromisoformat(fields["SubmitTime"]).astimezone().timestamp()
    return out


def jobs_of(folder: Path, cluster: SlurmCluster) -> list[dict[str, Any]]:
    """Return one row for each Slurm job that finished."""
    (log,) = (folder / ".snakemake" / "log").glob("*.log")
    seen, asked = noticed(log), submitted(cluster)
    started: dict[tuple[Any, ...], dict[str, Any]] = {}
    rows = []
    for event in read(folder / "results" / "overhead" / "progress.jsonl"):
        key = (event["stage"], event["iteration"], event["part"])
        if event["event"] == "started":
            started[key] = event
        job = str(started.get(key, {}).get("slurm_job"))
        if event["event"] == "finished" and job in seen and job in asked:
            before, after = started[key]["time"] - asked[job], seen[job] - event["time"]
            rows.append({"stage": event["stage"], "work_s": event["wall_s"], "before_s": before, "after_s": after})
    return rows


def median(values: list[float], digits: int = 1) -> float:
    """Return the median, rounded."""
    return round(statistics.median(values), digits)


def main() -> None:
    """Run it."""
    profile = ROOT / "profiles" / "slurm"
    with tempfile.TemporaryDirectory() as temporary, SlurmCluster(min_job_age_s=3600) as cluster:
        folder = Path(temporary)
        (folder / "campaign.yaml").write_text(yaml.safe_dump(raw()))
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        command += ["--configfile", "campaign.yaml", "--profile", str(profile)]
        start = time.time()
        subprocess.run(cluster.command(command), cwd=folder, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        wall_s = time.time() - start
        rows = jobs_of(folder, cluster)
        events = read(folder / "results" / "overhead" / "progress.jsonl")
    work = [(e["time"] - e["wall_s"], e["time"]) for e in events if e["event"] == "finished"]
    busy = covered(work)
    long = [row for row in rows if row["work_s"] >= LONG_S]
    content = {
        "jobs": len(rows),
        "before_s": median([row["before_s"] for row in rows]),
        "after_s": median([row["after_s"] for row in rows]),
        "long_jobs": len(long),
        "long_before_s": median([row["before_s"] for row in long]),
        "long_after_s": median([row["after_s"] for row in long]),
        "share_of_long_jobs": median(
            [1 - row["work_s"] / (row["work_s"] + row["before_s"] + row["after_s"]) for row in long], 3
        ),
        "wall_s": round(wall_s, 1),
        "work_s": round(busy, 1),
        "orchestration_share": round(1 - busy / wall_s, 3),
        "rows": [{k: v if isinstance(v, str) else round(v, 1) for k, v in row.items()} for row in rows],
    }
    publish("slurm_overhead", content)


if __name__ == "__main__":
    main()
