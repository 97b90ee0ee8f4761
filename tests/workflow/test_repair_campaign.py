"""Damaged and wrongly dated files: a start mends them, and pays for nothing twice."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from campaigns import Campaign

# These share the session's finished campaign; one worker runs them all.
pytestmark = pytest.mark.xdist_group("campaign")

HISTORIES = ("iter_000/members/history_0.csv", "iter_001/members/history_0.csv")


def copy_of(finished: Campaign, campaign: Callable[..., Campaign]) -> Campaign:
    """Return a copy of the finished campaign with its labels, in a folder that Snakemake has not seen."""
    one = campaign()
    for name in ("results/label_cache", f"results/{one.name}"):
        shutil.copytree(finished.folder / name, one.folder / name)
    return one


def test_a_truncated_dataset_while_the_next_iteration_is_under_way(finished: Campaign, campaign: Callable) -> None:
    one = copy_of(finished, campaign)
    # Iteration 1 was killed while it explored; its training is there as a checkpoint alone, as if killed later.
    for path in (one.results / "iter_001").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(one.results / "report")
    dataset = one.results / "iter_000" / "dataset.h5"
    os.truncate(dataset, 5000)
    labels, histories = one.labels(), [(finished.results / name).read_bytes() for name in HISTORIES]

    text = one.run()

    assert "dataset.h5 is not what its job wrote (5000 of " in text
    assert dataset.with_name("dataset.h5.damaged").stat().st_size == 5000
    assert one.selections() == finished.selections()
    assert one.labels() == labels, "a label was made again"
    # Wall times of the epochs stand in the histories: they come from the checkpoints, also where training starts from
    # an ensemble that was made again and has other bytes.
    assert [(one.results / name).read_bytes() for name in HISTORIES] == histories, "epochs were repeated"
    ensemble = Path("iter_000", "ensemble.safetensors")
    assert (one.results / ensemble).read_bytes() != (finished.results / ensemble).read_bytes()
    shown = one.dubito("show", f"results/{one.name}/iter_000/dataset.h5")
    assert "build_dataset, iteration 0" in shown
    assert "is what was written" in shown
    assert "Nothing to be done" in one.run()


def test_files_of_any_date_are_not_made_again(finished: Campaign, campaign: Callable) -> None:
    one = copy_of(finished, campaign)
    chance = np.random.default_rng(3)
    for path in one.results.glob("iter_*/**/*"):
        if path.is_file():
            moment = time.time() + chance.uniform(-1e6, 1e6)
            os.utime(path, (moment, moment))
    assert one.jobs_of_dry_run(), "the dates are not wrong enough to prove anything"
    text = one.run()
    assert "their times are restored and nothing is made again" in text
    assert "Nothing to be done" in text
    assert not one.jobs_of_dry_run()


def test_a_lost_decision_is_made_even_where_its_page_lies_there(finished: Campaign, campaign: Callable) -> None:
    one = copy_of(finished, campaign)
    last = one.results / "iter_001"
    for name in ("decision.json", "metrics.json"):
        (last / name).unlink()
    assert {"evaluate", "decide", "all"} <= one.jobs_of_dry_run() <= {"evaluate", "decide", "publish_report", "all"}
    (one.results / "report" / "index.html").unlink()  # with it alone, the report was of the iteration before
    text = one.run()
    assert (last / "decision.json").exists()
    assert json.loads((one.results / "summary.json").read_text())["iterations"] == 2
    assert "Nothing to be done" in one.run(), text


def test_the_last_model_comes_back_and_what_nothing_needs_is_named(finished: Campaign, campaign: Callable) -> None:
    one = copy_of(finished, campaign)
    needed, needless = one.results / "iter_001/ensemble.safetensors", one.results / "iter_000/labels/shard_000.h5"
    for path in (needed, needless):
        os.truncate(path, 1000)
    text = one.run()
    assert needed.stat().st_size > 1000
    assert not needless.exists()
    name = needless.relative_to(one.folder)
    assert f"`snakemake {name} --snakefile" in text
    assert f"snakemake {needed.relative_to(one.folder)}" not in text
    assert f"snakemake {name}" in one.run(), "it was said only once"
    assert one.selections() == finished.selections()


def test_other_settings_reach_a_copy_without_the_records_of_snakemake(finished: Campaign, campaign: Callable) -> None:
    one = copy_of(finished, campaign)
    one.write(campaign={"max_iterations": 0})
    assert "All 0 iterations" in one.run()


def test_a_folder_of_a_newer_dubito_is_refused_before_anything_is_touched(
    finished: Campaign, campaign: Callable
) -> None:
    one = copy_of(finished, campaign)
    schema = one.results / "state" / "schema.json"
    assert json.loads(schema.read_text())["schema_version"] == 2
    schema.write_text(json.dumps({"schema_version": 3, "dubito": "9.0"}))
    text = one.run(code=2)
    assert "was made by dubito 9.0, a newer one than this" in text
    assert "Traceback" not in text
