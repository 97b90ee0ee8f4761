"""A whole campaign with an analytic potential in place of DFT."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from campaigns import Campaign, read_json

from dubito.config import parse_config
from dubito.data.store import read_structures

SUMMARY = {
    "state": str,
    "reason": str,
    "iterations": int,
    "labels": {"done", "failed", "reused"},
    "force_rmse_ev_per_angstrom": float,
    "miss_rate": {"value", "low", "high", "tolerance_ev_per_angstrom", "risk"},
    "cost": {"cpu_hours", "gpu_hours", "dft_cpu_hours"},
    "physics": {"inversion_barrier_error_ev"},
}

# These share the session's finished campaign; one worker runs them all.
pytestmark = pytest.mark.xdist_group("campaign")


@pytest.fixture
def edited(finished: Campaign) -> Iterator[Campaign]:
    """The finished campaign, whose configuration a test may change for a dry run."""
    before = yaml.safe_dump(finished.raw)
    yield finished
    finished.raw = yaml.safe_load(before)
    finished.write()


def test_it_takes_less_than_a_minute(finished: Campaign) -> None:
    # Processor time, since test machines are shared: on an idle one the wall time is less than that.
    assert sum(event["cpu_s"] for event in finished.events(event="finished")) < 60


def test_one_sees_where_it_stands(finished: Campaign) -> None:
    shown = (finished.folder / "driver.log").read_text().splitlines()
    own = [line for line in shown if line.startswith("[rehearsal ")]
    for stage in ("label_structures 000", "train_ensemble 0", "explore_structures 0", "evaluate", "decide"):
        assert any(line.startswith("[rehearsal 1/1]") and stage in line for line in own), stage
    # The report of an iteration is written while the campaign goes on.
    order = [line.split("]")[0] + line.split("]")[1].split()[0] for line in own]
    assert order.index("[rehearsal 0/1write_report") < order.index("[rehearsal 1/1train_ensemble")
    assert len(shown) - len(own) < 12, "Snakemake's chatter is hushed"
    assert "Report: results/rehearsal/report/index.html" in shown
    assert shown[-1].startswith("Next: ")


def test_summary_has_its_keys(finished: Campaign) -> None:
    summary = read_json(finished.results / "summary.json")
    for key, shape in SUMMARY.items():
        if isinstance(shape, set):
            assert shape <= set(summary[key]), key
        else:
            assert isinstance(summary[key], shape), key
    assert summary["state"] == "max_iterations"
    assert summary["iterations"] == 2
    assert len(summary["physics"]["inversion_barrier_error_ev"]) == 2
    assert summary["cost"]["cpu_hours"] > 0


def test_every_selected_structure_is_labelled_or_reported(finished: Campaign) -> None:
    total = 0
    for folder in sorted(finished.results.glob("iter_*")):
        manifest = read_json(folder / "selection.json")
        reports = [read_json(path) for path in sorted(folder.glob("labels/*.json"))]
        done = sum(report["done"] for report in reports)
        assert done + sum(len(report["failed"]) for report in reports) == manifest["n_selected"]
        total += done
        dataset = read_structures(folder / "dataset.h5")
        assert len(dataset) == total
        assert dataset.is_labelled.all()
        assert set(dataset.text("provenance/kind")) == {"reference"}
    assert read_json(finished.results / "summary.json")["labels"]["done"] == total


def test_control_structures_are_not_trained_on_in_their_iteration(finished: Campaign) -> None:
    for folder in sorted(finished.results.glob("iter_*"))[1:]:
        dataset = read_structures(folder / "dataset.h5")
        manifest = read_json(folder / "selection.json")
        control = {i for i, reason in zip(manifest["ids"], manifest["reasons"], strict=True) if reason == "control"}
        assert control
        held = {i for i, split in zip(dataset.ids, dataset.text("origin/split"), strict=True) if split == "control"}
        assert held == control & set(dataset.ids)


def test_the_resolved_configuration_is_kept(finished: Campaign) -> None:
    kept = yaml.safe_load((finished.results / "config.yaml").read_text())
    assert parse_config(kept) == parse_config(finished.raw)


def test_a_second_run_does_nothing(finished: Campaign) -> None:
    before = finished.events()
    assert "Nothing to be done" in finished.run()
    assert finished.events() == before
    assert not (finished.results / "state" / "driver.json").exists()


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("labelling", {"structures_per_shard": 2}, {"decide", "write_report", "publish_report", "all"}),
        ("campaign", {"max_labels": 500}, {"decide", "write_report", "publish_report", "all"}),
        ("report", {"title": "A title"}, {"write_report", "publish_report", "all"}),
        ("selection", {"risk": 0.2}, {"evaluate", "decide", "write_report", "publish_report", "all"}),
        ("training", {"checkpoint_every_epochs": 7}, {"write_report", "publish_report", "all"}),
        ("training", {"members_per_job": 3}, {"write_report", "publish_report", "all"}),
    ],
)
def test_what_a_change_reruns(edited: Campaign, section: str, values: dict[str, Any], expected: set[str]) -> None:
    edited.write(**{section: values})
    jobs = edited.jobs_of_dry_run()
    assert jobs <= expected
    assert not jobs & {"label_structures", "train_ensemble", "explore_structures", "select_batch"}


def test_another_selection_or_training_is_still_made(edited: Campaign) -> None:
    edited.write(selection={"min_score": 0.001})
    assert "select_batch" in edited.jobs_of_dry_run()
    edited.write(selection={"min_score": 0.0}, training={"max_epochs": 26})
    assert "train_ensemble" in edited.jobs_of_dry_run()


def test_another_campaign_of_the_folder_finds_the_labels(finished: Campaign, campaign: Callable) -> None:
    other = campaign(campaign={"name": "other"})
    shutil.copytree(finished.folder / "results" / "label_cache", other.folder / "results" / "label_cache")
    shard = "iter_000/labels/shard_000.json"
    other.run("--cores", "2", f"results/other/{shard}")
    report = read_json(other.results / shard)
    assert report["reused"] == report["done"] > 0


def test_another_network_is_trained_again_with_the_old_labels(edited: Campaign) -> None:
    edited.write(model={"n_features": 4})
    jobs = edited.jobs_of_dry_run()
    assert "train_ensemble" in jobs
    assert not jobs & {"prepare_structures", "prepare_reference"}


def test_status_and_prediction_of_the_final_model(finished: Campaign) -> None:
    assert "max_iterations" in finished.dubito("status", "--config", "campaign.yaml")
    model, selected = "results/rehearsal/iter_001/ensemble.safetensors", "results/rehearsal/iter_001/selected.h5"
    shown = finished.dubito("predict", model, selected, "-o", "predicted.xyz")
    assert "force uncertainty of the worst atom" in shown
    import ase.io

    first = ase.io.read(finished.folder / "predicted.xyz", index=0)
    assert first.info["dubito_energy_uncertainty"] > 0
    assert first.arrays["dubito_forces"].shape == (4, 3)
    assert first.arrays["dubito_forces_uncertainty"].shape == (4, 3)


def test_the_report_can_be_written_again(finished: Campaign) -> None:
    report = finished.results / "report" / "index.html"
    before = report.stat()
    shown = finished.dubito("report", "campaign.yaml")
    assert "Next: open results/rehearsal/report/index.html" in shown
    assert report.stat().st_mtime_ns > before.st_mtime_ns
    assert finished.jobs_of_dry_run() == set()


def test_labelled_files_that_change_are_looked_up_again(finished: Campaign, campaign: Callable) -> None:
    one = campaign(folder="looked_up", campaign={"max_iterations": 0})
    shutil.copy(finished.results / "iter_000" / "dataset.h5", one.folder / "labels.h5")
    one.raw["data"]["initial"] = {"kind": "files", "files": ["start.h5"]}
    one.raw["labelling"]["labeller"] = {"kind": "dataset", "files": ["labels.h5"]}
    one.raw["evaluation"]["profiles"] = []
    one.write()
    shutil.copy(one.folder / "labels.h5", one.folder / "start.h5")
    shard = "results/rehearsal/iter_000/labels/shard_000.h5"
    one.run("--cores", "2", shard)
    assert "Nothing to be done" in one.run("-n", shard)
    shutil.copy(finished.results / "iter_001" / "dataset.h5", one.folder / "labels.h5")
    later = (one.results / "iter_000" / "labels" / "shard_000.h5").stat().st_mtime + 10
    os.utime(one.folder / "labels.h5", (later, later))
    assert "label shard 000" in one.run("-n", shard)


def test_the_same_seed_selects_the_same_elsewhere(finished: Campaign, campaign: Callable) -> None:
    again = campaign()
    again.run("--cores", "2", "results/rehearsal/iter_001/selection.json")
    mine, theirs = again.selections(), finished.selections()
    assert set(mine) == {"iter_000", "iter_001"}
    for name, manifest in mine.items():
        assert manifest == theirs[name], name
