"""The lowest layer: files that are whole or absent, locks that die with their holder, progress, seeds, units."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubito.core import units
from dubito.core.errors import DataError, EnvironmentFault, StorageError, nearest, unknown_name
from dubito.core.files import atomic_path, read_json, write_json, write_text
from dubito.core.hashing import hash_json, structure_id
from dubito.core.locks import exclusive
from dubito.core.progress import read, record
from dubito.core.random import generator, seed_for

# --- files --------------------------------------------------------------------------------------------


def test_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"value": 1})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk is full") as caught:
        write_json(path, {"value": 2})
    assert str(path) in str(caught.value)
    assert "start the same command again" in str(caught.value)
    assert read_json(path) == {"value": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux only")
def test_a_really_full_device_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"

    def write() -> None:
        with atomic_path(path) as partial:
            partial.symlink_to("/dev/full")
            partial.write_text("x" * 100_000)

    with pytest.raises(StorageError, match="disk is full"):
        write()
    assert not path.exists()


def test_forbidden_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Could not write"):
        write_text(tmp_path / "file" / "below", "x")


def test_interrupted_writer_leaves_no_partial(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_path(tmp_path / "a") as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == []


def test_equal_content_has_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"x": np.float64(1.5), "y": np.arange(3), "z": {"b", "a"}})
    write_json(tmp_path / "b", {"z": {"a", "b"}, "y": [0, 1, 2], "x": 1.5})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_broken_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(DataError, match="does not exist"):
        read_json(tmp_path / "b.json")


# --- locks --------------------------------------------------------------------------------------------


def _hold(path: Path, seconds: float) -> None:
    with exclusive(path):
        time.sleep(seconds)


def _wait_until_held(path: Path) -> None:
    for _ in range(400):
        if path.exists() and path.read_text().startswith("pid"):
            return
        time.sleep(0.02)
    raise TimeoutError(path)


def test_a_held_lock_is_waited_for_and_its_holder_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(path, 60))
    holder.start()
    try:
        _wait_until_held(path)
        with pytest.raises(EnvironmentFault, match=f"pid {holder.pid} on "), exclusive(path, wait_s=0.1, poll_s=0.02):
            pass
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGKILL)
        with exclusive(path, wait_s=5):  # a killed holder holds nothing
            pass
    finally:
        holder.kill()
        holder.join()


def test_a_lock_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with exclusive(tmp_path / "deep" / "lock", wait_s=1):
            pass


# --- progress -----------------------------------------------------------------------------------------


def test_events_of_many_writers_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    code = (
        "import sys; from pathlib import Path; from dubito.core.progress import record\n"
        "for i in range(200): record(Path(sys.argv[1]), event='finished', writer=sys.argv[2], number=i, text='x' * 300)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), str(w)]) for w in range(3)]
    assert [w.wait() for w in writers] == [0, 0, 0]
    events = read(path)
    assert len(events) == 600
    for writer in "012":
        assert [e["number"] for e in events if e["writer"] == writer] == list(range(200))


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    record(path, event="started", stage="decide")
    with path.open("a") as handle:
        handle.write('{"event": "fin')
    assert [e["event"] for e in read(path)] == ["started"]
    assert read(tmp_path / "none.jsonl") == []


def test_progress_that_can_not_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    record(tmp_path / "file" / "progress.jsonl", event="started")


# --- seeds and hashes -----------------------------------------------------------------------------------


@given(st.integers(0, 2**31 - 1), st.lists(st.one_of(st.integers(0, 99), st.text("abc", max_size=3)), max_size=3))
def test_seeds_depend_on_seed_and_scope_alone(seed: int, scope: list[str | int]) -> None:
    assert seed_for(seed, *scope) == seed_for(seed, *scope)
    assert 0 <= seed_for(seed, *scope) < 2**63
    assert seed_for(seed, *scope) != seed_for(seed + 1, *scope)
    assert seed_for(seed, *scope, "more") != seed_for(seed, *scope)


def test_random_numbers_are_fixed_for_ever() -> None:
    # A change of these breaks the reproducibility of every published campaign.
    assert seed_for(2026, "member", 0) == 8998426563751991888
    assert generator(2026, "select").integers(0, 1000, 4).tolist() == [173, 108, 427, 446]


def test_hash_does_not_depend_on_key_order() -> None:
    assert hash_json({"a": 1, "b": [1, 2]}) == hash_json({"b": [1, 2], "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": 2})


def _identity(positions: np.ndarray, charge: int = 0, multiplicity: int = 1) -> str:
    return structure_id(np.array([8, 1, 1]), positions, np.zeros((3, 3)), np.zeros(3, bool), charge, multiplicity)


def test_identity_of_a_structure() -> None:
    positions = np.arange(9.0).reshape(3, 3)
    assert _identity(positions) == _identity(positions + 1e-9)  # extxyz keeps eight decimals
    assert _identity(positions) != _identity(positions + 1e-4)
    assert _identity(positions) != _identity(positions, charge=1)
    assert _identity(positions) != _identity(positions, multiplicity=3)
    zero = np.zeros((3, 3))
    assert _identity(zero) == _identity(-zero)


# --- units ----------------------------------------------------------------------------------------------


def test_units_agree_with_each_other() -> None:
    # The Hartree atomic unit of force, 8.2387235038e-8 N (CODATA 2018), is 51.4220675 eV/Angstrom.
    assert units.force_factor("hartree/bohr") == pytest.approx(51.42206747, rel=1e-9)
    assert units.force_factor("kcal/mol/Angstrom") == pytest.approx(units.KCAL_PER_MOL_EV)
    assert units.energy_factor("kcal/mol") == pytest.approx(4.184 * units.energy_factor("kJ/mol"), rel=1e-12)
    assert units.energy_factor("Ry") * 2 == units.energy_factor("Hartree")
    # 1 u A^2/fs^2 = 103.6426966 eV, so that the natural time unit is its square root in fs.
    natural_time, boltzmann = units.ANGSTROM_SQRT_U_PER_EV_FS, units.BOLTZMANN_EV_PER_K
    assert natural_time**2 == pytest.approx(103.64269, rel=1e-6)
    assert boltzmann * 300 == pytest.approx(0.0258520, rel=1e-5)


@pytest.mark.parametrize(
    ("call", "unit", "hint"),
    [
        (units.energy_factor, "hartre", "'hartree'"),
        (units.length_factor, "angstrm", "'angstrom'"),
        (units.force_factor, "eV", "energy/length"),
        (units.force_factor, "eV/feet", "not a known length unit"),
    ],
)
def test_unknown_units_are_errors(call: object, unit: str, hint: str) -> None:
    with pytest.raises(DataError, match=hint):
        call(unit)  # type: ignore[operator]


def test_nearest_names() -> None:
    assert nearest("ensembel", ["ensemble", "gmm"]) == "ensemble"
    assert nearest("zzz", ["ensemble"]) is None
    assert unknown_name("method", "ensembel", ["ensemble"]) == (
        "'ensembel' is not a known method. Did you mean 'ensemble'? Known: ensemble."
    )


def test_light_layers_import_no_torch() -> None:
    code = (
        "import sys, dubito.config, dubito.core.progress, dubito.workflow.stage, dubito.workflow.driver, dubito.cli\n"
        "heavy = {'torch', 'pyscf', 'ase', 'pandas', 'snakemake', 'altair'} & set(sys.modules)\n"
        "import json; print(json.dumps(sorted(heavy)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(out) == []
