"""The HDF5 schema: what goes in comes out, and what is wrong is refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dubito.core.errors import DataError
from dubito.core.fields import ALL
from dubito.data.store import read_attributes, read_predictions, read_structures, write_structures
from dubito.data.structures import Structures
from dubito.testing.structures import crystal, rattled, toy_labels


def everything() -> Structures:
    """Structures with every column of the schema filled."""
    labels = toy_labels(rattled(3, seed=1))
    rng = np.random.default_rng(0)
    columns = {}
    for field in ALL:
        if "/" not in field.path or field.path in labels.columns:
            continue
        rows = 3 if field.level == "structure" else int(labels.ptr[-1])
        shape = (rows, *field.shape)
        columns[field.path.replace("/", "__")] = (
            np.array([f"text {i}" for i in range(rows)], dtype="S16")
            if field.dtype.startswith("S")
            else rng.integers(0, 9, size=shape)
        )
    return labels.with_columns(**columns)


def test_round_trip_of_every_field(tmp_path: Path) -> None:
    before = everything()
    write_structures(tmp_path / "a.h5", before, attributes={"note": [1, 2]})
    after = read_structures(tmp_path / "a.h5")
    assert after.ids == before.ids
    assert set(after.columns) == set(before.columns) == {f.path for f in ALL if "/" in f.path}
    for path, values in before.columns.items():
        np.testing.assert_array_equal(after.column(path), values, err_msg=path)
    assert read_attributes(tmp_path / "a.h5")["note"] == [1, 2]


def test_predictions_round_trip(tmp_path: Path) -> None:
    structures = rattled(3)
    arrays = {"energy": np.arange(3.0), "forces": np.ones((len(structures.positions), 3)),
              "energy_ensemble": np.arange(12.0).reshape(3, 4)}  # fmt: skip
    write_structures(tmp_path / "a.h5", structures, predictions={"ensemble": arrays})
    back = read_predictions(tmp_path / "a.h5")["ensemble"]
    for name, values in arrays.items():
        np.testing.assert_array_equal(back[name], values)


def test_large_files_are_chunked_and_equal(tmp_path: Path) -> None:
    structures = toy_labels(rattled(700))
    write_structures(tmp_path / "a.h5", structures)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["positions"].chunks is not None
    np.testing.assert_array_equal(read_structures(tmp_path / "a.h5").positions, structures.positions)


def test_every_dimensional_array_has_its_unit(tmp_path: Path) -> None:
    write_structures(tmp_path / "a.h5", everything())
    with h5py.File(tmp_path / "a.h5") as file:
        for field in ALL:
            assert file[field.path].attrs.get("unit") == field.unit


@pytest.mark.parametrize("unit", [None, "Hartree"])
def test_wrong_or_missing_unit_is_refused(tmp_path: Path, unit: str | None) -> None:
    write_structures(tmp_path / "a.h5", toy_labels(rattled(2)))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["labels/energy"].attrs["unit"]
        if unit:
            file["labels/energy"].attrs["unit"] = unit
    with pytest.raises(DataError, match=r"labels/energy has unit .*, expected 'eV'"):
        read_structures(tmp_path / "a.h5")


def test_newer_schema_foreign_file_truncated_file_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with pytest.raises(DataError, match="does not exist"):
        read_structures(path)
    write_structures(path, rattled(2))
    whole = path.read_bytes()
    with h5py.File(path, "a") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(DataError, match="Install a newer dubito"):
        read_structures(path)
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with pytest.raises(DataError, match="not a dubito structures file"):
        read_structures(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cut off"):
        read_structures(path)


def test_wrong_shape_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_structures(path, rattled(2))
    before = path.read_bytes()
    with pytest.raises(DataError, match="shape"):
        write_structures(path, rattled(2), predictions={"ensemble": {"energy": np.zeros(5)}})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_selecting_and_joining() -> None:
    structures = Structures.concatenate([toy_labels(rattled(4)), crystal(2)])
    assert len(structures) == 6
    assert structures.is_labelled.tolist() == [True] * 4 + [False] * 2
    assert np.isnan(structures.energy[4:]).all()
    back = Structures.concatenate([structures[i] for i in range(6)])
    assert back.ids == structures.ids
    mask = structures[structures.is_labelled]
    np.testing.assert_array_equal(mask.forces, structures.forces[: int(structures.ptr[4])])
    with pytest.raises(DataError, match="2 have no label"):
        structures.require_labels("the file")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=8))
def test_any_selection_equals_its_parts(index: list[int]) -> None:
    structures = toy_labels(rattled(6))
    chosen = structures[np.array(index, int)]
    assert chosen.ids == [structures.ids[i] for i in index]
    np.testing.assert_array_equal(chosen.energy, structures.energy[index] if index else np.zeros(0))


def test_ids_see_what_matters_and_nothing_else() -> None:
    from dataclasses import replace

    one = rattled(1)
    nudged = replace(one, positions=one.positions + 1e-9)
    moved = replace(one, positions=one.positions + 1e-3)
    charged = replace(one, charge=one.charge + 1)
    assert one.ids == nudged.ids
    assert len({*one.ids, *moved.ids, *charged.ids}) == 3


def test_bad_arrays_are_refused() -> None:
    with pytest.raises(DataError, match="not finite"):
        Structures.build([[1]], [[[np.nan, 0, 0]]])
    with pytest.raises(DataError, match="Structure 1 has no atoms"):
        Structures.build([[1], []], [[[0, 0, 0]], np.zeros((0, 3))])
    with pytest.raises(DataError, match="Atomic numbers"):
        Structures.build([[0]], [[[0, 0, 0]]])
    with pytest.raises(DataError, match="not a column"):
        rattled(1).with_columns(labels__enegry=1.0)
