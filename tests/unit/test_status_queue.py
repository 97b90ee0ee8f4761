"""What `dubito status` makes of Slurm's words, with a fake `squeue` and `sinfo` on PATH."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from synthetic_progress import Planted

from dubito.cli.status import Watcher
from dubito.cli.status import queue as queue_module
from dubito.cli.status.queue import Asking, Queue
from dubito.cli.status.reasons import Node, Request, in_words, memory_mb, minutes_of
from dubito.cli.status.screen import screen

ROW = "{id}|{state}|{reason}|{cpus}|{memory}|{limit}|2026-11-21T17:40:00|{partition}|{folder}|{comment}"


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH but for the system's own tools."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin")
    return folder


def fake(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def row(folder: Path, number: str, state: str, reason: str, comment: str, **asked: str) -> str:
    values = {"cpus": "1", "memory": "2000M", "limit": "30:00", "partition": "cpu", "folder": str(folder), **asked}
    return ROW.format(id=number, state=state, reason=reason, comment=comment, **values)


def answer(folder: Path, lines: list[str], at: Path) -> None:
    (folder / "answer").write_text("\n".join(lines) + "\n")
    fake(folder, "squeue", f'cat {folder / "answer"}; echo "$@" > {at / "asked"}')


def text_of(planted: Planted, queue: Queue) -> str:
    standing = Watcher(planted.name, base=planted.base).look(queue, planted.clock)
    return " ".join(" ".join(line.text for line in screen(standing)).split())


def test_pending_jobs_with_their_reasons(tmp_path: Path, bin_folder: Path) -> None:
    planted = Planted(tmp_path, name="few", slurm=True, host="node1")
    planted.explore(0)
    planted.start("label_structures", 0, "000", slurm_job="11")
    said = [
        row(tmp_path, "11", "RUNNING", "None", "rule_label_structures_wildcards_few_000_000"),
        row(tmp_path, "12", "PENDING", "Resources", "rule_label_structures_wildcards_few_000_001"),
        row(tmp_path, "13", "PENDING", "PartitionConfig", "rule_train_ensemble_wildcards_few_000_0", memory="64G"),
        row(tmp_path, "14", "PENDING", "Priority", "rule_prepare_reference_wildcards_few_inversion"),
        # Of another campaign, whose name begins alike; of another folder; not of Snakemake; an array; nonsense.
        row(tmp_path, "15", "PENDING", "Priority", "rule_label_structures_wildcards_few_2_000_000"),
        row(tmp_path / "x", "16", "PENDING", "Priority", "rule_label_structures_wildcards_few_000_002"),
        row(tmp_path, "17", "RUNNING", "None", "my own job"),
        row(tmp_path, "18_[1-9%2]", "PENDING", "JobArrayTaskLimit", "(null)"),
        "slurm_load_jobs error: something",
    ]
    answer(bin_folder, said, tmp_path)
    fake(bin_folder, "sinfo", "echo 'cpu*|2|4000|1:00:00'; echo 'gpu|2|64000|infinite'")
    watcher = Watcher("few", base=tmp_path)
    found = watcher.ask().answer()
    assert found.problem is None
    assert [(j.slurm_job, j.stage, j.iteration, j.part) for j in found.jobs] == [
        ("11", "label_structures", 0, "000"),
        ("12", "label_structures", 0, "001"),
        ("13", "train_ensemble", 0, "0"),
        ("14", "prepare_reference", None, "inversion"),
    ]
    assert {"15", "17"} <= found.ids
    text = text_of(planted, found)
    never = "can never start: asks for more memory than a node of 'cpu' has: 65536 of 4000 MB"
    assert f"queued: train_ensemble 0, iteration 0 (Slurm 13) {never}" in text
    assert "queued: label_structures 001, iteration 0 (Slurm 12) waits for resources" in text
    assert "waits behind jobs of higher priority" in text
    # What can never start is what one has to act on.
    assert text.index("(Slurm 13)") < text.index("(Slurm 12)")
    assert "Next: `scancel 13`" in text
    assert "now: label_structures 000, iteration 0" in text
    assert "now label; queued train" in text
    assert "select done" in text
    assert "--noheader" in (tmp_path / "asked").read_text()


def test_a_driver_that_died_leaves_its_slurm_jobs(tmp_path: Path, bin_folder: Path) -> None:
    planted = Planted(tmp_path, slurm=True)
    planted.explore(0)
    said = [row(tmp_path, "21", "PENDING", "Resources", "rule_label_structures_wildcards_planted_000_000")]
    answer(bin_folder, said, tmp_path)
    text = text_of(planted, Watcher("planted", base=tmp_path).ask().answer())
    assert "no Snakemake is known to drive" in text
    assert "wait until its jobs have ended (or `scancel 21`), then start again: `snakemake --profile slurm`" in text


def test_a_held_job_waits_for_its_owner(tmp_path: Path, bin_folder: Path) -> None:
    planted = Planted(tmp_path, slurm=True)
    planted.explore(0)
    said = [row(tmp_path, "31", "PENDING", "JobHeldUser", "rule_label_structures_wildcards_planted_000_000")]
    answer(bin_folder, said, tmp_path)
    text = text_of(planted, Watcher("planted", base=tmp_path).ask().answer())
    assert "(Slurm 31) is held: `scontrol release 31` lets it go" in text
    assert "Next: `scontrol release 31`" in text


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, "squeue is not on this machine"),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", "Unable to contact"),
        ("exit 3", "exit code 3"),
        ("exec sleep 60", "squeue gave no answer within 0.3 s"),
        ("sleep 60", "squeue gave no answer within 0.3 s"),
    ],
)
def test_a_queue_that_does_not_answer(
    tmp_path: Path, bin_folder: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, words: str
) -> None:
    monkeypatch.setattr(queue_module, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(queue_module._run, "__defaults__", (0.3,))
    if script is None:
        monkeypatch.setenv("PATH", str(bin_folder))
    else:
        fake(bin_folder, "squeue", script)
    planted = Planted(tmp_path, slurm=True, host="node1")
    planted.iteration(0)
    start = time.monotonic()
    found = Asking("planted", tmp_path).answer()
    assert time.monotonic() - start < 3
    assert not found.answered
    text = text_of(planted, found)
    assert words in text
    assert text.count("queue:") == 1
    # A campaign that has nothing to do with Slurm is not bothered with it.
    local = Planted(tmp_path / "local")
    local.iteration(0)
    assert "queue:" not in text_of(local, found)


NODES = [Node("cpu", 8, 16000, 60.0), Node("cpu", 16, 8000, 60.0), Node("gpu", 64, 500_000, None)]


@pytest.mark.parametrize(
    ("reason", "request_", "words", "never"),
    [
        ("Resources", Request("cpu", "16", "16000M", "1:00:00"), "waits for resources", False),
        ("Resources", Request("cpu", "17", "1M", "10:00"), "more CPUs than a node of 'cpu' has: 17 of 16", True),
        ("PartitionTimeLimit", Request("cpu", "1", "1M", "1:00:01"), "more time than partition 'cpu' allows", True),
        ("PartitionConfig", Request("cpu", "1", "17G", "10:00"), "17408 of 16000 MB", True),
        ("PartitionConfig", Request("gpu", "1", "17G", "9-10:00:00"), "does not take it as it is", False),
        ("PartitionConfig", Request("none", "1", "17G", "10:00"), "does not take it as it is", False),
        ("QOSMaxCpuPerUserLimit", Request("cpu", "1", "1M", "10:00"), "a limit of the quality of service", False),
        ("QOSMaxMemoryPerJob", Request("cpu", "1", "1M", "10:00"), "can never start", True),
        ("AssocGrpCPUMinutesLimit", Request("cpu", "1", "1M", "10:00"), "the budget of the account is used up", False),
        ("AssocGrpCpuLimit", Request("cpu", "1", "1M", "10:00"), "a limit of the account", False),
        ("InvalidAccount", Request("cpu", "1", "1M", "10:00"), "slurm_account", True),
        ("DependencyNeverSatisfied", Request("cpu", "1", "1M", "10:00"), "a job that failed", True),
        ("ReqNodeNotAvail, UnavailableNodes:c1", Request("cpu", "1", "1M", "10:00"), "down, drained or", False),
        ("(Nodes required for job are DOWN, DRAINED)", Request("cpu", "1", "1M", "10:00"), "are down", False),
        ("SomethingNew", Request("cpu", "1", "1M", "10:00"), "waits (SomethingNew)", False),
        ("{odd}", Request("cpu", "1", "1M", "10:00"), "waits ({odd})", False),
    ],
)
def test_reasons_in_words(reason: str, request_: Request, words: str, never: bool) -> None:
    said, can_not = in_words(reason, request_, NODES)
    assert words in said
    assert can_not is never


def test_amounts_as_slurm_prints_them() -> None:
    assert [memory_mb(t) for t in ("2000M", "4G", "1.5T", "512K", "300", "2Gc", "x")] == [
        2000, 4096, 1572864, 0.5, 300, 2048, None,
    ]  # fmt: skip
    assert [minutes_of(t) for t in ("30:00", "1:00:00", "1-02:00:00", "infinite", "UNLIMITED")] == [
        30, 60, 1560, None, None,
    ]  # fmt: skip
