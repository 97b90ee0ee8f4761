"""A real Slurm for the tests: one cluster per worker, started in a second, gone at the end."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dubito.testing.slurm_cluster import SlurmCluster, why_not

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "profiles" / "slurm" / "config.yaml"


def _require(*, accounting: bool = False) -> None:
    if reason := why_not(accounting=accounting):
        pytest.skip(f"no Slurm cluster here: {reason}")
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="pip install -r envs/requirements-slurm.txt")


@pytest.fixture(scope="session")
def cluster() -> Iterator[SlurmCluster]:
    """Return a cluster of two cpu nodes and one gpu node."""
    _require()
    with SlurmCluster() as running:
        yield running


@pytest.fixture
def cluster_with_accounting() -> Iterator[SlurmCluster]:
    """Return the same with slurmdbd and sacct."""
    _require(accounting=True)
    with SlurmCluster(accounting=True) as running:
        yield running


@pytest.fixture
def profile(tmp_path: Path) -> Callable[..., str]:
    """Copy the profile with other values of its variables, as its user writes them; return its folder."""

    def make(**variables: str) -> str:
        lines = PROFILE.read_text().splitlines()
        for name, value in variables.items():
            (found,) = [k for k, line in enumerate(lines) if line.startswith(f"  {name}: ")]
            lines[found] = f"  {name}: {value}"
        folder = tmp_path / "profile"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "config.yaml").write_text("\n".join(lines) + "\n")
        return str(folder)

    return make
