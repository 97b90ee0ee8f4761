"""Files in pieces: equal to files in one, bounded in memory, whole or absent on a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from dubito.core.errors import DataError
from dubito.core.files import atomic_path, partial_prefix
from dubito.data.spill import SpillFile, remove_partials
from dubito.data.store import read_predictions, write_structures
from dubito.data.streaming import StructuresReader, pieces, stream_structures
from dubito.data.structures import Structures
from dubito.stages import _predicting, score_candidates
from dubito.testing.sampler_suite import ToyPredictor
from dubito.testing.structures import crystal, rattled, toy_labels


def mixed() -> Structures:
    """Structures of several sizes, with and without cell, labels and origin."""
    labelled = toy_labels(rattled(300, seed=1)).with_columns(origin__sampler="langevin", origin__iteration=2)
    return Structures.concatenate([labelled, crystal(30), rattled(40, seed=2)])


def write_in_pieces(path: Path, structures: Structures, step: int = 37) -> None:
    said = ToyPredictor(doubt=0.1).predict(structures).fields()
    ptr = structures.ptr
    with stream_structures(
        path, n=len(structures), n_atoms=int(ptr[-1]), columns=structures.columns, attributes={"steps": 3}
    ) as writer:
        for start in range(0, len(structures), step):
            rows = slice(start, min(start + step, len(structures)))
            atoms = slice(ptr[rows.start], ptr[rows.stop])
            part = {k: v[rows] if len(v) == len(structures) else v[atoms] for k, v in said.items()}
            writer.append(structures[rows], {"toy": part})


def test_a_file_in_pieces_is_the_file_in_one(tmp_path: Path) -> None:
    structures = mixed()
    said = ToyPredictor(doubt=0.1).predict(structures).fields()
    write_structures(tmp_path / "one.h5", structures, predictions={"toy": said}, attributes={"steps": 3})
    write_in_pieces(tmp_path / "many.h5", structures)
    with h5py.File(tmp_path / "one.h5") as one, h5py.File(tmp_path / "many.h5") as many:
        names: list[str] = []
        one.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        found: list[str] = []
        many.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        assert sorted(found) == sorted(names)
        for name in names:
            np.testing.assert_array_equal(many[name][()], one[name][()], err_msg=name)
            assert (many[name].chunks, many[name].compression) == (one[name].chunks, one[name].compression), name
            assert (many[name].dtype, dict(many[name].attrs)) == (one[name].dtype, dict(one[name].attrs)), name
        assert {k: v for k, v in many.attrs.items() if k != "created_by"} == {
            k: v for k, v in one.attrs.items() if k != "created_by"
        }


def test_reading_in_pieces_and_by_index(tmp_path: Path) -> None:
    structures = mixed()
    write_in_pieces(tmp_path / "a.h5", structures)
    said = read_predictions(tmp_path / "a.h5")["toy"]
    with StructuresReader(tmp_path / "a.h5") as reader:
        parts = [reader.structures(piece) for piece in pieces(reader.n_atoms, 50, 200)]
        back = Structures.concatenate(parts)
        assert back.ids == structures.ids
        np.testing.assert_array_equal(back.forces, structures.forces)
        rows = np.array([5, 6, 7, 369, 2, 300])
        assert reader.take(rows).ids == structures[rows].ids
        taken = reader.take_predictions("toy", rows)
        np.testing.assert_array_equal(taken["energy"], said["energy"][rows])
        atoms = np.concatenate([np.arange(structures.ptr[i], structures.ptr[i + 1]) for i in rows])
        np.testing.assert_array_equal(taken["forces"], said["forces"][atoms])
        assert len(reader.take(rows[:0])) == 0
        assert reader.take_predictions("toy", rows[:0])["forces"].shape == (0, 3)
        assert set(reader.structures(slice(0, 3), ["origin/sampler"]).columns) == {"origin/sampler"}


def test_pieces_keep_both_limits() -> None:
    n_atoms = np.array([3, 3, 3, 50, 3, 3, 3, 3, 3])
    found = [(p.start, p.stop) for p in pieces(n_atoms, 4, 9)]
    assert found == [(0, 3), (3, 4), (4, 7), (7, 9)]
    assert [(p.start, p.stop) for p in pieces(np.full(5, 1), 2, 99)] == [(0, 2), (2, 4), (4, 5)]
    assert list(pieces(np.zeros(0, int), 2, 99)) == []


def test_a_half_written_file_is_never_there(tmp_path: Path) -> None:
    path, structures = tmp_path / "a.h5", rattled(10)
    path.write_text("the old content")
    with pytest.raises(DataError, match="Only 4 of 10"), stream_structures(path, n=10, n_atoms=500) as writer:
        writer.append(structures[:4])
    with pytest.raises(DataError, match="shape"), stream_structures(path, n=10, n_atoms=500) as writer:
        writer.append(structures[:4], {"toy": {"energy": np.zeros(5)}})
    said = {"toy": {"energy": np.zeros(2)}}
    for later in ({"toy": {"energy_score": np.zeros(2)}}, {}, {"toy": said["toy"] | {"energy_score": np.zeros(2)}}):
        with stream_structures(tmp_path / "b.h5", n=4, n_atoms=int(structures[:4].ptr[-1])) as writer:
            writer.append(structures[:2], said)
            with pytest.raises(DataError, match=r"number 2 on.*'toy/energy'.*same"):
                writer.append(structures[2:4], later)
            writer.append(structures[2:4], said)
        (tmp_path / "b.h5").unlink()
    assert path.read_text() == "the old content"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_and_the_rest_stays(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    a, b = (str(tmp_path / partial_prefix(tmp_path / name)) for name in ("a.h5", "b.h5"))
    left, own = Path(f"{a}{dead.pid}.partial"), Path(f"{a}{os.getpid()}.partial")
    alive, other = Path(f"{a}{os.getppid()}.partial"), Path(f"{b}{dead.pid}.partial")
    # A number that is dead here may be alive there.
    elsewhere = tmp_path / f".a.h5.another-node-example-org.{dead.pid}.partial"
    for path in (left, own, alive, other, elsewhere):
        path.write_text("half")
    remove_partials(tmp_path / "a.h5")
    assert sorted(tmp_path.iterdir()) == sorted([own, alive, other, elsewhere])


def test_the_machine_is_in_the_name_of_a_half_written_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dubito.core.files.socket.gethostname", lambda: "node7.cluster.example")
    with atomic_path(tmp_path / "a.h5") as partial:
        assert partial.name == f".a.h5.node7-cluster-example.{os.getpid()}.partial"
        partial.write_text("whole")


# --- a full disk ------------------------------------------------------------------------------------------


FILL = """
import sys
from pathlib import Path
from dubito.core.errors import StorageError
from dubito.data.streaming import stream_structures
from dubito.testing.structures import rattled
path, part = Path(sys.argv[1]), rattled(100)
try:
    with stream_structures(path, n=20000, n_atoms=200 * int(part.ptr[-1])) as writer:
        for _ in range(200):
            writer.append(part)
except StorageError as error:
    assert "disk is full" in str(error), error
    print("told")
"""


def test_a_full_disk_is_told_and_the_process_lives(small_disk: Path) -> None:
    path = small_disk / "a.h5"
    path.write_text("the old content")
    # In a process of its own: HDF5 crashes at its end, if at all.
    done = subprocess.run([sys.executable, "-c", FILL, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "told\n"), done.stderr
    assert path.read_text() == "the old content"
    assert list(small_disk.iterdir()) == [path]


def test_after_a_failed_write_the_file_still_reads_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SpillFile(tmp_path / "a") as sink:
        sink.write(b"0123456789")

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("dubito.data.spill.os.pwrite", full)
        sink.seek(4)
        sink.write(b"abcdefghij")
        sink.seek(6)
        sink.write(b"XY")
        sink.seek(0)
        assert sink.read() == b"0123abXYefghij"
        with pytest.raises(OSError, match="No space left"):
            sink.check()


# --- memory ------------------------------------------------------------------------------------------------


class Foreign(ToyPredictor):
    """A predictor that keeps no record of its batches."""

    def predict(self, structures: Structures):  # type: ignore[no-untyped-def]
        self.batches.clear()
        return super().predict(structures)


def peak_of_scoring(folder: Path, n: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the peak of Python's and numpy's memory while a pool of ``n`` structures is scored, bytes."""
    monkeypatch.setattr("dubito.uncertainty.registry.load_method", lambda *_, **__: Foreign(doubt=0.1))
    pool, block = folder / f"pool_{n}.h5", rattled(200, seed=3)
    with stream_structures(pool, n=n, n_atoms=n // 200 * int(block.ptr[-1]), columns=block.columns) as writer:
        for _ in range(n // 200):
            writer.append(block)
    nothing = Path("unused")
    tracemalloc.start()
    score_candidates.run(
        ensemble=nothing, uncertainty=nothing, method="toy", pool=[pool], output=folder / f"s_{n}.h5", threads=1
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    with StructuresReader(folder / f"s_{n}.h5") as reader:
        assert (len(reader), reader.methods) == (n, ["toy"])
    return peak


def test_memory_does_not_grow_with_the_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_predicting, "PIECE_STRUCTURES", 100)
    small, large = (peak_of_scoring(tmp_path, n, monkeypatch) for n in (400, 6400))
    # Ids and ptr are kept, some 100 bytes of Python for each structure; its arrays are ten times that.
    per_structure = (large - small) / 6000
    n_arrays = 8 * (3 + 3 + 3) * int(rattled(200, seed=3).ptr[-1]) / 200
    assert per_structure < 250
    assert n_arrays > 250, "the bound would hold for whole pools as well"
