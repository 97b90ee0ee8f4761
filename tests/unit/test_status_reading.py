"""How `dubito status` reads the files of a campaign: growing, damaged, of other versions, and many."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from screens import dubito, flat, look, shown
from synthetic_progress import START, Planted, write_json, write_text

from dubito.cli.status import Watcher
from dubito.cli.status.progress import ProgressReader
from dubito.cli.status.queue import Queue
from dubito.cli.status.standing import as_json


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return Planted(tmp_path)


def test_events_are_read_while_they_are_written(tmp_path: Path) -> None:
    path, reader = tmp_path / "progress.jsonl", ProgressReader(tmp_path / "progress.jsonl")
    assert reader.events() == []
    line = json.dumps({"event": "started", "stage": "prüfen", "time": 1.0}, ensure_ascii=False).encode() + b"\n"

    def write() -> None:
        # Byte by byte, so that readers meet torn lines and torn characters.
        with path.open("ab", buffering=0) as handle:
            for _ in range(50):
                for byte in line:
                    handle.write(bytes([byte]))

    writer = threading.Thread(target=write)
    writer.start()
    seen = [0]
    while writer.is_alive():
        seen.append(len(reader.events()))
    writer.join()
    assert len(reader.events()) == 50
    assert seen == sorted(seen)
    assert {event.stage for event in reader.events()} == {"prüfen"}
    # Nothing new: nothing is read again. Another file: all of it is.
    assert len(reader.events()) == 50
    path.unlink()
    path.write_bytes(line)
    assert len(reader.events()) == 1


def test_a_torn_line_costs_no_other_event(planted: Planted) -> None:
    planted.event("started", "evaluate", 0)
    with planted.progress.open("ab") as handle:
        handle.write(b'{"event": "finished", "stage": "tor')
    planted.event("finished", "evaluate", 0)
    with planted.progress.open("ab") as handle:
        handle.write(b"\0\0\0\n[1, 2]\n{}\nnonsense\n" + b'{"event": "started"' * 2000 + b"\n")
    planted.event("started", "decide", 0)
    kinds = [(e.kind, e.stage) for e in ProgressReader(planted.progress).events()]
    assert kinds == [("started", "evaluate"), ("finished", "evaluate"), ("started", "decide")]


def test_a_screen_while_events_are_appended(planted: Planted) -> None:
    planted.drive()
    watcher = Watcher(planted.name, base=planted.base)
    for k in range(3):
        planted.iteration(k)
        again = watcher.look(Queue(), planted.clock)
        assert as_json(again) == as_json(look(planted))


@pytest.mark.parametrize("seed", range(12))
def test_damaged_files_never_break_it(planted: Planted, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secret
    planted.drive()
    planted.iteration(0, failed=1)
    planted.iteration(1)
    planted.explore(2)
    planted.start("label_structures", 2, "000")
    planted.beat(2, 0, done=1)
    planted.start("label_structures", 2, "001", host="elsewhere")
    write_json(planted.folder / "summary.json", {"state": "running", "iterations": 2})
    files = sorted(path for path in planted.folder.rglob("*") if path.is_file())
    wrong: list[Any] = [None, -1, 1e400, 10**40, "x", [], {}, [[]], {"a": 1}, True, "\0", float("nan")]

    def spoil(value: Any) -> Any:
        if rng.random() < 0.15:
            return rng.choice(wrong)
        if isinstance(value, dict):
            return {key: spoil(item) for key, item in value.items() if rng.random() > 0.05}
        return [spoil(item) for item in value] if isinstance(value, list) else value

    for path in files:
        content = path.read_bytes()
        way = rng.randrange(4)
        if way == 0:
            path.write_bytes(content[: rng.randrange(len(content) + 1)])
        elif way == 1:
            at = rng.randrange(len(content) + 1)
            path.write_bytes(content[:at] + rng.randbytes(8) + content[at:])
        else:
            lines = content.splitlines() if path.suffix == ".jsonl" else [content]
            path.write_bytes(b"\n".join(json.dumps(spoil(json.loads(line))).encode() for line in lines) + b"\n")
    shown(planted)
    json.dumps(as_json(look(planted)))


def test_folders_and_files_in_the_wrong_places(planted: Planted) -> None:
    for name in ("summary.json", "config.yaml", "progress.jsonl", "iter_000/metrics.json"):
        path = planted.folder / name
        path.unlink(missing_ok=True)
        path.mkdir(parents=True)
    (planted.folder / "iter_001").write_text("no folder")
    shown(planted)


def test_the_cache_of_labels_is_never_listed(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    planted.iteration(0, failed=1)
    write_text(planted.base / "results" / "label_cache" / "a" / "b.json", "{}")
    listed = []
    scan, names = os.scandir, os.listdir
    monkeypatch.setattr(os, "scandir", lambda p=".": listed.append(str(p)) or scan(p))
    monkeypatch.setattr(os, "listdir", lambda p=".": listed.append(str(p)) or names(p))
    look(planted)
    assert listed
    assert not any("label_cache" in path or path.rstrip("/").endswith("results") for path in listed)


def test_a_long_campaign_is_shown_at_once(tmp_path: Path) -> None:
    """50 iterations of 20 shards. In processor time: a wall time would tell of the other tests beside this one."""
    planted = Planted(tmp_path, shards=20, per_shard=8, max_iterations=60)
    for k in range(50):
        planted.iteration(k, failed=k % 3)
    planted.explore(50)

    def cpu_s(*command: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], cwd=tmp_path, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    status = ("-c", "from dubito.cli import main; main()", "status", "--config", "config.yaml")
    assert min(cpu_s(*status) - cpu_s("-c", "") for _ in range(3)) < 0.6
    # Again in the same process: only what changed is read.
    watcher = Watcher(planted.name, base=tmp_path)
    watcher.look(Queue(), planted.clock)
    opened: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        read_text = Path.read_text
        patch.setattr(Path, "read_text", lambda self, *a, **k: opened.append(self.name) or read_text(self, *a, **k))
        planted.beat(50, 3, done=2)
        again = watcher.look(Queue(), planted.clock)
    assert again.labels.batch is not None
    assert again.labels.batch.done == 2
    assert [name for name in opened if name != "stat"] == ["shard_003.json"]


def test_events_of_older_versions(planted: Planted) -> None:
    """The first versions wrote no machine, process or Slurm job."""
    write_json(planted.folder / "iter_000" / "metrics.json", {"labels": {"total": 3}})
    with planted.progress.open("a") as handle:
        for kind in ("started", "finished"):
            handle.write(json.dumps({"event": kind, "stage": "evaluate", "iteration": 0, "time": START}) + "\n")
        handle.write(json.dumps({"event": "started", "stage": "decide", "iteration": 0, "time": START}) + "\n")
    planted.clock += 60
    text = flat(shown(planted))
    assert "now: decide, iteration 0 for 60 s" in text
    assert "3 in all, 0 failed" in text


def test_a_configuration_that_is_being_edited_is_no_obstacle(planted: Planted) -> None:
    planted.iteration(0)
    (planted.base / "config.yaml").write_text("campaign: {name: planted, max_iterations: many}\nmodle: {}\n")
    assert dubito(planted).returncode == 0
    (planted.base / "config.yaml").write_text("campaign: {name: ../planted}\n")
    done = dubito(planted)
    assert (done.returncode, "campaign.name" in done.stderr) == (2, True)
