"""The same on a throw-away Slurm: jobs cancelled, nodes switched off, controller and accounting restarted."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from _campaign import ROOT
from _chaos_campaign import Campaign
from _chaos_faults import Fault, clock_skew, kill_driver, kill_job, truncated_hdf5

from dubito.testing.slurm_cluster import SlurmCluster, why_not

# Fast answers for a test; everything else is the profile that users have.
OPTIONS = ("--profile", str(ROOT / "profiles" / "slurm"), "--slurm-init-seconds-before-status-checks", "1",
           "--latency-wait", "5", "--max-status-checks-per-second", "2")  # fmt: skip


class ClusterCampaign(Campaign):
    """A campaign whose jobs are Slurm's."""

    cluster: SlurmCluster
    refused: int = 0

    def jobs(self) -> list[str]:
        """Return the numbers of this campaign's jobs that run or wait."""
        found = self.cluster.run(["squeue", "--noheader", "--format=%i|%Z"], check=False).stdout.splitlines()
        here = str(self.folder.resolve())
        return [line.split("|")[0] for line in found if line.partition("|")[2] == here]

    def start(self) -> None:
        """Start the driver; where jobs of a killed one live, see that it refuses, then end them or wait for them."""
        if self.jobs():
            super().start()
            code = self.wait(60)
            if code == 0 or code is None:
                return  # they had ended in the meantime
            self.refused += 1
            if self.starts % 2:
                self.cluster.run(["scancel", *self.jobs()], check=False)
            while self.jobs():
                self.look()
                time.sleep(0.3)
        super().start()


def on_cluster(root: Path, options: argparse.Namespace, n: int, expected: dict[str, Any], tally: Any) -> None:
    """Torment campaigns on a cluster until there were ``n`` interruptions more."""
    from chaos import bag, count, keep_if_wrong, raw_of, torment

    rng = random.Random(options.seed + 1)  # noqa: S311 - a draw of faults, not a secret
    with SlurmCluster(accounting=why_not(accounting=True) is None) as cluster:
        draw = bag(faults_of(cluster), rng)
        target = tally.interruptions + n
        while tally.interruptions < target:
            campaign = ClusterCampaign(
                root / f"slurm_{tally.campaigns}", raw_of(options), prefix=cluster.command, arguments=OPTIONS
            )
            campaign.cluster = cluster
            torment(campaign, draw, min(options.hits, target - tally.interruptions), options.pause_s, rng, tally)
            tally.starts["Slurm"] += campaign.starts
            tally.refused += campaign.refused
            count(campaign, expected, tally)
            keep_if_wrong(campaign, tally, options)
            cluster.run(["scancel", "--user=root"], check=False)
        sys.stderr.write(f"cluster with {'cgroups' if cluster.layout.cgroups else 'no cgroups'}\n")


def faults_of(cluster: SlurmCluster) -> list[Fault]:
    """Return what can befall a campaign on this cluster."""

    def scancel(campaign: Campaign, rng: random.Random) -> str:
        """A job is cancelled by hand."""
        return _job(campaign, rng, [])

    def slurm_time_limit(campaign: Campaign, rng: random.Random) -> str:
        """A job's processes get SIGTERM, as before the wall-time limit."""
        return _job(campaign, rng, ["--signal=TERM"])

    def node_down(campaign: Campaign, rng: random.Random) -> str:
        """A node loses power, and comes back."""
        node = rng.choice(cluster.layout.cpu_nodes)
        cluster.node_down(node)
        campaign.wait(rng.uniform(2, 14))
        cluster.node_up(node)
        return node.split("-")[0]

    def controller_restart(campaign: Campaign, rng: random.Random) -> str:
        """slurmctld is away for some seconds."""
        seconds, crash = rng.uniform(1, 12), rng.random() < 1 / 2
        cluster.stop_controller(crash=crash)
        campaign.wait(seconds)
        cluster.start_controller()
        return f"{seconds:.0f} s{', killed' if crash else ''}"

    def accounting_restart(campaign: Campaign, rng: random.Random) -> str:
        """slurmdbd is away for some seconds."""
        seconds = rng.uniform(1, 10)
        cluster.stop_accounting()
        campaign.wait(seconds)
        cluster.start_accounting()
        return f"{seconds:.0f} s"

    def interrupt_driver(campaign: Campaign, rng: random.Random) -> str:
        """Ctrl-C in the terminal: the jobs are cancelled."""
        campaign.end_driver(signal.SIGINT, with_jobs=True)
        campaign.wait(60)
        return "Ctrl-C"

    def _job(campaign: Campaign, rng: random.Random, arguments: list[str]) -> str:
        end = time.monotonic() + 8
        while time.monotonic() < end and campaign.is_running:
            jobs = campaign.jobs()  # type: ignore[attr-defined]
            if jobs:
                chosen = rng.choice(jobs)
                cluster.run(["scancel", *arguments, chosen], check=False)
                return f"job {chosen}"
            time.sleep(0.1)
        return "no job at work"

    found: list[Fault] = [scancel, slurm_time_limit, node_down, controller_restart, interrupt_driver]
    found += [kill_driver, kill_job, truncated_hdf5, clock_skew]
    return [*found, accounting_restart] if cluster.layout.accounting else found
