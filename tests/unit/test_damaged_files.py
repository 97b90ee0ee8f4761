"""Small files of a finished campaign, each replaced by something else: every command answers, or says what to do."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ledgered import about
from synthetic_progress import Planted, dead_pid, write_json, write_text

from dubito.cli.retrying import retry
from dubito.cli.show import show
from dubito.cli.status import Watcher
from dubito.cli.status.queue import Queue
from dubito.cli.status.screen import WIDTH, screen
from dubito.cli.status.standing import as_json
from dubito.config import parse_config
from dubito.core.errors import DataError, DubitoError, EnvironmentFault, StorageError
from dubito.core.files import read_json, read_object
from dubito.core.ledger import append, read_ledger
from dubito.core.progress import read, record
from dubito.reporting.cost import stage_costs
from dubito.reporting.pause import paused_because
from dubito.stages.label_structures import _hopeless
from dubito.workflow import campaign, driver, work
from dubito.workflow.attempts import Attempts
from dubito.workflow.repair import repair_campaign
from dubito.workflow.schema import claim_schema

FOLDER = Path("results/toy")
LEDGER = FOLDER / "provenance.jsonl"
PROGRESS = FOLDER / "progress.jsonl"
CONFIG = parse_config({"campaign": {"name": "toy"}}, "the test")

REPLACED = (
    b"", b"null", b"[]", b'"x"', b"{}", b"3", b"NaN", b'{"a":', b"\xff\xfe\x00\x81", b"[" * 20_000, b"9" * 5000,
)  # fmt: skip
WRONG: tuple[Any, ...] = (None, [], "x", {}, -1, float("inf"), float("nan"), 10**40, True, [[]], {"a": 1})


@pytest.fixture(params=[True, False], ids=["ledger", "no_ledger"])
def finished(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished campaign in the working folder, with a ledger and without (as campaigns of before)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("atexit.register", lambda *_: None)
    monkeypatch.setattr("os.fsync", lambda _: None)  # thousands of files, which nobody misses after a power cut
    planted = Planted(tmp_path, name="toy")
    claim_schema("toy")
    for k in range(2):
        planted.iteration(k, failed=1)
        write_json(FOLDER / f"iter_{k:03d}" / "driver.json", {"method": "ensemble"})
        write_json(FOLDER / f"iter_{k:03d}" / "uncertainty" / "ensemble.json", {"fitted": True})
        write_json(FOLDER / f"iter_{k:03d}" / "decision.json", {"stop": k == 1})
    started = {"stage": "label_structures", "iteration": 1, "part": "000"}
    record(PROGRESS, event="started", slurm_job="11", runtime_min=60, **started)
    record(PROGRESS, event="interrupted", signal="SIGTERM", **started)
    record(PROGRESS, event="died", reason="timeout", in_flight="a", slurm_job="11", **started)
    write_json(FOLDER / "summary.json", {"state": "paused", "reason": "Too few.", "labels": {"done": 8}})
    write_json(FOLDER / "state" / "driver.json", {"pid": dead_pid(), "host": planted.host, "process_start": "1",
                                                  "time": 0.0})  # fmt: skip
    if request.param:
        for path in sorted(FOLDER.glob("iter_*/**/*.json")):
            made = {"stage": "make", "iteration": 0, "part": "", "time": 1.0, "host": "node7", "code": "0.1"}
            append(LEDGER, {**made, "versions": {"dubito": "0.1"}, "wall_s": 1.0, "cpu_s": 2.0, "inputs": {},
                            "outputs": {str(path): about(path)}})  # fmt: skip
    shutil.copytree(tmp_path / "results", tmp_path / "kept")
    return tmp_path


def anew() -> None:
    shutil.rmtree("results")
    shutil.copytree("kept", "results")


def spoiled(rng: random.Random, value: Any) -> Any:
    if rng.random() < 0.2:
        return rng.choice(WRONG)
    return {key: spoiled(rng, item) for key, item in value.items()} if isinstance(value, dict) else value


def damages(good: bytes, *, is_lines: bool) -> Iterator[bytes]:
    yield from REPLACED
    if is_lines:
        yield from (good + line + b"\n" + good for line in REPLACED)
    for seed in range(4):
        rng = random.Random(seed)  # noqa: S311 - no secret
        lines = good.splitlines() if is_lines else [good]
        yield b"\n".join(json.dumps(spoiled(rng, json.loads(line))).encode() for line in lines) + b"\n"


def start() -> None:
    """Do what the workflow does when it starts, and when it ends."""
    driver.claim_campaign("toy")
    claim_schema("toy")
    repair_campaign("toy")
    campaign.require_plans("toy")
    campaign.forget_unfitted(CONFIG)
    for manifest in FOLDER.glob("iter_*/selection.json"):
        work.batch_minutes(CONFIG, manifest, manifest.with_name("selected.h5"))
    campaign.labels_spent("toy", 2)
    campaign.failed_line("toy")
    campaign.finished_line("toy")
    campaign.resume_paused("toy")


def status() -> None:
    standing = Watcher("toy").look(Queue(), time.time())
    screen(standing, WIDTH)
    json.dumps(as_json(standing))


def commands(path: Path) -> Iterator[Callable[[], object]]:
    yield lambda: show(path, tree=True, depth=1, json=False, accept=False)
    yield lambda: show(FOLDER / "iter_000" / "metrics.json", tree=False, depth=1, json=True, accept=False)
    yield status
    yield lambda: Attempts(FOLDER, lambda _: "timeout").doublings("time", ("label_structures", 1, "000"), 2)
    yield lambda: (stage_costs(read(PROGRESS)), _hopeless(read(PROGRESS), 1, 0))
    yield start
    yield lambda: retry("toy", iteration=None, reasons=[])
    yield lambda: retry("toy", iteration=1, reasons=["scf_not_converged"])


def test_no_damaged_file_is_a_bug(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The first iteration has the same kinds of files.
    files = [path for path in sorted(FOLDER.rglob("*.json*")) if path.is_file() and "iter_000" not in str(path)]
    assert len(files) >= 10
    paragraphs: list[str] = []
    for path in files:
        good = path.read_bytes()
        for content in damages(good, is_lines=path.suffix == ".jsonl"):
            path.write_bytes(content)
            for number, command in enumerate(commands(path)):
                try:
                    command()
                except DubitoError as error:
                    paragraphs.append(str(error).strip())
                except Exception as error:
                    pytest.fail(f"command {number}, {path} = {content[:200]!r}: {error!r}")
            capsys.readouterr()
            anew()
    assert paragraphs
    assert not any("\n" in paragraph for paragraph in paragraphs)


# --- reading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'{"a": ', b"[" * 100_000, b"9" * 5000, b""])
def test_what_is_no_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json is not valid JSON.*Delete it"):
        read_json(path)


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="directory"):
        read_json(tmp_path)


@pytest.mark.parametrize("content", ["null", "[]", "{}", '{"n": "3"}', '{"n": true}', '{"n": NaN}', '{"n": 1e999}'])
def test_an_object_has_the_keys_that_are_needed(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    write_text(path, content)
    with pytest.raises(DataError, match=r"a\.json is damaged.*start the same command again"):
        read_object(path, n=(int, float))
    write_text(path, '{"n": 3, "m": null}')
    assert read_object(path, n=int, m=(str, type(None))) == {"n": 3, "m": None}


def test_only_events_are_read(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    record(path, event="started", stage="decide", iteration=0)
    lines = ["null", "[1]", "3", "{}", '{"event": "started", "stage": "x", "time": "noon"}', '"x"', "[" * 100_000]
    lines += ['{"event": "finished", "stage": "x", "time": 1, "iteration": []}', '{"event": null, "time": 1}']
    with path.open("a") as handle:
        handle.write("\n".join(lines) + "\n")
    record(path, event="finished", stage="decide", iteration=0, wall_s="long", cpu_s=2.0)
    events = read(path)
    assert [event["event"] for event in events] == ["started", "finished"]
    assert [cost.cpu_s for cost in stage_costs(events)] == [2.0]


@pytest.mark.parametrize(
    "line",
    ['{"outputs": null}', '{"outputs": {"a": {"mtime_ns": 1}}}', '{"inputs": {"a": 3}}', '{"seen": []}', "null",
     '{"outputs": {"a": {"sha256": "x", "size": "1", "mtime_ns": 1}}}'],
)  # fmt: skip
def test_a_wrong_line_of_a_ledger_is_named_and_left_out(
    tmp_path: Path, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "provenance.jsonl"
    append(path, {"stage": "a", "time": 1.0, "wall_s": "long"})
    with path.open("a") as handle:
        handle.write(line + "\n")
    append(path, {"stage": "b"})
    assert read_ledger(path).entries == [{"stage": "a", "time": 1.0}, {"stage": "b"}]
    assert f"line 2 of {path} is damaged" in caplog.text


@pytest.mark.parametrize(
    "content",
    [b'{"schema_version": 2, "stage_versions": []}', b'{"schema_version": 2, "stage_versions": {"decide": "2"}}',
     b'{"schema_version": true}', b"\xff\xfe", b"null"],
)  # fmt: skip
def test_a_damaged_version_file_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    path = FOLDER / "state" / "schema.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(EnvironmentFault, match=f"rm {path}"):
        claim_schema("toy")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("selection.json", {"n_shards": 1}),
        ("selection.json", None),
        ("driver.json", {}),
        ("decision.json", {"stop": 1}),
    ],
)
def test_a_damaged_plan_stops_a_start_before_snakemake_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: object
) -> None:
    monkeypatch.chdir(tmp_path)
    write_json(FOLDER / "iter_000" / name, content)
    with pytest.raises(DataError, match=rf"iter_000/{name} is damaged.*Delete it"):
        campaign.require_plans("toy")


def test_a_damaged_summary_is_no_pause(tmp_path: Path) -> None:
    write_json(tmp_path / "summary.json", {"state": "paused", "labels": None})
    assert paused_because(tmp_path) is None
