"""`dubito check --profile` against a real Slurm: what it accepts, and the faults it names before a start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dubito.testing.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.xdist_group("slurm-check")

TEACHER = Path(__file__).parents[2] / "config" / "examples" / "teacher.yaml"


def check(cluster: SlurmCluster, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the check inside the cluster."""
    command = [sys.executable, "-c", "from dubito.cli import main; main()", "check", str(TEACHER), *arguments]
    return cluster.run(command, cwd=folder, timeout=300, check=False)


def told(done: subprocess.CompletedProcess[str], level: str) -> list[str]:
    assert "Traceback" not in done.stderr, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith(f"{level}: ")]


def test_a_sound_site_is_seen_from_its_nodes(
    cluster: SlurmCluster, tmp_path: Path, profile: Callable[..., str]
) -> None:
    done = check(cluster, tmp_path, "--profile", profile(partition='"cpu"'), "--submit", "--probe", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not told(done, "fault")
    fine = "\n".join(told(done, "ok"))
    assert "partition cpu is up, 2 of 2 nodes in service" in fine
    assert "sbatch --test-only takes" in fine
    assert f"partition cpu, node {cluster.nodes[0]} sees the folder" in fine or (
        f"partition cpu, node {cluster.nodes[1]} sees the folder" in fine
    )
    assert "all nodes are this machine" in fine
    # The probe ran on a node, and its labels are where the campaign looks for them.
    assert f"on {cluster.nodes[0]} (" in done.stdout or f"on {cluster.nodes[1]} (" in done.stdout
    assert len([p for p in tmp_path.glob("results/label_cache/*/*.json") if p.name != "settings.json"]) == 2
    assert "core-hours of DFT" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].startswith("Next: run `snakemake --profile")
    assert not list(tmp_path.glob("results/.dubito-*"))
    assert not cluster.run(["squeue", "--noheader", "--name=dubito_check", "--states=PD,R"]).stdout.strip()


def test_faults_are_named_before_the_start(cluster: SlurmCluster, tmp_path: Path, profile: Callable[..., str]) -> None:
    wrong = check(cluster, tmp_path, "--profile", profile(partition='"cpuu"', account='"<your account>"'))
    assert wrong.returncode == 2
    texts = told(wrong, "fault")
    assert any("there is no partition 'cpuu'" in text and "Did you mean 'cpu'?" in text for text in texts), texts
    assert any("'account' in" in text and "not filled in" in text for text in texts), texts

    no_gpu = check(cluster, tmp_path, "--profile", profile(gpus="1", gpu_partition='"cpu"', constraint='"skylake"'))
    texts = told(no_gpu, "fault")
    assert any("train_ensemble (1 GPU)" in text or "no node of partition cpu has that" in text for text in texts), texts
    assert any("constraint 'skylake'" in text for text in texts), texts


def test_a_gpu_that_torch_does_not_see(cluster: SlurmCluster, tmp_path: Path, profile: Callable[..., str]) -> None:
    site = profile(partition='"cpu"', gpus="1", gpu_partition='"gpu"')
    done = check(cluster, tmp_path, "--profile", site, "--submit")
    (text,) = told(done, "fault")  # the cluster's GPUs lead nowhere
    assert "a GPU was given (1 asked for), but torch sees none" in text and "CUDA_VISIBLE_DEVICES is '" in text


# In one process: three runs of the command line would each start Snakemake.
ACCOUNTS = """
from dubito.cli.cluster.check_accounts import check_accounts, check_verdicts
from dubito.cli.cluster.plan import Plan, Request
from dubito.core.slurm.accounts import read_associations
from dubito.core.slurm.cluster import read_cluster

cluster = read_cluster()
for account in ("alloc1", "closed", "spent", "aloc1"):
    plan = Plan("slurm", "p/config.yaml", requests=(Request("decide", 1, mem_mb=500, runtime_min=5, account=account),))
    for finding in (*check_accounts(plan, cluster, read_associations([account])), *check_verdicts(plan)):
        print(account, finding.line())
"""


LIMITS = """
from dubito.core.slurm.limits import Job, read_site

site = read_site()
for kind in ("minutes", "mem_mb", "gpus"):
    print(kind, site.most(kind, Job()), site.by_account(None, kind, Job()))
print("submitted", site.most_submitted(Job()))
"""


def test_accounts_that_are_wrong_or_closed(cluster_with_accounting: SlurmCluster) -> None:
    cluster = cluster_with_accounting
    for words in (
        ["add", "account", "closed"],
        ["add", "user", "root", "Account=closed", "MaxSubmitJobs=0"],
        ["add", "account", "spent", "GrpTRESMins=cpu=0"],
        ["add", "user", "root", "Account=spent"],
    ):
        cluster.run(["sacctmgr", "--immediate", *words])
    lines = cluster.run([sys.executable, "-c", ACCOUNTS]).stdout.splitlines()
    said = {
        name: [line for line in lines if line.startswith(f"{name} ")] for name in ("alloc1", "closed", "spent", "aloc1")
    }
    assert all(" ok: " in line for line in said["alloc1"]) and len(said["alloc1"]) == 2, lines
    assert "closed for root (MaxSubmitJobs=0)" in said["closed"][0]
    assert "Slurm would refuse decide: AssocMaxSubmitJobLimit" in said["closed"][1]
    # Slurm takes such a job and never starts it.
    assert "closed for root (GrpTRESMins=cpu=0)" in said["spent"][0] and " ok: " in said["spent"][1]
    assert "Did you mean 'alloc1'?" in said["aloc1"][0] and "Slurm would refuse" in said["aloc1"][1]

    # Limits of the quality of service and of the partition, in the words of a real sacctmgr and scontrol.
    cluster.run(
        ["sacctmgr", "--immediate", "modify", "qos", "normal", "set", "MaxWall=00:20:00", "MaxSubmitJobsPerUser=10",
         "MaxTRESPerJob=gres/gpu=1,mem=6G"]
    )  # fmt: skip
    cluster.run(["scontrol", "update", "partitionname=cpu", "MaxMemPerNode=5000"])
    said = dict(line.split(" ", 1) for line in cluster.run([sys.executable, "-c", LIMITS]).stdout.splitlines())
    assert "amount=20, by='QOS normal (MaxWall)'" in said["minutes"], said
    assert "amount=5000, by='partition cpu (MaxMemPerNode)'" in said["mem_mb"] and "amount=6144" in said["mem_mb"], said
    assert "amount=1," in said["gpus"] and "amount=10, by='QOS normal (MaxSubmitPU)'" in said["submitted"], said
