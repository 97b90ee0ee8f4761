"""`dubito retry`: failed labels are taken back, finished ones and everything before them stay."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubito.cli.retrying import retry
from dubito.config.labelling import LabellingConfig, TeacherConfig
from dubito.core.errors import CampaignPaused, DataError, EnvironmentFault
from dubito.core.files import read_json, write_json
from dubito.core.locks import process_start
from dubito.core.progress import read
from dubito.data.store import write_structures
from dubito.labelling.base import Label
from dubito.labelling.cache import Failure, LabelCache
from dubito.labelling.teacher import TeacherLabeller
from dubito.reporting.pause import end_pause, paused_because, write_pause
from dubito.stages import label_structures
from dubito.testing.structures import rattled

CONFIG = {"selection": {"force_tolerance_ev_per_angstrom": 0.3, "risk": 0.05}}
NINE = rattled(9, molecules="ammonia")
# Made of the labels of an iteration, and what it began with.
MADE = ("dataset.h5", "metrics.json", "decision.json", "members/group_0.safetensors", "predictions/profile_x.h5")
BEFORE = ("candidates.h5", "pool/job_0.h5", "scores/ensemble.h5", "predictions/batch.h5", "notes.txt")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A campaign of one iteration, paused: of three shards the last two hold failures."""
    monkeypatch.chdir(tmp_path)
    where = Path("results/toy")
    batch(where, 0, 0.6)
    for name in (*MADE, *BEFORE):
        path = where / "iter_000" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    write_pause(where, CampaignPaused("Too few.", iteration=0, labels={"failed": 6}), CONFIG)
    return where


def batch(where: Path, k: int, share: float) -> None:
    """Label a batch of nine in three jobs."""
    iteration = where / f"iter_{k:03d}"
    iteration.mkdir(parents=True)
    order = sorted(range(9), key=lambda i: NINE.ids[i] in FAILING)
    structures = NINE[order].with_columns(origin__iteration=k)
    write_structures(iteration / "selected.h5", structures)
    write_json(iteration / "selection.json", {"n_shards": 3, "ids": structures.ids, "iteration": k})
    for shard in range(3):
        label(where, k, shard, share)


def label(where: Path, k: int, shard: int, share: float) -> dict[str, Any]:
    output = where / f"iter_{k:03d}" / "labels" / f"shard_{shard:03d}.h5"
    label_structures.run(
        selected=where / f"iter_{k:03d}" / "selected.h5",
        shard=shard,
        structures_per_shard=3,
        output=output,
        report=output.with_suffix(".json"),
        cache=Path("results/label_cache"),
        labelling=LabellingConfig(labeller=TeacherConfig(kind="teacher", failing_fraction=share)),
        threads=1,
    )
    report: dict[str, Any] = read_json(output.with_suffix(".json"))
    return report


def failing(share: float) -> set[str]:
    from dubito.labelling.service import label_structures as service

    _, report = service(NINE, TeacherLabeller(TeacherConfig(kind="teacher", failing_fraction=share)), None)
    return {one["id"] for one in report["failed"]}


FAILING = failing(0.6)


def names(where: Path) -> set[str]:
    return {str(path.relative_to(where)) for path in where.rglob("*") if path.is_file()}


def cached() -> dict[str, bytes]:
    cache = Path("results/label_cache")
    files = [*cache.glob("*/*.json"), *cache.glob("*/failures/*.json")]
    return {path.stem: path.read_bytes() for path in files if path.stem != "settings"}


def test_the_batch_used_here_is_split_as_it_should_be(folder: Path) -> None:
    assert 4 <= len(FAILING) <= 6, "the first shard is sound, the last one is not"


def test_failures_are_taken_back_and_labels_stay(folder: Path) -> None:
    before, labels = names(folder / "iter_000"), cached()
    lines = retry("toy", iteration=None, reasons=[])
    assert (
        lines[0]
        == f"toy, iteration 0: {len(FAILING)} failed labels will be tried again (scf_not_converged {len(FAILING)})"
    )
    gone = before - names(folder / "iter_000")
    shards = {f"labels/shard_00{s}.{end}" for s in (1, 2) for end in ("h5", "json")}
    assert gone == {*MADE, *shards}
    assert {path.stem for path in (folder / "iter_000" / "labels").glob("*.h5")} == {"shard_000"}
    after = cached()
    assert {name for name in labels if labels[name] != after[name]} == FAILING
    assert paused_because(folder) is None
    assert read_json(folder / "summary.json")["state"] == "running"
    assert read(folder / "progress.jsonl")[-1]["event"] == "retried"
    assert f"the {9 - len(FAILING)} labels of this batch" in lines[-1]
    # The same settings would remember the failure; taken back, each is tried, and fails again or not.
    report = label(folder, 0, 2, 0.6)
    assert {one["id"] for one in report["failed"]} <= FAILING
    cache = LabelCache(Path("results/label_cache"), TeacherLabeller(TeacherConfig(kind="teacher")).settings())
    tried = cache.get(report["failed"][0]["id"])
    assert isinstance(tried, Failure)
    assert tried.effort, "it was tried again, and is remembered anew"


def test_only_the_reasons_that_are_named(folder: Path) -> None:
    path = folder / "iter_000" / "labels" / "shard_002.json"
    report = read_json(path)
    report["failed"][0]["reason"] = "crashed"
    write_json(path, report)
    with pytest.raises(DataError, match="Did you mean 'crashed'"):
        retry("toy", iteration=None, reasons=["crashd"])
    lines = retry("toy", iteration=None, reasons=["crashed", "not_finite"])
    assert "1 failed labels will be tried again (crashed 1)" in lines[0]
    assert {path.name for path in (folder / "iter_000" / "labels").glob("*.h5")} == {"shard_000.h5", "shard_001.h5"}


def test_a_reason_that_nothing_failed_for_removes_nothing(folder: Path) -> None:
    before = names(folder)
    with pytest.raises(DataError, match=r"failed for net_force \(scf_not_converged"):
        retry("toy", iteration=0, reasons=["net_force"])
    assert names(folder) == before
    assert paused_because(folder) == "Too few."


def test_a_kill_in_between_is_mended_by_the_same_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it got to, typing it again does the rest."""
    from dubito.cli import retrying

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    for name in ("_remove_made", "_remove_shards", "end_pause"):
        with monkeypatch.context() as patched:
            patched.setattr(retrying, name, killed)
            with pytest.raises(KeyboardInterrupt):
                retry("toy", iteration=None, reasons=[])
        assert paused_because(folder) is not None
    retry("toy", iteration=None, reasons=[])
    assert names(folder / "iter_000") & {*MADE, "labels/shard_002.h5"} == set()
    assert paused_because(folder) is None


@pytest.mark.parametrize("damage", ["h5", "json", "missing"])
def test_a_damaged_result_of_a_job_is_made_again(folder: Path, damage: str) -> None:
    """It costs that job, whose labels are in the cache, and no label."""
    path = folder / "iter_000" / "labels" / f"shard_000.{'json' if damage == 'json' else 'h5'}"
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:100])
    lines = retry("toy", iteration=None, reasons=[])
    assert "1 results of labelling jobs are missing or damaged" in lines[1]
    assert not list((folder / "iter_000" / "labels").iterdir())
    report = label(folder, 0, 0, 0.6)
    assert report["reused"] == report["done"] == 3


def test_later_iterations_are_not_pulled_out_from_under(folder: Path) -> None:
    batch(folder, 1, 0.0)
    before = names(folder)
    with pytest.raises(DataError, match=r"iter_001 .*rm -r results/toy/iter_001"):
        retry("toy", iteration=0, reasons=[])
    assert names(folder) == before


def test_an_iteration_has_to_be_named_where_nothing_is_paused(folder: Path) -> None:
    assert end_pause(folder, "goes on")
    assert not end_pause(folder, "goes on")
    with pytest.raises(DataError, match=r"not paused.*--iteration \(iteration 0: scf_not_converged"):
        retry("toy", iteration=None, reasons=[])
    assert retry("toy", iteration=0, reasons=[])
    with pytest.raises(DataError, match="Iteration 3 of 'toy' has no batch"):
        retry("toy", iteration=3, reasons=[])
    with pytest.raises(DataError, match="was not started here"):
        retry("other", iteration=None, reasons=[])


def test_nothing_failed(folder: Path) -> None:
    batch(folder, 1, 0.0)
    with pytest.raises(DataError, match=r"No label of iteration 1 of 'toy' failed \(none failed\)"):
        retry("toy", iteration=1, reasons=[])


@pytest.fixture
def driver(folder: Path) -> Callable[..., None]:
    def write(**about: Any) -> None:
        own = {"pid": os.getpid(), "host": socket.gethostname(), "process_start": process_start(os.getpid()), "time": 0}
        write_json(folder / "state" / "driver.json", own | about)

    return write


def test_a_running_campaign_is_left_alone(folder: Path, driver: Callable[..., None]) -> None:
    before = names(folder)
    driver()
    with pytest.raises(EnvironmentFault, match=f"kill -INT {os.getpid()}"):
        retry("toy", iteration=None, reasons=[])
    driver(host="elsewhere")
    with pytest.raises(EnvironmentFault, match="on elsewhere"):
        retry("toy", iteration=None, reasons=[])
    assert names(folder) - {"state/driver.json"} == before
    driver(process_start="another time")
    assert retry("toy", iteration=None, reasons=[])


def test_a_pause_keeps_what_an_earlier_iteration_had_measured(folder: Path) -> None:
    summary = read_json(folder / "summary.json")
    assert summary["labels"] == {"done": 0, "failed": 6, "reused": 0}
    assert summary["iterations"] == 0
    assert summary["cost"]["dft_cpu_hours"] > 0
    write_json(folder / "summary.json", summary | {"force_rmse_ev_per_angstrom": 0.1, "iterations": 2})
    write_pause(folder, CampaignPaused("Again.", iteration=2, labels={"failed": 9}), CONFIG)
    later = read_json(folder / "summary.json")
    assert (later["force_rmse_ev_per_angstrom"], later["iterations"], later["reason"]) == (0.1, 2, "Again.")
    assert (folder / "summary.json").stat().st_mtime == 1, "older than anything the last job needs"


@pytest.mark.parametrize("reason", ["outlier", "gradient", "net_torque", "absurd_force", "net_force"])
def test_a_label_that_was_refused_is_looked_at_again_and_kept(folder: Path, reason: str) -> None:
    """Its job runs again; the label itself is in the cache, and a check that was changed lets it pass."""
    label_again = folder / "iter_000" / "labels" / "shard_002.json"
    report = read_json(label_again)
    one = report["failed"][0]
    one["reason"] = reason
    write_json(label_again, report)
    cache = LabelCache(Path("results/label_cache"), TeacherLabeller(TeacherConfig(kind="teacher")).settings())
    cache.put(one["id"], Label(energy=1.0, forces=np.zeros((4, 3)), method="m", code_version="c"))
    entry = cache.path(one["id"]).read_bytes()
    assert f"1 failed labels will be tried again ({reason} 1)" in retry("toy", iteration=None, reasons=[reason])[0]
    assert not label_again.exists()
    assert cache.path(one["id"]).read_bytes() == entry
