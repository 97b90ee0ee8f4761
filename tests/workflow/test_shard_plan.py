"""Shards that follow from measured labels, and the device: planned once, kept, and no reason to rerun."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.util import find_spec

import pytest
from campaigns import Campaign, read_json

# These share the session's finished campaign; one worker runs them all.
pytestmark = pytest.mark.xdist_group("campaign")


def test_measured_shards_are_planned_once(campaign: Callable) -> None:
    one: Campaign = campaign(labelling={"structures_per_shard": "auto"})
    one.run("--cores", "2", "results/rehearsal/iter_001/dataset.h5")
    first, second = (read_json(one.results / f"iter_00{k}" / "selection.json") for k in (0, 1))
    # Nothing is known of the first batch; the teacher's labels cost nothing, so that one job makes the second.
    assert first["sharding"] == {"structures_per_shard": 8, "chosen_by": "default"}
    assert second["sharding"]["chosen_by"] == "measured"
    assert 0 < second["sharding"]["seconds_per_structure"] < 0.1
    assert (second["n_shards"], second["sharding"]["places"]) == (1, 2)
    before = one.selections()
    # Labels that are lost are made again in the jobs that were planned, whatever is configured meanwhile.
    shutil.rmtree(one.results / "iter_001" / "labels")
    (one.results / "iter_001" / "dataset.h5").unlink()
    one.write(labelling={"structures_per_shard": 2})
    one.run("--cores", "2", "results/rehearsal/iter_001/dataset.h5")
    assert one.selections() == before
    assert [p.name for p in (one.results / "iter_001" / "labels").glob("*.h5")] == ["shard_000.h5"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_another_device_reruns_nothing(finished: Campaign, device: str) -> None:
    before = dict(finished.raw)
    try:
        finished.write(resources={"device": device})
        assert finished.jobs_of_dry_run() == set()
    finally:
        finished.raw = before
        finished.raw.pop("resources", None)
        finished.write()


def test_a_missing_gpu_is_told(campaign: Callable) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    one: Campaign = campaign(campaign={"max_iterations": 0}, resources={"device": "cuda"})
    text = one.run("--cores", "2", "results/rehearsal/iter_000/ensemble.safetensors", code=1)
    assert "resources.device is 'cuda', but PyTorch sees no GPU here" in text
    assert "Traceback (most" not in text
    failed = one.events(event="failed", stage="train_ensemble")
    assert failed and failed[-1]["gpu_s"] == pytest.approx(failed[-1]["wall_s"], abs=0.01)


@pytest.mark.skipif(find_spec("cupy") is not None, reason="cupy may find a GPU here")
def test_labels_for_a_gpu_ask_for_one(campaign: Callable) -> None:
    labeller = {"kind": "pyscf", "basis": "sto-3g", "device": "gpu"}
    one: Campaign = campaign("water_tiny", labelling={"labeller": labeller, "structures_per_shard": 8})
    text = one.run("--cores", "1", "results/water_tiny/iter_000/labels/shard_000.h5", code=1)
    assert "labelling.labeller.device asks for a GPU" in text
    failed = one.events(event="failed", stage="label_structures")
    assert failed and failed[-1]["gpu_s"] == pytest.approx(failed[-1]["wall_s"], abs=0.01)


def test_another_device_of_the_labeller_reruns_no_label_and_other_settings_do(campaign: Callable) -> None:
    labels = "results/water_tiny/iter_000/labels/shard_000.h5"
    labeller = {"kind": "pyscf", "basis": "sto-3g", "grid_level": 1}
    one: Campaign = campaign("water_tiny", labelling={"labeller": labeller, "structures_per_shard": 8})
    one.run("--cores", "1", labels)
    for changed, text in ({"device": "auto"}, "Nothing to be done"), ({"early_abort": False}, "label_structures"):
        one.write(labelling={"labeller": labeller | changed})
        assert text in one.run("-n", labels, "--quiet", "reason"), changed


@pytest.mark.parametrize("look", ["--rulegraph", "--summary"])
def test_looking_at_a_campaign_takes_no_cores(finished: Campaign, look: str) -> None:
    assert "label_structures" in finished.run(look)


def test_a_batch_may_have_more_than_a_thousand_shards(campaign: Callable) -> None:
    one: Campaign = campaign()
    assert "label shard 1000" in one.run("-n", "results/rehearsal/iter_000/labels/shard_1000.h5")
