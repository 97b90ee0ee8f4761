"""The ledger, and what files say themselves of their making."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from dubito import __version__
from dubito.cli.show.accepting import accept_change
from dubito.core import provenance
from dubito.core.errors import DataError, StorageError
from dubito.core.ledger import State, append, read_ledger
from dubito.data.store import read_attributes, read_structures, write_structures
from dubito.labelling.base import Label
from dubito.labelling.cache import LabelCache
from dubito.model.files import hash_potential, read_metadata
from dubito.testing.structures import rattled
from dubito.workflow.ledger import Making, hand_over_code_version


@pytest.fixture(autouse=True)
def no_context(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(provenance.CODE_VARIABLE, raising=False)
    monkeypatch.delenv("DUBITO_CONFIG_SNAPSHOT", raising=False)
    yield
    provenance.set_context()


def write_many(path: str, writer: int) -> None:
    for number in range(40):
        append(Path(path), {"writer": writer, "number": number, "long": "x" * 20_000})


def test_lines_of_several_processes_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "provenance.jsonl"
    jobs = [multiprocessing.get_context("fork").Process(target=write_many, args=(str(path), w)) for w in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted((e["writer"], e["number"]) for e in entries) == [(w, n) for w in range(3) for n in range(40)]


def test_a_line_cut_off_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "provenance.jsonl"
    append(path, {"stage": "a"})
    with path.open("a") as handle:
        handle.write('{"stage": "b", "inp')
    append(path, {"stage": "c"})
    assert [entry["stage"] for entry in read_ledger(path).entries] == ["a", "c"]


def test_full_disk_leaves_whole_lines_and_says_so(small_disk: Path) -> None:
    path = small_disk / "provenance.jsonl"
    append(path, {"stage": "a"})
    with pytest.raises(StorageError, match=r"the disk is full.*start the same command again"):
        append(path, {"stage": "b", "long": "x" * 400_000})
    (small_disk / "room").unlink(missing_ok=True)
    append(path, {"stage": "c"})
    assert [entry["stage"] for entry in read_ledger(path).entries] == ["a", "c"]
    assert path.read_bytes().count(b"\n") == 2


def test_nothing_is_hashed_twice_and_no_change_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, ledger = tmp_path / "a.h5", tmp_path / "provenance.jsonl"
    file.write_bytes(b"content")
    first = read_ledger(ledger).look("a.h5", tmp_path)
    append(ledger, {"stage": "s", "inputs": {"a.h5": first}})
    monkeypatch.setattr("dubito.core.ledger.hash_file", lambda *_: "hashed")
    assert read_ledger(ledger).look("a.h5", tmp_path) == first
    os.utime(file, (1, 1))
    assert read_ledger(ledger).look("a.h5", tmp_path)["sha256"] == "hashed"
    assert read_ledger(ledger).known_hash("a.h5", State(6, first["mtime_ns"])) is None


def job(tmp_path: Path, inputs: list[Path], output: Path) -> SimpleNamespace:
    """What Snakemake gives to a script, as far as the ledger looks at it."""
    return SimpleNamespace(
        config={"campaign": {"name": "small", "seed": 3}},
        params={"stage": 1, "method": "gmm"},
        input=[str(path) for path in inputs],
        output=[str(output)],
    )


def test_a_job_leaves_its_line_and_its_files_carry_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    source, output = Path("source.xyz"), Path("results/small/iter_001/labels/shard_003.h5")
    source.write_text("geometry")
    making = Making("label_structures", 1, "003", job(tmp_path, [source], output))
    write_structures(output, rattled(2))
    making.write({"wall_s": 2.0, "cpu_s": 1.0})
    ledger = read_ledger(Path("results/small/provenance.jsonl"))
    (entry,) = ledger.entries
    assert set(entry) == {
        "stage", "iteration", "part", "time", "outputs", "inputs", "config_hash", "stage_version", "versions", "code",
        "host", "slurm_job", "seed", "params_hash", "wall_s", "cpu_s",
    }  # fmt: skip
    assert (entry["stage"], entry["iteration"], entry["part"], entry["seed"]) == ("label_structures", 1, "003", 3)
    assert entry["slurm_job"] == "99"
    assert ledger.made[str(output)].sha256 == ledger.look(str(output))["sha256"]
    said = read_attributes(output)["created_by"]
    assert said["campaign"] == "small"
    assert said["slurm_job"] == "99"
    assert said["config_hash"] == entry["config_hash"]
    assert said["input_files"] == {"source.xyz": entry["inputs"]["source.xyz"]["sha256"][:16]}


def made_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> Path:
    """Make a file by a job whose line is in the ledger, touched by Snakemake afterwards as all outputs are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dubito.workflow.ledger._AGAIN_S", 0.0)
    path = Path("results/small", name)
    making = Making("train_ensemble", 1, "0", job(tmp_path, [], path))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights" * 1000)
    making.write({"wall_s": 2.0, "cpu_s": 1.0})
    os.utime(path)
    return path


def test_an_input_that_is_not_what_its_job_wrote_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = made_in(monkeypatch, tmp_path, "iter_001/ensemble.safetensors")
    output = Path("results/small/iter_001/metrics.json")
    Making("evaluate", 1, "", job(tmp_path, [weights], output))
    spoiled = bytearray(weights.read_bytes())
    spoiled[700] ^= 4
    weights.write_bytes(spoiled)
    with pytest.raises(DataError, match=rf"{weights} is not what its job wrote.*dubito show --accept {weights}"):
        Making("evaluate", 1, "", job(tmp_path, [weights], output))
    # As the words say: accepted, it is used.
    accept_change(weights)
    Making("evaluate", 1, "", job(tmp_path, [weights], output))


def test_a_line_that_another_machine_sees_late_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = made_in(monkeypatch, tmp_path, "iter_001/ensemble.safetensors")
    weights.write_bytes(b"made anew")
    new = read_ledger(Path("nothing")).look(str(weights))
    ledger = Path("results/small/provenance.jsonl")
    monkeypatch.setattr("time.sleep", lambda _: append(ledger, {"stage": "s", "outputs": {str(weights): new}}))
    Making("evaluate", 1, "", job(tmp_path, [weights], Path("out.json")))


@pytest.mark.parametrize("name", ["summary.json", "report/index.html"])
def test_what_is_rewritten_on_purpose_and_what_no_job_made_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    rewritten = made_in(monkeypatch, tmp_path, name)
    rewritten.write_text("another")
    own = Path("results/small/iter_000/own.h5")
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    Making("publish_report", 1, "", job(tmp_path, [rewritten, own], Path("out.html")))


def test_of_very_many_inputs_a_file_carries_some_and_one_hash(tmp_path: Path) -> None:
    provenance.set_context(campaign="c", inputs={f"results/c/{'x' * 200}/{n:04d}.h5": f"{n:064d}" for n in range(2000)})
    write_structures(tmp_path / "a.h5", rattled(2))  # HDF5 takes 64 KB for an attribute
    said = read_attributes(tmp_path / "a.h5")["created_by"]["input_files"]
    assert len(said) == 41
    assert "and 1960 more" in said


def test_a_label_says_who_made_it_and_older_entries_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    provenance.set_context(campaign="c", stage="label_structures", iteration=2, part="001", inputs={})
    cache = LabelCache(tmp_path, {"method": "test"})
    cache.put("one", Label(energy=1.0, forces=np.zeros((2, 3)), method="m", code_version="v"))
    entry = json.loads(cache.path("one").read_text())
    assert {key: entry["made_by"][key] for key in ("campaign", "iteration", "slurm_job")} == {
        "campaign": "c",
        "iteration": 2,
        "slurm_job": "5",
    }
    assert __version__ in entry["made_by"]["code"]
    before = cache.get("one")
    del entry["made_by"]
    cache.path("one").write_text(json.dumps(entry))
    after = cache.get("one")
    assert isinstance(before, Label)
    assert isinstance(after, Label)
    assert after.energy == before.energy


def test_files_of_before_are_read(tmp_path: Path) -> None:
    structures = rattled(3)
    write_structures(tmp_path / "a.h5", structures)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.attrs["created_by"] = json.dumps({"created": "2026-01-01T00:00:00+00:00", "inputs": {}})
    assert read_structures(tmp_path / "a.h5").ids == structures.ids
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file.attrs["created_by"]
    assert read_structures(tmp_path / "a.h5").ids == structures.ids


def test_the_hash_of_weights_forgets_when_they_were_written(tmp_path: Path) -> None:
    def write(name: str, value: float, made: str) -> str:
        about = {"format": "dubito/potential", "format_version": 1, "model": {}, "provenance": {"created": made}}
        save_file({"w": np.full(3, value)}, tmp_path / name, metadata={"dubito": json.dumps(about)})
        return hash_potential(tmp_path / name)

    first = write("a", 1.0, "monday")
    assert write("b", 1.0, "tuesday") == first
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()
    assert write("c", 1.0000001, "monday") != first
    save_file(
        {"w": np.ones(3)},
        tmp_path / "old",
        metadata={"dubito": json.dumps({"format": "dubito/potential", "format_version": 1, "model": {}})},
    )
    assert read_metadata(tmp_path / "old")["model"] == {}
    assert hash_potential(tmp_path / "old") == first


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("kind", ["loose", "packed", "detached", "worktree"])
def test_the_commit_of_a_checkout(tmp_path: Path, kind: str) -> None:
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n" if kind != "detached" else f"{COMMIT}\n")
    if kind in ("loose", "worktree"):
        (git / "refs" / "heads" / "main").write_text(f"{COMMIT}\n")
    if kind == "packed":
        (git / "packed-refs").write_text(f"# pack-refs\n{'f' * 40} refs/heads/mainly\n{COMMIT} refs/heads/main\n")
    folder = tmp_path
    if kind == "worktree":
        own = git / "worktrees" / "beside"
        own.mkdir(parents=True)
        shutil.copy(git / "HEAD", own / "HEAD")
        (own / "commondir").write_text("../..\n")
        folder = tmp_path / "beside"
        folder.mkdir()
        (folder / ".git").write_text(f"gitdir: {own}\n")
    assert provenance.git_commit(folder) == COMMIT


def test_no_checkout_no_commit(tmp_path: Path) -> None:
    assert provenance.git_commit(tmp_path) is None


def test_the_driver_hands_its_code_version_to_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dubito.workflow.ledger.code_version", lambda: "1.0+gabc")
    monkeypatch.setattr("dubito.workflow.ledger._is_changed", lambda _: True)
    monkeypatch.setenv(provenance.CODE_VARIABLE, "another")  # restored after the test
    hand_over_code_version()
    assert os.environ[provenance.CODE_VARIABLE] == "1.0+gabc.changed"
    assert provenance.describe()["code"] == "1.0+gabc.changed"
