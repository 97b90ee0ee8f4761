"""Model files: what is written comes back, what is wrong is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dubito import load_potential
from dubito.config.model import ModelConfig
from dubito.core.errors import ModelError
from dubito.data.statistics import fit_statistics
from dubito.model.artifact import save_potential
from dubito.model.files import merge_files, read_metadata
from dubito.model.potential import Potential
from dubito.testing.structures import rattled, toy_labels


def saved(path: Path, members: list[int], seed: int = 1, dtype: str = "float64") -> Potential:
    statistics = fit_statistics(toy_labels(rattled(6)), 3.5)
    potential = Potential(ModelConfig(n_features=4, n_layers=1, dtype=dtype), statistics, len(members))  # type: ignore[arg-type]
    potential.initialise(seed, members)
    save_potential(path, potential, provenance={"note": "test"}, members=members)
    return potential


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip_is_exact(tmp_path: Path, dtype: str) -> None:
    before = saved(tmp_path / "a.safetensors", [0, 1], dtype=dtype)
    after = load_potential(tmp_path / "a.safetensors")
    structures = rattled(3, seed=9)
    np.testing.assert_array_equal(after.predict(structures).forces, before.predict(structures).forces)
    np.testing.assert_array_equal(after.predict(structures).energy, before.predict(structures).energy)
    assert read_metadata(tmp_path / "a.safetensors")["units"] == {"energy": "eV", "length": "Angstrom"}


def test_merged_members_are_the_originals_in_order(tmp_path: Path) -> None:
    one = saved(tmp_path / "a.safetensors", [2, 0])
    two = saved(tmp_path / "b.safetensors", [1])
    members = merge_files([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], tmp_path / "m.safetensors",
                          provenance={})  # fmt: skip
    assert members == [0, 1, 2]
    structures = rattled(2, seed=9)
    merged = load_potential(tmp_path / "m.safetensors").predict(structures).energy_ensemble
    a, b = one.predict(structures).energy_ensemble, two.predict(structures).energy_ensemble
    assert merged is not None and a is not None and b is not None
    np.testing.assert_allclose(merged, np.column_stack([a[:, 1], b[:, 0], a[:, 0]]), atol=1e-10)


def test_what_can_not_be_merged_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a.safetensors", [0])
    saved(tmp_path / "b.safetensors", [0])
    saved(tmp_path / "c.safetensors", [1], dtype="float32")
    for other, message in (("b", "share members"), ("c", "differ in model")):
        with pytest.raises(ModelError, match=message):
            merge_files([tmp_path / "a.safetensors", tmp_path / f"{other}.safetensors"], tmp_path / "m.safetensors",
                        provenance={})  # fmt: skip


def test_bad_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(ModelError, match="does not exist"):
        load_potential(path)
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(ModelError, match="not a readable"):
        load_potential(path)
    save_file({"x": np.zeros(1)}, path)
    with pytest.raises(ModelError, match="no dubito metadata"):
        load_potential(path)
    saved(path, [0, 1])
    metadata, weights = read_metadata(path), load_file(path)
    save_file(weights, path, metadata={"dubito": json.dumps({**metadata, "format_version": 99})})
    with pytest.raises(ModelError, match="newer dubito"):
        load_potential(path)
    name = next(iter(weights))
    weights[name] = weights[name][:1]
    save_file(weights, path, metadata={"dubito": json.dumps(metadata)})
    with pytest.raises(ModelError, match="another shape"):
        load_potential(path)
