"""The driver looks at Slurm when a job writes that it has ended."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from dubito.core.progress import record
from dubito.workflow.slurm_bell import LOOKS_S, Bell, sleeper, waiting


def test_only_the_end_of_a_job_rings(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    record(path, event="finished", stage="before")
    bell = Bell(path)
    assert not bell.rings(), "what was there at the start is no news"
    record(path, event="started", stage="label_structures")
    assert not bell.rings()
    for event in ("finished", "failed", "interrupted"):
        record(path, event=event, stage="label_structures")
        assert bell.rings()
        assert not bell.rings(), "once"
    path.unlink()
    assert not bell.rings()
    record(path, event="finished", stage="a file made anew")
    assert bell.rings()


def test_some_looks_follow_then_the_usual_interval(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    bell = Bell(path)
    assert bell.next_look(20.0) == 20.0
    record(path, event="finished")
    assert bell.rings()
    assert [bell.next_look(20.0) for _ in range(len(LOOKS_S) + 1)] == [*LOOKS_S, 20.0]
    record(path, event="finished")
    assert bell.rings()
    assert bell.next_look(0.3) == 0.3, "never later than usual"


def test_a_wait_is_cut_short_by_the_bell(tmp_path: Path) -> None:
    now = [100.0]
    path = tmp_path / "progress.jsonl"
    left = waiting(Bell(path), 60.0, lambda: now[0])
    assert left() > 0
    now[0] += 10
    assert left() > 0
    record(path, event="finished")
    assert left() > 0
    now[0] += LOOKS_S[0]
    assert left() == 0
    now[0] = 100.0
    silent = waiting(Bell(tmp_path / "none"), 60.0, lambda: now[0])
    now[0] += 59.9
    assert silent() == pytest.approx(0.1)
    now[0] += 0.1
    assert silent() == 0


def test_the_executor_wakes_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("results", "toy", "progress.jsonl")
    stopping = SimpleNamespace(is_set=lambda: False)
    executor = SimpleNamespace(next_seconds_between_status_checks=30.0)

    async def original(self: object) -> None:
        raise AssertionError("it has a watch")

    sleep = sleeper("toy", lambda _: SimpleNamespace(stopping=stopping))(original)

    async def run() -> float:
        start = time.monotonic()
        asyncio.get_running_loop().call_later(0.2, lambda: record(path, event="finished"))
        await sleep(executor)
        return time.monotonic() - start

    assert asyncio.run(run()) < 10
    stopping.is_set = lambda: True
    start = time.monotonic()
    asyncio.run(sleep(SimpleNamespace(next_seconds_between_status_checks=30.0)))
    assert time.monotonic() - start < 5
