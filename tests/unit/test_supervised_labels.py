"""Labels in a child process: a crash costs one structure, a kill costs nothing that was finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dubito.config.labelling import LabellingConfig, TeacherConfig
from dubito.core import interrupt
from dubito.core.errors import DataError, EnvironmentFault, LabelError, MemoryFault
from dubito.core.files import read_json
from dubito.core.heartbeat import labelling_heartbeat, last_beat
from dubito.core.interrupt import Interrupted, listening
from dubito.core.progress import record
from dubito.core.supervise import Ended, in_child
from dubito.data.store import read_structures, write_structures
from dubito.data.structures import Structures
from dubito.labelling.base import Label
from dubito.labelling.cache import LabelCache
from dubito.labelling.teacher import TeacherLabeller
from dubito.stages import label_structures as stage
from dubito.testing.structures import rattled

SIX = rattled(6, molecules="ammonia")


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    interrupt.forget()


# --- a child ----------------------------------------------------------------------------------


def test_what_a_child_says_and_returns_arrives_in_order() -> None:
    heard: list[Any] = []

    def work(say: Callable[[Any], None]) -> dict[str, int]:
        for i in range(300):
            say([i, "x" * 500])
        return {"pid": os.getpid()}

    ended = in_child(work, heard.append)
    assert [one[0] for one in heard] == list(range(300))
    assert ended.value["pid"] != os.getpid()


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGFPE", "SIGKILL"])
def test_how_a_child_died_is_known_and_so_is_what_it_said_before(name: str) -> None:
    heard: list[Any] = []

    def work(say: Callable[[Any], None]) -> None:
        say("last words")
        os.kill(os.getpid(), getattr(signal, name))

    assert in_child(work, heard.append) == Ended(died_of=name)
    assert heard == ["last words"]


def test_a_library_that_calls_exit_is_noticed() -> None:
    assert in_child(lambda say: os._exit(3), print) == Ended(died_of="exit code 3")


def test_faults_of_a_child_are_those_of_its_parent() -> None:
    def fault(error: Exception) -> Callable[[Any], None]:
        def work(say: Any) -> None:
            raise error

        return work

    with pytest.raises(LabelError, match="no such method"):
        in_child(fault(LabelError("no such method")), print)
    with pytest.raises(RuntimeError, match=r"(?s)child process.*ZeroDivisionError: boom"):
        in_child(fault(ZeroDivisionError("boom")), print)


def test_a_request_to_stop_is_passed_on() -> None:
    def work(say: Callable[[Any], None]) -> None:
        say("ready")
        end = time.monotonic() + 30
        while time.monotonic() < end:
            interrupt.check("Here.")
            time.sleep(0.01)

    with listening(), pytest.raises(Interrupted, match="Here") as caught:
        in_child(work, lambda message: os.kill(os.getpid(), signal.SIGTERM))
    assert caught.value.signal == "SIGTERM"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_child_dies_with_its_parent() -> None:
    code = (
        "import os, time\nfrom dubito.core.supervise import in_child\n"
        "def work(say):\n    say(os.getpid())\n    time.sleep(60)\n"
        "in_child(work, lambda pid: print(pid, flush=True))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        # A zombie waits for whoever adopted it; it does nothing any more.
        status = Path(f"/proc/{child}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.02)
    pytest.fail("the child outlived its parent")


# --- the stage --------------------------------------------------------------------------------


class Treacherous(TeacherLabeller):
    """A teacher that does to its process, at some structures, what it is told."""

    faults: ClassVar[dict[str, Callable[[], Any]]] = {}
    trace: ClassVar[Path] = Path()

    def __init__(self, config: Any = None, *, threads: int = 1) -> None:
        super().__init__(TeacherConfig(kind="teacher"), threads=threads)

    def label(self, structure: Structures) -> Label:
        with self.trace.open("a") as trace:
            trace.write(structure.ids[0] + "\n")
        self.faults.get(structure.ids[0], lambda: None)()
        return super().label(structure)


def kill_me(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run the stage as the shard 0 of iteration 2 of the campaign ``toy`` with planted faults."""
    monkeypatch.setattr(Treacherous, "faults", {})
    monkeypatch.setattr(Treacherous, "trace", tmp_path / "trace")
    monkeypatch.setattr(stage, "make_labeller", lambda config, threads: Treacherous(config, threads=threads))
    folder = tmp_path / "results" / "toy" / "iter_002"
    folder.mkdir(parents=True)
    write_structures(folder / "selected.h5", SIX.with_columns(origin__iteration=[2] * 6))

    def run(faults: dict[int, Callable[[], Any]] | None = None) -> str:
        Treacherous.faults.update({SIX.ids[i]: fault for i, fault in (faults or {}).items()})
        return stage.run(
            selected=folder / "selected.h5", shard=0, structures_per_shard=6, output=folder / "labels" / "shard_000.h5",
            report=folder / "labels" / "shard_000.json", cache=tmp_path / "results" / "label_cache",
            labelling=LabellingConfig(labeller={"kind": "teacher"}), threads=1,  # type: ignore[arg-type]
        )  # fmt: skip

    return run


def trace(tmp_path: Path) -> list[str]:
    # Checks of labels ask for some more, of neighbouring geometries.
    return [key for key in (tmp_path / "trace").read_text().split() if key in SIX.ids]


def beat_of(tmp_path: Path) -> dict[str, Any]:
    found = last_beat(labelling_heartbeat(tmp_path / "results" / "toy", 2, 0))
    assert found is not None
    return found


def test_a_segmentation_fault_costs_one_structure(tmp_path: Path, job: Callable[..., str]) -> None:
    said = job({1: kill_me(signal.SIGSEGV), 4: kill_me(signal.SIGFPE)})
    assert said == "4 of 6 structures labelled; 2 failed (crashed)"
    report = read_json(tmp_path / "results/toy/iter_002/labels/shard_000.json")
    assert (report["done"], report["reused"]) == (4, 0), "what this very job made was not known before"
    assert [(f["id"], f["reason"]) for f in report["failed"]] == [(SIX.ids[1], "crashed"), (SIX.ids[4], "crashed")]
    assert "ended with SIGSEGV" in report["failed"][0]["message"]
    assert "ended with SIGFPE" in report["failed"][1]["message"]
    labelled = read_structures(tmp_path / "results/toy/iter_002/labels/shard_000.h5")
    assert labelled.column("labels/mask").tolist() == [True, False, True, True, False, True]
    assert sorted(trace(tmp_path)) == sorted(SIX.ids), "each structure was tried once"
    shown = beat_of(tmp_path)
    assert {key: shown[key] for key in ("done", "failed", "of", "in_flight")} == {
        "done": 4, "failed": 2, "of": 6, "in_flight": None,
    }  # fmt: skip


def test_the_labels_are_those_of_a_run_without_a_crash(tmp_path: Path, job: Callable[..., str]) -> None:
    job({2: lambda: os._exit(1)})
    crashed = read_structures(tmp_path / "results/toy/iter_002/labels/shard_000.h5")
    Treacherous.faults.clear()
    assert job() == "6 of 6 structures labelled, 5 of them known already", "what crashed is tried again by the next job"
    whole = read_structures(tmp_path / "results/toy/iter_002/labels/shard_000.h5")
    kept = [0, 1, 3, 4, 5]
    assert (crashed.energy[kept] == whole.energy[kept]).all()


def test_out_of_memory_ends_the_job_and_says_so(tmp_path: Path, job: Callable[..., str]) -> None:
    with pytest.raises(MemoryFault, match=rf"SIGKILL.*structure {SIX.ids[3]}.*mem_mb") as caught:
        job({3: kill_me(signal.SIGKILL)})
    assert isinstance(caught.value, EnvironmentFault)
    assert not (tmp_path / "results/toy/iter_002/labels/shard_000.h5").exists()
    Treacherous.faults.clear()
    job()
    assert trace(tmp_path).count(SIX.ids[0]) == 1, "finished labels are kept"


def test_a_process_that_dies_with_nothing_in_hand_blames_no_structure(
    job: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "make_labeller", lambda *_, **__: os.kill(os.getpid(), signal.SIGSEGV))
    with pytest.raises(EnvironmentFault, match="SIGSEGV before or after the labels"):
        job()


def test_a_request_stops_between_structures(tmp_path: Path, job: Callable[..., str]) -> None:
    def ask() -> None:
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(0.7)  # long enough for the parent to pass it on

    with listening(), pytest.raises(Interrupted, match="in the cache"):
        job({2: ask})
    assert trace(tmp_path) == list(SIX.ids[:3]), "the one in hand was finished, no other begun"
    Treacherous.faults.clear()
    assert job() == "6 of 6 structures labelled, 3 of them known already"


def test_the_structure_in_hand_is_shown(tmp_path: Path, job: Callable[..., str]) -> None:
    def look() -> None:
        time.sleep(0.1)
        (tmp_path / "seen").write_text(json.dumps(beat_of(tmp_path)))

    job({3: look})
    seen = read_json(tmp_path / "seen")
    assert {key: seen[key] for key in ("done", "failed", "of", "in_flight")} == {
        "done": 3, "failed": 0, "of": 6, "in_flight": SIX.ids[3],
    }  # fmt: skip


def test_an_unreadable_input_is_told_before_any_child(job: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "results/toy/iter_002/selected.h5").write_bytes(b"no")
    with pytest.raises(DataError):
        job()


# --- a structure that outlasts every time limit -----------------------------------------------


def died(tmp_path: Path, reason: str, in_flight: str = SIX.ids[2], **changes: Any) -> None:
    event = {"stage": "label_structures", "iteration": 2, "part": "000", "slurm_job": "7"} | changes
    record(tmp_path / "results/toy/progress.jsonl", event="died", reason=reason, in_flight=in_flight, **event)


def test_after_three_time_outs_with_it_in_hand_a_structure_is_given_up(tmp_path: Path, job: Callable[..., str]) -> None:
    for _ in range(3):
        died(tmp_path, "timeout")
    assert job() == "5 of 6 structures labelled; 1 failed (crashed)"
    (failed,) = read_json(tmp_path / "results/toy/iter_002/labels/shard_000.json")["failed"]
    assert failed["id"] == SIX.ids[2]
    assert "3 jobs" in failed["message"]
    assert SIX.ids[2] not in trace(tmp_path)


def test_a_label_that_is_known_after_all_is_taken(tmp_path: Path, job: Callable[..., str]) -> None:
    job()
    for _ in range(3):
        died(tmp_path, "timeout")
    assert job() == "6 of 6 structures labelled, 6 of them known already"


@pytest.mark.parametrize("reason", ["cancelled", "node_fail", "unknown", "out_of_memory"])
def test_kills_from_outside_give_up_nothing(tmp_path: Path, job: Callable[..., str], reason: str) -> None:
    for _ in range(5):
        died(tmp_path, reason)
    died(tmp_path, "timeout")
    died(tmp_path, "timeout")
    died(tmp_path, "timeout", part="001")
    died(tmp_path, "timeout", iteration=1)
    died(tmp_path, "timeout", in_flight=SIX.ids[1])
    assert job() == "6 of 6 structures labelled"


def test_time_outs_before_the_job_finished_count_no_longer(tmp_path: Path, job: Callable[..., str]) -> None:
    for _ in range(3):
        died(tmp_path, "timeout")
    path = tmp_path / "results/toy/progress.jsonl"
    record(path, event="finished", stage="label_structures", iteration=2, part="000")
    assert job() == "6 of 6 structures labelled"


def test_labels_of_the_teacher_are_in_the_cache_of_its_settings(tmp_path: Path, job: Callable[..., str]) -> None:
    job()
    settings = Treacherous().settings()
    cache = LabelCache(tmp_path / "results" / "label_cache", settings)
    assert all(isinstance(cache.get(key), Label) for key in SIX.ids)
