"""Kill anything with ``kill -9`` and start again: it ends as if nothing had happened, no label is made twice."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable

import pytest
from campaigns import Campaign, read_json

# These share the session's finished campaign; one worker runs them all.
pytestmark = pytest.mark.xdist_group("campaign")


def kill_all(process_group: int) -> None:
    """A power cut: the driver and its jobs at once."""
    os.killpg(process_group, signal.SIGKILL)


def job_of(campaign: Campaign, stage: str, iteration: int) -> int | None:
    """Return the process of a job that has started and not finished."""
    started = campaign.events(event="started", stage=stage, iteration=iteration)
    finished = campaign.events(event="finished", stage=stage, iteration=iteration)
    return started[-1]["pid"] if len(started) > len(finished) else None


def test_kills_change_nothing(finished: Campaign, campaign: Callable) -> None:
    # Labels take a moment here, so that one can be hit; the labels themselves are those of `finished`.
    slow = {"labeller": {"kind": "teacher", "potential": "double_well_ammonia", "seconds_per_label": 0.5}}
    one: Campaign = campaign(labelling=slow)

    # 1. Everything at once, while labels are made.
    driver = one.start()
    one.wait(lambda: job_of(one, "label_structures", 0) and len(one.labels()) >= 3)
    kill_all(driver.pid)
    driver.wait()
    first = one.labels()
    assert len(first) >= 3

    # 2. The driver alone, while members are trained. Its job goes on and must not meet a second one.
    driver = one.start()
    checkpoint = one.results / "state" / "training" / "iter_000" / "group_0"
    one.wait(lambda: checkpoint.is_dir() and any(checkpoint.iterdir()))
    driver.kill()
    driver.wait()

    # 3. One job alone. The driver says so, and the rest of the campaign is not lost.
    driver = one.start()
    os.kill(one.wait(lambda: job_of(one, "explore_structures", 1)), signal.SIGKILL)
    assert driver.wait(timeout=240) == 1
    assert "did not finish" in (one.folder / "driver.log").read_text()

    # 4. To the end.
    one.run()
    labels = one.labels()
    for name, label in first.items():
        assert labels[name] == label, f"{name} was made again"
    shown = sum(event["event"] == "finished" for event in one.events(stage="label_structures"))
    assert shown >= len(list(one.results.glob("iter_*/labels/shard_*.h5")))
    expected = finished.selections()
    for name, manifest in one.selections().items():
        assert manifest == expected[name], f"{name} differs from the uninterrupted campaign"
    assert not list(one.results.rglob("*.partial"))
    assert "Nothing to be done" in one.run()


def test_a_second_driver_is_refused_and_the_first_goes_on(campaign: Callable) -> None:
    slow = {"labeller": {"kind": "teacher", "potential": "double_well_ammonia", "seconds_per_label": 2.0}}
    one: Campaign = campaign(campaign={"max_iterations": 0}, labelling=slow)
    driver = one.start()
    one.wait(lambda: job_of(one, "label_structures", 0))
    text = one.run("--cores", "1", code=2)
    assert f"is already being run by process {driver.pid}" in text
    assert "dubito status" in text
    one.run("-n")  # looking is allowed
    assert "now: label_structures" in one.dubito("status", "--config", "campaign.yaml")
    assert driver.poll() is None


def test_resumed_in_a_later_iteration_uses_the_labels_that_are_there(finished: Campaign, campaign: Callable) -> None:
    """Snakemake looks one checkpoint ahead when it resumes; shards of later iterations must be found all the same."""
    one: Campaign = campaign()
    shutil.copytree(finished.results, one.results)
    lost = ["dataset.h5", "metrics.json", "decision.json", "report.html"]
    for name in lost:
        (one.results / "iter_001" / name).unlink()
    for later in sorted(one.results.glob("iter_*"))[2:]:
        shutil.rmtree(later)
    shutil.rmtree(one.results / "report")
    one.run()
    assert one.selections() == finished.selections()
    assert read_json(one.results / "iter_001" / "metrics.json")["labels"]["new"] > 0
    before, after = (read_json(c.results / "summary.json") for c in (finished, one))
    assert before["labels"]["done"] == after["labels"]["done"]
    assert before["physics"] == after["physics"]
