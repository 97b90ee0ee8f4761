"""`snakemake study_label_savings`, end to end with settings this small and an analytic potential for DFT."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dubito.workflow.targets import asks_for_study

ROOT = Path(__file__).parents[2]
TINY: dict[str, Any] = {
    "n_seeds": 1,
    "selectors": ["lcmd"],
    "pools": {"acac": {"labels": [4, 6]}, "ammonia_rare": {"labels": [4, 6], "r_max_angstrom": 4.0}},
    "ammonia": {
        "n_thermal": 18, "n_rare": 2, "n_test_uniform": 3, "n_test_thermal": 2, "labeller": {"kind": "teacher"},
    },
    "model": {"l_max": 1, "n_layers": 1, "n_features": 4, "radial_hidden": [8], "n_latent": 4},
    "n_members": 2, "n_steps": 8, "n_resamples": 20,
}  # fmt: skip


def snakemake(folder: Path, *arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1"]
    more = ["--config", "settings=study.yaml", "data_folder=nowhere"]
    done = subprocess.run(
        [*command, *arguments, "study_label_savings", *more],
        cwd=folder, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def write(folder: Path, **more: Any) -> None:
    (folder / "study.yaml").write_text(yaml.safe_dump(TINY | more))


def test_a_study_runs_resumes_and_needs_no_campaign(tmp_path: Path) -> None:
    write(tmp_path)
    said = snakemake(tmp_path)
    assert "acac: skipped, there is no folder acac in the data folder nowhere" in said
    results = tmp_path / "results" / "studies" / "label_savings"
    summary = json.loads((results / "summary.json").read_text())
    assert (summary["finished_cells"], summary["cells"]) == (2, 4)
    assert set(summary["savings"]) == {"ammonia_rare.lcmd"}
    # Nothing of a campaign: no configuration is asked for, no folder made.
    assert {path.name for path in (tmp_path / "results").iterdir()} <= {"studies", "label_cache"}
    cells = sorted(results.glob("cells/*/*/*.json"))
    made = {path: path.stat().st_mtime_ns for path in cells}
    # Stopped before its end: one campaign is missing, and with it the summary.
    cells[0].unlink()
    (results / "summary.json").unlink()
    snakemake(tmp_path)
    again = {path: path.stat().st_mtime_ns for path in cells}
    assert again[cells[0]] != made[cells[0]]
    assert again[cells[1]] == made[cells[1]]


def test_a_campaign_named_like_a_study_is_a_campaign(tmp_path: Path) -> None:
    """It said 'Nothing to be done'; now its configuration is read, and found wanting."""
    (tmp_path / "study_ammonia.yaml").write_text("campaign: {nmae: x}\n")
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1", "-n",
         "--configfile", "study_ammonia.yaml"],
        cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "nmae" in done.stdout + done.stderr


def test_a_study_without_any_data_names_the_folder(tmp_path: Path) -> None:
    write(tmp_path, pools={"acac": {"labels": [4, 6]}})
    said = snakemake(tmp_path, code=2)
    assert "No campaign of the study can run, since the data folder nowhere, which is no folder" in said
    assert "Let the study run on" not in said
    assert "Traceback" not in said


def test_other_settings_make_the_cells_anew_and_a_fault_in_them_is_one_paragraph(tmp_path: Path) -> None:
    write(tmp_path)
    assert "study_label_savings_cell" in snakemake(tmp_path, "-n")
    write(tmp_path, n_steps=0)
    said = snakemake(tmp_path, "-n", code=2)
    assert "study.yaml has 1 fault" in said
    assert "n_steps" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "study"),
    [
        (["--cores", "1", "study_label_savings"], True),
        (["--target-jobs", "study_label_savings_cell:pool=acac,selector=lcmd,seed=0"], True),
        (["results/studies/label_savings/cells/acac/lcmd/0.json"], True),
        (["--cores", "2"], False),
        (["--configfile", "config/studies/label_savings.yaml"], False),
        (["results/ammonia/report/index.html"], False),
        (["./results/studies/label_savings/summary.json"], True),
        (["results/../results/studies//label_savings/summary.json"], True),
        (["--config", "folder=results/mine", "--", "./results/mine/summary.json"], True),
        (["results/mine/summary.json"], False),
        (["--forcerun", "study_label_savings_cell"], True),
        # Campaigns whose files are named like a study.
        (["--cores", "1", "--configfile", "study_ammonia.yaml"], False),
        (["--configfile=study_ammonia.yaml"], False),
        (["-d", "study_1"], False),
        (["--report", "study_report.html"], False),
        (["-d", "study_label_savings"], False),
        (["-d", "study_1", "study_label_savings"], True),
        (["study_2"], False),
        (["results/studies/label_savings_of_mine/report/index.html"], False),
    ],
)
def test_what_asks_for_a_study(arguments: list[str], study: bool) -> None:
    assert asks_for_study(arguments) is study
