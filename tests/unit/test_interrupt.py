"""SIGTERM and SIGUSR1: work stops where nothing is lost, and goes on as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from dubito.config.model import ModelConfig
from dubito.config.training import TrainingConfig
from dubito.core import interrupt
from dubito.core.files import atomic_path
from dubito.core.heartbeat import beat, last_beat
from dubito.core.interrupt import Interrupted, listening
from dubito.core.progress import is_job
from dubito.data.statistics import fit_statistics
from dubito.data.store import write_structures
from dubito.model.potential import Potential
from dubito.testing.structures import rattled, toy_labels
from dubito.training import loop
from dubito.training.loop import Trainer


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    interrupt.forget()
    is_job(None)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


# --- signals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_a_request_and_the_second_one_changes_nothing(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with listening():
        interrupt.check()
        assert interrupt.requested() is None
        send(number)
        send(signal.SIGTERM)
        assert interrupt.requested() == number.name
        with pytest.raises(Interrupted, match=f"{number.name} asked.*Epoch 3 is saved.*goes on") as caught:
            interrupt.check("Epoch 3 is saved.")
    assert (caught.value.exit_code, caught.value.signal) == (75, number.name)
    assert signal.getsignal(signal.SIGTERM) == before


def test_ctrl_c_is_left_alone() -> None:
    with listening():
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_work_in_the_same_process_begins_without_the_request() -> None:
    with listening():
        send(signal.SIGTERM)
    interrupt.check()


def test_signals_during_a_save_do_not_break_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def interrupted_sync(handle: int) -> None:
        send(signal.SIGTERM)
        send(signal.SIGUSR1)
        sync(handle)

    monkeypatch.setattr(os, "fsync", interrupted_sync)
    with listening(), atomic_path(tmp_path / "state") as partial:
        send(signal.SIGTERM)
        partial.write_bytes(b"x" * 100_000)
        assert interrupt.requested() == "SIGTERM"
    assert (tmp_path / "state").read_bytes() == b"x" * 100_000


def test_a_heartbeat_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    beat(tmp_path / "a" / "b.json", epoch=3)
    found = last_beat(tmp_path / "a" / "b.json")
    assert found is not None
    assert (found["epoch"], found["time"] > 0) == (3, True)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.json"]
    (tmp_path / "file").write_text("")
    beat(tmp_path / "file" / "b.json", epoch=3)
    assert last_beat(tmp_path / "file" / "b.json") is None
    (tmp_path / "torn.json").write_text('{"epoch": ')
    assert last_beat(tmp_path / "torn.json") is None


# --- training in slices -----------------------------------------------------------------------

Precision = Literal["float32", "float64"]


def trainer(folder: Path | None, dtype: Precision = "float64", **options: float) -> Trainer:
    torch.set_num_threads(1)
    labels = toy_labels(rattled(13, seed=1))
    model = ModelConfig(n_features=6, n_layers=2, r_max_angstrom=3.5, dtype=dtype)
    potential = Potential(model, fit_statistics(labels, 3.5), 2)
    potential.initialise(7, [0, 1])
    config = TrainingConfig(**({"max_epochs": 9, "checkpoint_every_epochs": 4, "batch_size": 5} | options))  # type: ignore[arg-type]
    valid = toy_labels(rattled(4, seed=2))
    return Trainer(potential, labels, valid, config, seed=3, members=[0, 1], folder=folder, fingerprint="same")


def lines(t: Trainer) -> list[tuple[float, ...]]:
    """Return the history without the time it took."""
    return [tuple(v for k, v in vars(e).items() if k != "wall_s") for e in t.history]


def stop_after(batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send SIGTERM in the middle of a batch, training or validation, that many looks from now."""
    left = [batches]
    real = loop._Set.errors

    def errors(self: Any, *args: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            send(signal.SIGTERM)
        return real(self, *args, **options)

    monkeypatch.setattr(loop._Set, "errors", errors)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_in_slices_equals_one_run_bit_by_bit(
    tmp_path: Path, dtype: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trainer(None, dtype)
    whole.run()
    rng, slices, epochs = np.random.default_rng(5), 0, 0
    while True:
        part = trainer(tmp_path, dtype)
        # Three batches and one of validation in an epoch: from the first batch to the second epoch on.
        stop_after(int(rng.integers(1, 9)), monkeypatch)
        with listening():
            try:
                part.run()
            except Interrupted:
                slices += 1
            else:
                break
            finally:
                monkeypatch.undo()
        assert slices < 60
        saved = trainer(tmp_path, dtype)
        saved._resume()
        assert saved.epoch >= epochs, "no complete epoch is lost"
        assert saved.epoch == part.epoch, "the last complete epoch is what is saved"
        epochs = saved.epoch
    assert slices >= 4
    assert torch.equal(part.parameters.rows, whole.parameters.rows)
    assert part.parameters.rows.dtype == getattr(torch, dtype)
    assert lines(part) == lines(whole)


def test_an_interruption_at_the_end_of_an_epoch_keeps_that_epoch(tmp_path: Path) -> None:
    one = trainer(tmp_path)
    one.on_epoch = lambda t: send(signal.SIGUSR1) if t.epoch == 3 else None
    with listening(), pytest.raises(Interrupted):
        one.run()
    again = trainer(tmp_path)
    events: list[dict[str, Any]] = []
    is_job(lambda event, **more: events.append({"event": event, **more}))
    seen: list[int] = []
    again.on_epoch = lambda t: seen.append(t.epoch)
    again.run()
    assert seen == [4, 5, 6, 7, 8, 9]
    assert events == [{"event": "resumed", "epoch": 3, "reached": 3}]
    shown = last_beat(tmp_path / "epoch.json")
    assert shown is not None
    assert (shown["epoch"], shown["of"]) == (9, 9)


def test_a_killed_training_says_how_many_epochs_it_repeats(tmp_path: Path) -> None:
    def kill(t: Trainer) -> None:
        if t.epoch == 7:
            raise KeyboardInterrupt

    one = trainer(tmp_path)
    one.on_epoch = kill
    with pytest.raises(KeyboardInterrupt):
        one.run()
    events: list[dict[str, Any]] = []
    is_job(lambda event, **more: events.append({"event": event, **more}))
    trainer(tmp_path).run()
    assert events == [{"event": "resumed", "epoch": 4, "reached": 7}]


def test_a_first_start_resumes_nothing(tmp_path: Path) -> None:
    events: list[Any] = []
    is_job(lambda event, **more: events.append(event))
    trainer(tmp_path, max_epochs=1).run()
    assert events == []


# --- a real job -------------------------------------------------------------------------------

JOB = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
import dubito.workflow.stage as stage

class Named(dict):
    pass

folder = Path("results/toy")
job = SimpleNamespace(
    rule="train_ensemble", threads=1, log=[str(folder / "logs/t.log")],
    config={{"campaign": {{"name": "toy", "max_iterations": 4}}}},
    input=Named(dataset="d.h5", previous=[]),
    output=Named(output="m.safetensors", history="h.csv"),
    wildcards=Named(campaign="toy", iteration="000", group="0"),
    resources=Named(mem_mb=4000, runtime=30),
    params=Named(
        stage=1, model={{"n_features": 8, "n_layers": 2, "r_max_angstrom": 3.5}},
        training={{"max_epochs": 60, "checkpoint_every_epochs": 50, "n_members": 2}}, allow_model_labels=False,
        members=[0, 1], seed=1, device="cpu", state=str(folder / "state/training/iter_000/group_0"),
    ),
)
stage.run_stage("train_ensemble", job)
"""


def start_job(folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "SLURM_JOB_ID": "4711", "DUBITO_ATTEMPT": "2"}
    with (folder / "out.txt").open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-c", JOB.format()], cwd=folder, env=environment, stdout=out, stderr=out
        )


def wait_for(condition: Callable[[], Any], job: subprocess.Popen[bytes], folder: Path) -> Any:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if value := condition():
            return value
        assert job.poll() is None, (folder / "out.txt").read_text()
        time.sleep(0.01)
    raise TimeoutError


def test_a_job_told_to_stop_leaves_with_75_and_its_successor_ends_with_the_same_bytes(tmp_path: Path) -> None:
    from dubito.core.progress import read

    data = toy_labels(rattled(20)).with_columns(origin__split=["train"] * 16 + ["valid"] * 4)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
        write_structures(folder / "d.h5", data)
    job = start_job(cut)
    state = cut / "results/toy/state/training/iter_000/group_0"
    wait_for(lambda: (last_beat(state / "epoch.json") or {}).get("epoch", 0) >= 3, job, cut)
    job.send_signal(signal.SIGTERM)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=60) == 75
    started, interrupted = read(cut / "results/toy/progress.jsonl")
    assert {key: started[key] for key in ("slurm_job", "mem_mb", "runtime_min", "attempt")} == {
        "slurm_job": "4711", "mem_mb": 4000, "runtime_min": 30, "attempt": 2,
    }  # fmt: skip
    assert interrupted["event"] == "interrupted"
    # Two that arrive together are handled in no order.
    assert interrupted["signal"] in ("SIGTERM", "SIGUSR1")
    assert "state is kept" in interrupted["reason"]
    assert interrupted["wall_s"] > 0
    shown = (cut / "out.txt").read_text()
    assert "Traceback" not in shown
    assert "goes on" in shown
    assert not (cut / "m.safetensors").exists()
    assert start_job(cut).wait(timeout=60) == 0
    assert start_job(whole).wait(timeout=60) == 0
    resumed = [e for e in read(cut / "results/toy/progress.jsonl") if e["event"] == "resumed"]
    assert len(resumed) == 1
    assert resumed[0]["epoch"] == resumed[0]["reached"] >= 3, "nothing is trained twice"
    from safetensors.numpy import load_file

    one, other = load_file(whole / "m.safetensors"), load_file(cut / "m.safetensors")
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[key], other[key], equal_nan=True) for key in one)


def test_a_stage_that_never_looks_is_ended_by_the_signal(tmp_path: Path) -> None:
    code = (
        "import sys, types, time, signal\n"
        "from types import SimpleNamespace as S\n"
        "import dubito.workflow.stage as stage\n"
        "def run(*, output):\n"
        "    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "    print('here', flush=True)\n"
        "    time.sleep(60)\n"
        "module = types.ModuleType('dubito.stages.toy'); module.run = run; sys.modules[module.__name__] = module\n"
        "run.__module__ = module.__name__\n"
        "stage.run_stage('toy', S(rule='toy', threads=1, log=['x.log'], input={}, output={'output': 'o'}, params={},\n"
        "    config={'campaign': {'name': 'toy', 'max_iterations': 1}}, wildcards={}, resources={}))\n"
    )
    job = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert job.stdout is not None
    assert job.stdout.readline() == b"here\n", job.communicate()[1].decode()
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=20) == -signal.SIGTERM
