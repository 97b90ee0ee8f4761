"""What a cluster does to jobs, done to jobs: each fault of docs/cluster.md once, in as few workflows as possible."""

from __future__ import annotations

import datetime
import getpass
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dubito.testing.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.xdist_group("slurm-drills")

SNAKEFILE = Path(__file__).with_name("drills.smk")


@dataclass
class Drill:
    """A driver of drills.smk in a folder of its own."""

    cluster: SlurmCluster
    folder: Path
    driver: subprocess.Popen[str]

    @property
    def log(self) -> str:
        return (self.folder / "driver.log").read_text()

    @property
    def daemons(self) -> str:
        """Return what the cluster has to say when a test fails."""
        nodes = self.cluster.run(["sinfo", "--Node", "--long"], check=False).stdout
        return nodes + (self.cluster.root / "log" / "slurmctld.log").read_text()[-4000:]

    @property
    def trace(self) -> list[list[str]]:
        """Return name, attempt, what happened, Slurm id."""
        path = self.folder / "trace.txt"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def has(self, *words: str) -> bool:
        return any(line[: len(words)] == list(words) for line in self.trace)

    def slurm_id(self, name: str, attempt: int = 1) -> str:
        return next(line[3] for line in self.trace if line[:3] == [name, str(attempt), "started"])

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = 150) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert self.driver.poll() is None, f"ended before {what}:\n{self.log}"
            assert time.monotonic() < end, f"{what}: not after {timeout_s} s\n{self.trace}\n{self.log}\n{self.daemons}"
            time.sleep(0.1)


def start(cluster: SlurmCluster, folder: Path, profile: str, *arguments: str) -> Drill:
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--profile", profile,
        "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5",
        "--config", f"node={cluster.nodes[1]}", *arguments,
    ]  # fmt: skip
    env = {**cluster.env, "PATH": f"{folder / 'bin'}:{cluster.env['PATH']}"}
    with (folder / "driver.log").open("w") as log:
        driver = subprocess.Popen(cluster.command(command), cwd=folder, env=env, stdout=log, stderr=log, text=True)
    return Drill(cluster, folder, driver)


def test_each_accident_costs_the_job_one_attempt(
    cluster: SlurmCluster, tmp_path: Path, profile: Callable[..., str]
) -> None:
    site = profile(gpus="1", gpu_partition='"gpu"', gpu_rules="[on_gpu]")
    drill = start(cluster, tmp_path, site)
    try:
        _accidents(cluster, drill)
        assert drill.driver.wait(timeout=60) == 0, drill.log
    finally:
        drill.driver.kill()

    ends = {name: [int(a) for n, a, word, _ in drill.trace if (n, word) == (name, "started")] for name in _NAMES}
    twice = {"scancelled", "memory", "time", "node", "lost"}
    assert ends == {name: [1, 2] if name in twice else [1] for name in _NAMES}, drill.trace
    assert all(drill.has(name, str(ends[name][-1]), "finished") for name in _NAMES)
    # The warning ahead of the limit came through to the process that does the work, and before the end.
    assert drill.has("time", "1", "warned"), drill.trace
    assert drill.has("gpu", "1", f"{cluster.nodes[2]}:0"), drill.trace
    # Said in words, once each.
    assert drill.log.count("will not start by itself (JobHeldUser): it is held: `scontrol release") == 1
    assert drill.log.count("Slurm does not answer") == drill.log.count("Slurm answers again") == 1, drill.log
    assert drill.log.count("Slurm takes no jobs") == 1
    # Logs of Slurm are kept for the attempts that failed, and for no other.
    kept = {path.parent.name for path in (tmp_path / "results" / "slurm_logs").rglob("*.log")}
    assert kept == twice


_NAMES = ["scancelled", "memory", "time", "node", "steady", "held", "gpu", "during", "lost"]


def _accidents(cluster: SlurmCluster, drill: Drill) -> None:
    for name in ("scancelled", "memory", "time", "node", "steady"):
        drill.wait(lambda name=name: drill.has(name, "1", "started"), f"{name} runs")
    # Jobs and comments that a person can read.
    text = cluster.run(["squeue", "--noheader", "--format=%i|%j|%k|%r"]).stdout
    jobs = {line.split("|")[2]: line.split("|") for line in text.splitlines()}
    assert all(fields[1].startswith("dubito-drill_") for fields in jobs.values()), text
    assert jobs["rule_accident_wildcards_memory"]

    cluster.run(["scancel", drill.slurm_id("scancelled")])
    cluster.node_down(cluster.nodes[1])
    drill.wait(lambda: "will not start by itself" in drill.log, "the held job is named", 60)
    cluster.run(["scontrol", "release", jobs["rule_held_wildcards_held"][0]])

    # These have ended for Slurm as well: what it does during its own outage is not what is tested here.
    for name in ("scancelled", "memory"):
        drill.wait(lambda name=name: drill.has(name, "2", "started"), f"{name} is started again", 90)

    # An outage of the controller: jobs run, one ends, another is to be submitted.
    cluster.stop_controller()
    (drill.folder / "outage").touch()
    drill.wait(lambda: "Slurm takes no jobs" in drill.log and "Slurm does not answer" in drill.log, "the outage", 60)
    (drill.folder / "outage.over").touch()
    drill.wait(lambda: drill.has("steady", "1", "finished"), "a job ends during the outage", 20)
    cluster.start_controller()
    # Its limit comes nearer: Slurm takes whole minutes, and may warn as early as a minute before the time asked for.
    soon = datetime.datetime.now() + datetime.timedelta(seconds=20)
    cluster.run(["scontrol", "update", f"jobid={drill.slurm_id('time')}", f"EndTime={soon:%Y-%m-%dT%H:%M:%S}"])

    # The controller comes back without memory of its jobs.
    drill.wait(lambda: drill.has("lost", "1", "started"), "all others are done")
    cluster.stop_controller(crash=True)
    cluster.start_controller(lose_state=True)
    drill.wait(lambda: drill.has("lost", "2", "started"), "the lost job is started again", 90)
    cluster.node_up(cluster.nodes[1])


def run_to_the_end(cluster: SlurmCluster, folder: Path, profile: str, *arguments: str) -> tuple[int, str]:
    drill = start(cluster, folder, profile, *arguments)
    return drill.driver.wait(timeout=60), drill.log


def test_a_wrong_partition_is_one_paragraph(cluster: SlurmCluster, tmp_path: Path, profile: Callable[..., str]) -> None:
    code, text = run_to_the_end(cluster, tmp_path, profile(partition='"quick"'))
    assert code == 2
    assert "asks for the partition 'quick', and this cluster has: cpu, gpu." in text
    assert "Traceback" not in text
    assert not drill_jobs(cluster)


def drill_jobs(cluster: SlurmCluster) -> list[str]:
    return cluster.run(["squeue", "--noheader", "--format=%i"]).stdout.split()


# The first job that is taken is not answered for.
SBATCH = """#!/bin/sh
said=$(sbatch "$@") || exit
test -e {folder}/unanswered && echo "$said" && exit
echo "$said" > {folder}/unanswered
echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2
exit 1
"""


def test_with_accounting(cluster_with_accounting: SlurmCluster, tmp_path: Path, profile: Callable[..., str]) -> None:
    """Asked by sacct, which says `CANCELLED by 0`, through an outage of the accounting; and a limit on submitted jobs.

    In a folder whose name a shell would expand.
    """
    cluster = cluster_with_accounting
    folder = tmp_path / "a $HOME `false` folder"
    (folder / "bin").mkdir(parents=True)
    real = cluster.run(["sh", "-c", "command -v sbatch"]).stdout.strip()
    script = SBATCH.replace("$(sbatch", f"$({real}").format(folder=shlex.quote(str(folder)))
    (folder / "bin" / "sbatch").write_text(script)
    (folder / "bin" / "sbatch").chmod(0o755)
    code, text = run_to_the_end(cluster, tmp_path, profile(account='"expired"'))
    assert code == 2
    assert "gives the account 'expired'" in text and "may use: alloc1" in text, text

    limit = ["sacctmgr", "-i", "modify", "user", getpass.getuser(), "set"]
    cluster.run([*limit, "MaxSubmitJobs=0"])
    drill = start(cluster, folder, profile(account='"alloc1"'), "--slurm-status-command", "sacct", "scancelled.done")
    try:
        drill.wait(lambda: "Slurm takes no more jobs for now (AssocMaxSubmitJobLimit)" in drill.log, "the limit", 60)
        cluster.run([*limit, "MaxSubmitJobs=-1"])
        drill.wait(lambda: drill.has("scancelled", "1", "started"), "the job runs")
        cluster.stop_accounting()
        drill.wait(lambda: "Slurm does not answer (sacct)" in drill.log, "the outage", 60)
        cluster.run(["scancel", drill.slurm_id("scancelled")])
        cluster.start_accounting()
        assert drill.driver.wait(timeout=90) == 0, drill.log
    finally:
        drill.driver.kill()
    assert [line[:3] for line in drill.trace][-1] == ["scancelled", "2", "finished"]
    assert "SLURM status is: 'CANCELLED'" in drill.log
    assert "sbatch failed" not in drill.log and drill.log.count("Slurm takes no more jobs for now (Assoc") == 1
    # Without an answer, but taken: it was not submitted a second time.
    assert [line[1] for line in drill.trace if line[2] == "started"] == ["1", "2"], drill.trace
    first = (folder / "unanswered").read_text().strip()
    assert drill.slurm_id("scancelled") == first and f"took the job all the same, as {first}" in drill.log, drill.log
