"""Stages import what they need and no more: importing torch takes a job longer than most of them run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "e3nn", "pyscf", "ase", "pandas", "altair", "vl_convert", "snakemake")
NETWORK = {"train_ensemble", "fit_uncertainty"}
STAGES = sorted(path.stem for path in (ROOT / "src" / "dubito" / "stages").glob("[a-z]*.py"))


def heavy_after(code: str, *arguments: str) -> set[str]:
    """Return the heavy packages that a new process has loaded after some code."""
    tail = f"\nimport json, sys\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code + tail, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("stage", STAGES)
def test_importing_a_stage(stage: str) -> None:
    allowed = {"torch"} if stage in NETWORK else set()
    assert heavy_after(f"import dubito.workflow.stage, dubito.stages.{stage}") <= allowed


def test_planning_imports_no_torch() -> None:
    assert heavy_after("import dubito.workflow.resources, dubito.workflow.campaign") == set()


SELECT = """
import sys
from pathlib import Path
import numpy as np
from dubito.config.sanity import SanityConfig
from dubito.config.selection import SelectionConfig
from dubito.data.store import write_structures
from dubito.data.structures import Structures
from dubito.stages import select_batch
folder = Path(sys.argv[1])
x = np.random.default_rng(0).normal(scale=0.1, size=(20, 4, 3)) + [[0, 0, 0], [0.9, 0, 0], [0, 0.9, 0], [0, 0, 0.9]]
pool = Structures.build([[7, 1, 1, 1]] * 20, list(x))
write_structures(folder / "c.h5", pool, predictions={"toy": {"forces_uncertainty": np.ones((80, 3))}})
select_batch.run(candidates=folder / "c.h5", dataset=None, selected=folder / "s.h5", manifest=folder / "m.json",
    rejected=folder / "r.csv", selection=SelectionConfig(), sanity=SanityConfig(), method="toy",
    structures_per_shard=8, remaining_labels=None, seed=1, iteration=1)
"""

LABEL = (
    SELECT
    + """
from dubito.config.labelling import LabellingConfig
from dubito.stages import build_dataset, label_structures
from dubito.config.data import DataConfig
labelling = LabellingConfig(labeller={"kind": "teacher"})
label_structures.run(selected=folder / "s.h5", shard=0, structures_per_shard=99, output=folder / "l.h5",
    report=folder / "l.json", cache=folder / "cache", labelling=labelling, threads=1)
build_dataset.run(previous=None, manifest=folder / "m.json", shards=[folder / "l.h5"], output=folder / "d.h5",
    data=DataConfig(allow_model_labels=True), seed=1, iteration=0)
"""
)


@pytest.mark.parametrize("code", [SELECT, LABEL], ids=["select", "label"])
def test_running_a_stage_without_network(tmp_path: Path, code: str) -> None:
    assert not heavy_after(code, str(tmp_path)) & {"torch", "e3nn", "pyscf", "pandas", "snakemake"}
