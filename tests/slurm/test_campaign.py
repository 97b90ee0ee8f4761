"""A campaign as its user starts it on a cluster: `snakemake --profile slurm`, killed, resumed, with the same result."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from campaigns import ROOT, Campaign, example

from dubito.testing.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.xdist_group("slurm-campaign")


@dataclass
class OnCluster(Campaign):
    """A campaign whose driver runs inside a test cluster."""

    cluster: SlurmCluster = field(kw_only=True)
    profile: str = field(kw_only=True)

    def command(self, *arguments: str) -> list[str]:
        snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        quick = ["--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5"]
        return self.cluster.command(
            [*snakemake, "--configfile", "campaign.yaml", "--profile", self.profile, *quick, *arguments]
        )

    def live_jobs(self) -> list[str]:
        return self.cluster.run(["squeue", "--noheader", "--format=%i"]).stdout.split()


def test_killed_resumed_and_the_same_selection(
    cluster: SlurmCluster, tmp_path: Path, profile: Callable[..., str]
) -> None:
    raw: dict[str, Any] = example("teacher")
    # Long enough that the driver can be killed, and the configuration changed, while labels are made.
    raw["labelling"]["labeller"]["seconds_per_label"] = 1.0
    site = profile(gpus="1", gpu_partition='"gpu"', gpu_rules="[train_ensemble]")
    one = OnCluster(tmp_path / "cluster", raw, cluster=cluster, profile=site)
    driver = one.start()
    try:
        one.wait(lambda: len(one.labels()) >= 2)
        driver.kill()
        driver.wait()
        first = one.labels()
        live = one.live_jobs()
        assert live
        # However long the next start takes on a busy machine, they are still there.
        cluster.run(["scontrol", "suspend", ",".join(live)], check=False)

        # Refused beside the jobs that are left, in one paragraph that says what to type.
        text = one.run(code=2)
        named = text.partition("`scancel ")[2].partition("`")[0].split()
        assert set(live) <= set(named) and "Traceback" not in text, text
        # Another campaign of the folder would not be.
        assert f"dubito-{one.name}_" in cluster.run(["squeue", "--noheader", "--format=%j"]).stdout
        cluster.run(["scontrol", "resume", ",".join(live)], check=False)
        end = time.monotonic() + 120
        while one.live_jobs() and time.monotonic() < end:
            time.sleep(0.3)

        # Resumed; while it runs its file is edited, and its jobs go on with what they started with.
        driver = one.start()
        one.wait(lambda: one.events(event="started", stage="train_ensemble", iteration=0))
        one.write(selection={"n_select": 3}, sampling={"sampler": {**raw["sampling"]["sampler"], "n_steps": 20}})
        assert driver.wait(timeout=300) == 0, (one.folder / "driver.log").read_text()
    finally:
        driver.kill()

    labels = one.labels()
    assert all(labels[name] == label for name, label in first.items()), "a finished label was made again"
    finished = [(e["stage"], e["iteration"], e["part"]) for e in one.events(event="finished")]
    assert len(finished) == len(set(finished)), "a job was done twice"
    trained = one.events(event="started", stage="train_ensemble")
    assert {event["host"] for event in trained} == {cluster.nodes[2]}
    # Few small files: Slurm's logs of jobs that succeeded are gone, but for those of the driver that was killed; what
    # jobs said themselves is where one looks.
    kept = {path.stem for path in (one.folder / "results" / "slurm_logs").rglob("*.log")}
    assert kept <= {str(k) for k in range(int(max(live, key=int)) + 1)}
    assert (one.results / "logs" / "iter_000" / "train_ensemble_0.log").exists()

    here = Campaign(tmp_path / "local", example("teacher"))
    here.run()
    assert one.selections() == here.selections()
