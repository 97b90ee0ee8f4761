"""`snakemake -n` works from nothing, with every example, and says clearly what is wrong with a configuration."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "config" / "examples").glob("*.yaml"))


@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES])
def test_every_example_dry_runs(campaign: Callable, name: str) -> None:
    one = campaign(name)
    jobs = one.jobs_of_dry_run()
    assert {"select_batch", "train_ensemble", "decide", "publish_report", "all"} <= jobs
    assert ("prepare_reference" in jobs) == bool(one.raw["evaluation"]["profiles"])
    assert not (one.folder / "results").exists(), "a dry run writes nothing"


def test_groups_of_members_become_jobs(campaign: Callable) -> None:
    one = campaign(training={"n_members": 5, "members_per_job": 2})
    text = one.run("-n")
    assert "train group 0" in text
    assert "train group 2" in text
    assert "train group 3" not in text


def test_a_broken_configuration_is_one_paragraph(campaign: Callable) -> None:
    one = campaign(training={"n_member": 4})
    text = one.run("--cores", "1", code=2)
    assert "campaign.yaml has 1 fault" in text
    assert "training.n_member: is not a known key. Did you mean 'n_members'?" in text
    assert "Traceback" not in text


def test_a_plug_in_may_be_called_as_it_likes(
    campaign: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = tmp_path / "site" / "dropout2-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: dropout2\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[dubito.uncertainty]\nMC-Dropout2.1 = dropout2:Dropout\n")
    monkeypatch.setenv("PYTHONPATH", str(about.parent), prepend=os.pathsep)
    one = campaign(uncertainty={"methods": ["ensemble", "MC-Dropout2.1"]})
    assert "iteration 000: fit MC-Dropout2.1" in one.run("-n")


def test_missing_files_are_named(campaign: Callable) -> None:
    one = campaign()
    one.raw["data"]["initial"] = {"kind": "files", "files": ["nowhere.xyz"]}
    one.write()
    assert "data.initial.files: nowhere.xyz does not exist" in one.run("-n", code=2)


def test_a_failed_stage_is_shown_with_its_log(campaign: Callable) -> None:
    one = campaign(labelling={"labeller": {"kind": "teacher", "potential": "double_well_ammonia"}})
    one.raw["data"]["initial"] = {"kind": "files", "files": ["water.xyz"]}
    (one.folder / "water.xyz").write_text("1\n\nO 0 0 0\n2\n\nH 0 0 0\nH 0 0 0.8\n")
    one.raw["evaluation"]["profiles"] = []
    one.write()
    text = one.run("--cores", "2", code=1)
    assert "Traceback (most" not in text
    assert "results/rehearsal/logs" in text
    assert "start the same command again" in text
