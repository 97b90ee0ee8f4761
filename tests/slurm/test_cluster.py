"""The test cluster itself: up in seconds, gone without a trace, however it ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dubito.core.errors import EnvironmentFault
from dubito.testing import slurm_machine
from dubito.testing.slurm_cluster import SlurmCluster, why_not
from dubito.testing.slurm_machine import processes_of

pytestmark = [
    pytest.mark.xdist_group("slurm-drills"),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]


def cgroups(cluster: SlurmCluster) -> list[Path]:
    return [path for node in cluster.nodes for path in Path("/sys/fs/cgroup").glob(f"*/slurm_{node}")]


def test_two_side_by_side_and_nothing_is_left() -> None:
    before = sorted(Path("/etc/slurm").iterdir())
    begin = time.monotonic()
    with SlurmCluster() as one, SlurmCluster(cpu_nodes=1, gpu_nodes=0) as two:
        assert time.monotonic() - begin < 20
        assert sorted(Path("/etc/slurm").iterdir()) == before
        for cluster in (one, two):
            cluster.run(["sbatch", "--output=/dev/null", "--wrap", "trap '' TERM; sleep 600"])
        assert len(one.run(["sinfo", "--noheader", "--Node"]).stdout.splitlines()) == 3
        assert one.run(["srun", "--partition=gpu", "--gpus=1", "hostname"], cwd="/").stdout.strip() == one.nodes[2]
        two.stop()
        assert not processes_of(two.root)
        assert one.run(["squeue", "--noheader"]).stdout.strip()
    assert not processes_of(one.root) and not one.root.exists()
    assert not cgroups(one) and not cgroups(two)


def test_a_start_that_fails_half_way_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = SlurmCluster()
    monkeypatch.setattr(cluster, "_is_idle", lambda: False)
    with pytest.raises(EnvironmentFault, match=r"its nodes are not idle(.|\n)*slurmctld.log"):
        cluster.start(wait_s=0.5)
    assert not processes_of(cluster.root) and not cgroups(cluster)
    shutil.rmtree(cluster.root)


def test_it_goes_down_with_its_owner(tmp_path: Path) -> None:
    code = (
        "import os; from dubito.testing.slurm_cluster import SlurmCluster; c = SlurmCluster(gpu_nodes=0); c.start(); "
        "print(c.root, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    root = Path(done.stdout.strip())
    end = time.monotonic() + 20
    while processes_of(root) and time.monotonic() < end:
        time.sleep(0.2)
    assert root.is_dir() and not processes_of(root)
    shutil.rmtree(root)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_machine, "PATH", "/nowhere")
    assert "apt-get install slurm-wlm slurm-wlm-basic-plugins munge" in str(why_not())
    assert "mariadb-server" in str(why_not(accounting=True))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "as root" in str(why_not())
    with pytest.raises(EnvironmentFault, match=r"No Slurm cluster can be started here: .* as root"):
        SlurmCluster("/run/never").start()
    with pytest.raises(EnvironmentFault, match="longer than 60 characters"):
        SlurmCluster("/" + "x" * 80)
