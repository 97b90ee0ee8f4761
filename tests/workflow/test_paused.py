"""A campaign whose labels fail: it goes on without a few, pauses without many, and is resumed by one command."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from campaigns import Campaign, read_json

from dubito.config.labelling import TeacherConfig
from dubito.data.store import read_structures
from dubito.labelling.service import label_structures
from dubito.labelling.teacher import TeacherLabeller

pytestmark = pytest.mark.xdist_group("campaign")


def teacher(share: float) -> dict[str, Any]:
    labeller = {"kind": "teacher", "potential": "double_well_ammonia", "failing_fraction": share}
    return {"labeller": labeller, "structures_per_shard": 4}


def expected_failures(campaign: Campaign, iteration: int, share: float) -> set[str]:
    """Return the structures of a batch that this share makes fail."""
    selected = read_structures(campaign.results / f"iter_{iteration:03d}" / "selected.h5")
    _, report = label_structures(selected, TeacherLabeller(TeacherConfig(kind="teacher", failing_fraction=share)), None)
    return {one["id"] for one in report["failed"]}


def finished_labels(campaign: Campaign) -> dict[str, tuple[int, bytes]]:
    return {name: label for name, label in campaign.labels().items() if b'"kind": "label"' in label[1]}


def test_a_pause_for_want_of_labels_and_a_campaign_that_loses_a_third(campaign: Callable) -> None:
    """With 95 % failing there is nothing to train on; with 30 % the campaign goes to its end, and shows them."""
    one: Campaign = campaign(
        campaign={"max_iterations": 1},
        data={"initial": {"kind": "rattle", "molecule": "NH3", "n_structures": 12, "displacement_angstrom": 0.05}},
        training={"max_epochs": 4, "early_stopping_epochs": 4},
        labelling=teacher(0.95),
        evaluation={"profiles": []},
    )
    text = one.run(code=1)
    assert text.count("could not be labelled (scf_not_converged") >= 1
    said = [line for line in text.splitlines() if line.startswith("rehearsal: paused.")]
    assert len(said) == 1
    assert "type `dubito retry`" in said[0]
    assert "RuleException" not in text
    assert "Traceback" not in text
    summary = read_json(one.results / "summary.json")
    assert summary["state"] == "paused"
    assert summary["reason"] in said[0]
    assert summary["labels"]["failed"] == 12 - summary["labels"]["done"] > 10
    assert "paused" in one.dubito("status", "--config", "campaign.yaml")
    assert not (one.results / "iter_000" / "dataset.h5").exists()
    kept, batch = finished_labels(one), one.selections()

    # Nothing has changed: it is paused again, and nothing is computed.
    made = one.labels()
    one.run(code=1)
    assert one.labels() == made
    assert read_json(one.results / "summary.json")["state"] == "paused"

    # The cause is mended, mostly: one command, and the start as before.
    one.write(labelling=teacher(0.3))
    assert "tried again" in one.dubito("retry", "--config", "campaign.yaml")
    assert read_json(one.results / "summary.json")["state"] == "running"
    one.run()
    summary = read_json(one.results / "summary.json")
    assert summary["state"] == "max_iterations"
    assert one.selections()["iter_000"] == batch["iter_000"]
    for name, label in kept.items():
        assert one.labels()[name] == label, "a finished label was made again"
    total, page = 0, (one.results / "report" / "index.html").read_text()
    for k in (0, 1):
        failed = expected_failures(one, k, 0.3)
        selected = read_structures(one.results / f"iter_{k:03d}" / "selected.h5")
        reports = [read_json(path) for path in one.results.glob(f"iter_{k:03d}/labels/*.json")]
        assert {entry["id"] for report in reports for entry in report["failed"]} == failed
        total += len(failed)
        dataset = read_structures(one.results / f"iter_{k:03d}" / "dataset.h5")
        assert set(selected.ids) - failed == set(dataset.ids) & set(selected.ids)
        assert np.isfinite(dataset.forces).all()
        assert all(name[:8] in page for name in failed), "the report shows each failure"
    assert "scf not converged" in page
    assert summary["labels"]["failed"] == total > 0
    assert 0.4 < summary["labels"]["done"] / (summary["labels"]["done"] + total) < 0.95
    rows = one.dubito("status", "--config", "campaign.yaml")
    assert "failed" in rows
    assert "Nothing to be done" in one.run()


def test_a_later_iteration_pauses_cleanly_and_goes_on(finished: Campaign, campaign: Callable) -> None:
    one: Campaign = campaign(campaign={"max_iterations": 2}, labelling=teacher(1.0))
    for name in ("results", ".snakemake"):
        shutil.copytree(finished.folder / name, one.folder / name)
    before = {p: p.stat().st_mtime_ns for k in (0, 1) for p in one.results.glob(f"iter_00{k}/*.h5")}
    text = one.run()
    assert "rehearsal: paused. None of the" in text
    summary = read_json(one.results / "summary.json")
    assert (summary["state"], summary["labels"]["failed"]) == ("paused", 6 + 2)
    assert "Nothing to be done" in one.run()
    assert "dubito retry" in one.dubito("status", "--config", "campaign.yaml")
    batch = one.selections()

    one.write(labelling=teacher(0.0))
    said = one.dubito("retry", "--config", "campaign.yaml")
    assert "8 failed labels will be tried again" in said
    assert "snakemake --cores 2 --configfile campaign.yaml" in said.splitlines()[-1]
    one.run()
    summary = read_json(one.results / "summary.json")
    assert (summary["state"], summary["labels"]["failed"]) == ("max_iterations", 0)
    assert one.selections() == batch, "the batch is labelled, not selected anew"
    assert {path: path.stat().st_mtime_ns for path in before} == before, "earlier iterations stay as they are"
    assert len(read_structures(one.results / "iter_002" / "dataset.h5")) == 8 + 8 + 8
    assert "Nothing to be done" in one.run()
