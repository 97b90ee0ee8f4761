"""Campaigns in which labels fail: with 30 % of them it goes to its end, with 90 % it pauses and can be resumed.

    python benchmarks/failing_labels.py        about two minutes

Rehearsals with `labelling.labeller.failing_fraction`. Of the first: the share that was labelled, and whether any failed
structure got into a dataset. Of the second: its state, what it says, and its state after the cause was mended
(`failing_fraction` 0.3), `dubito retry` and a plain start. Writes benchmarks/results/failing_labels.json and prints it
as one line.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from _campaign import ROOT
from _publish import publish

from dubito.core.files import read_json
from dubito.data.store import read_structures


def write(folder: Path, share: float) -> None:
    """Write the configuration of a campaign in which this share of the labels fails."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "config" / "examples" / "teacher.yaml").read_text())
    raw["campaign"]["name"] = "failing"
    raw["data"]["initial"]["n_structures"] = 60
    raw["selection"]["n_select"] = 30
    raw["training"] |= {"max_epochs": 10, "early_stopping_epochs": 10}
    raw["labelling"]["labeller"]["failing_fraction"] = share
    raw["labelling"]["structures_per_shard"] = 16
    (folder / "campaign.yaml").write_text(yaml.safe_dump(raw))


def start(folder: Path) -> int:
    """Start the campaign; return Snakemake's exit code."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
    return subprocess.run([*command, "--configfile", "campaign.yaml"], cwd=folder, check=False).returncode


def said(folder: Path) -> dict[str, Any]:
    """Return where the campaign stands, and how many of its failed structures are in a dataset (0, or it is broken)."""
    results = folder / "results" / "failing"
    summary = read_json(results / "summary.json")
    reports = [read_json(path) for path in results.glob("iter_*/labels/*.json")]
    failed = {entry["id"] for report in reports for entry in report["failed"]}
    learnt = {name for path in results.glob("iter_*/dataset.h5") for name in read_structures(path).ids}
    tried = sum(report["done"] + len(report["failed"]) for report in reports)
    return {
        "state": summary["state"],
        "reason": summary["reason"],
        "tried": tried,
        "labelled_share": round((tried - len(failed)) / tried, 3),
        "failed_in_a_dataset": len(failed & learnt),
        "shown": summary["labels"]["failed"] == len(failed),
    }


def main() -> None:
    """Run it."""
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        few, many = Path(temporary, "few"), Path(temporary, "many")
        for folder, share in ((few, 0.3), (many, 0.9)):
            folder.mkdir()
            write(folder, share)
            code = start(folder)
            out[f"{share:.0%}"] = {"exit_code": code, **said(folder)}
        write(many, 0.3)
        retry = [sys.executable, "-c", "from dubito.cli import main; main()", "retry", "--config", "campaign.yaml"]
        subprocess.run(retry, cwd=many, check=True)
        code = start(many)
        out["90% resumed with 30%"] = {"exit_code": code, **said(many)}
    publish("failing_labels", out)


if __name__ == "__main__":
    main()
