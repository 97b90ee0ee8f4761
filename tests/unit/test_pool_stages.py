"""Stages around the pool: initial structures, exploring, scoring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubito.config.data import DataConfig
from dubito.config.sampling import LangevinConfig, SamplingConfig
from dubito.core.errors import ConfigError
from dubito.data.formats import write_extxyz
from dubito.data.store import read_attributes, read_predictions, read_structures, write_structures
from dubito.data.structures import Structures
from dubito.stages import explore_structures, prepare_structures, score_candidates
from dubito.testing.sampler_suite import ToyPredictor
from dubito.testing.structures import rattled, toy_labels


def prepare(folder: Path, seed: int = 1, **initial: Any) -> tuple[Structures, str]:
    line = prepare_structures.run(output=folder / "c.h5", data=DataConfig(initial=initial), seed=seed)
    return read_structures(folder / "c.h5"), line


class TestPrepare:
    def test_rattled(self, tmp_path: Path) -> None:
        found, line = prepare(tmp_path, kind="rattle", molecule="NH3", n_structures=400, displacement_angstrom=0.04)
        assert line == "400 structures displaced by 0.04 Å (standard deviation)"
        x = found.positions.reshape(400, 4, 3)
        # 400 draws of 12 components: the standard deviation is known to 1 %.
        assert x.std(axis=0).mean() == pytest.approx(0.04, rel=0.04)
        assert len(set(found.ids)) == 400
        assert set(found.text("origin/sampler")) == {"rattle"}
        assert set(found.column("origin/iteration").tolist()) == {0}
        assert not found.is_labelled.any()

    def test_seed(self, tmp_path: Path) -> None:
        first, _ = prepare(tmp_path, kind="rattle", molecule="NH3")
        assert prepare(tmp_path, kind="rattle", molecule="NH3")[0].ids == first.ids
        assert not set(prepare(tmp_path, seed=2, kind="rattle", molecule="NH3")[0].ids) & set(first.ids)

    def test_charge_and_multiplicity(self, tmp_path: Path) -> None:
        found, _ = prepare(tmp_path, kind="rattle", molecule="NH3", charge=1, multiplicity=2)
        assert set(found.charge.tolist()) == {1}
        assert set(found.multiplicity.tolist()) == {2}

    def test_files(self, tmp_path: Path) -> None:
        given = toy_labels(rattled(10)).with_columns(origin__trajectory="md")
        write_extxyz(tmp_path / "a.xyz", given)
        write_extxyz(tmp_path / "b.xyz", given[:4])
        files = [str(tmp_path / "a.xyz"), str(tmp_path / "b.xyz")]
        found, line = prepare(tmp_path, kind="files", files=files)
        assert sorted(found.ids) == sorted(given.ids)
        assert line == "10 of 10 structures taken from 2 file(s); 4 exact duplicates left out"
        # Labels of a file may be of any level of theory.
        assert not found.is_labelled.any()
        assert np.isnan(found.energy).all()
        assert set(found.text("origin/trajectory")) == {"md"}
        assert found.text("origin/source")[0] == "a.xyz[0]"
        some, _ = prepare(tmp_path, kind="files", files=files, n_structures=3)
        assert len(some) == 3
        assert set(some.ids) < set(given.ids)

    def test_too_few_structures(self, tmp_path: Path) -> None:
        write_extxyz(tmp_path / "a.xyz", rattled(3))
        with pytest.raises(ConfigError, match="hold 3 different structures, but 5 are needed"):
            prepare(tmp_path, kind="files", files=[str(tmp_path / "a.xyz")], n_structures=5)

    def test_missing_file_names_the_key(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"data\.initial\.files: .*no\.xyz does not exist"):
            prepare(tmp_path, kind="files", files=[str(tmp_path / "no.xyz")])


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch) -> ToyPredictor:
    """Stand in for every fitted method."""
    toy = ToyPredictor(doubt=0.02)
    monkeypatch.setattr("dubito.uncertainty.registry.load_method", lambda *_, **__: toy)
    return toy


def score(pool: list[Path], output: Path) -> str:
    nothing = Path("unused")
    return score_candidates.run(
        ensemble=nothing, uncertainty=nothing, method="ensemble", pool=pool, output=output, threads=1
    )


class TestScore:
    def test_memory_is_bounded_and_chunks_do_not_show(self, tmp_path: Path, predictor: ToyPredictor) -> None:
        parts = [rattled(300, seed=1), rattled(250, seed=2)]
        for i, part in enumerate(parts):
            stops = {"completed": 3 + i, **({"energy": 2} if i else {})}
            write_structures(tmp_path / f"{i}.h5", part, attributes={"stops": stops, "steps": 10, "walkers": 4})
        line = score([tmp_path / "0.h5", tmp_path / "1.h5"], tmp_path / "s.h5")
        assert line == "550 candidates of 2 jobs scored by 'ensemble'"
        assert max(predictor.batches) <= 256
        whole = Structures.concatenate(parts)
        assert read_structures(tmp_path / "s.h5").ids == whole.ids
        said = read_predictions(tmp_path / "s.h5")["ensemble"]
        for name, values in predictor.predict(whole).fields().items():
            np.testing.assert_allclose(said[name], values)
        found = read_attributes(tmp_path / "s.h5")
        assert found["stops"] == {"completed": 7, "energy": 2}
        assert (found["steps"], found["walkers"]) == (20, 8)

    def test_empty_pool(self, tmp_path: Path, predictor: ToyPredictor) -> None:
        write_structures(tmp_path / "0.h5", Structures.empty(), attributes={"stops": {"force": 4}})
        score([tmp_path / "0.h5"], tmp_path / "s.h5")
        assert len(read_structures(tmp_path / "s.h5")) == 0
        assert predictor.batches == []
        assert read_attributes(tmp_path / "s.h5")["stops"] == {"force": 4}


def test_explore_writes_candidates_and_counts(tmp_path: Path, predictor: ToyPredictor) -> None:
    write_structures(tmp_path / "d.h5", toy_labels(rattled(6, displacement=0.02, molecules="ammonia")))
    sampler = LangevinConfig(n_walkers=4, n_steps=20, save_every_steps=5, temperatures_K=[200.0])
    line = explore_structures.run(
        ensemble=Path("unused"),
        uncertainty=Path("unused"),
        method="ensemble",
        dataset=tmp_path / "d.h5",
        output=tmp_path / "p.h5",
        sampling=SamplingConfig(sampler=sampler),
        seed=1,
        iteration=3,
        job=1,
        threads=1,
    )
    found, said = read_structures(tmp_path / "p.h5"), read_attributes(tmp_path / "p.h5")
    assert line == "16 candidates from 4 walkers, 80 steps; stops: completed 4"
    assert (len(found), said["stops"], said["steps"], said["walkers"]) == (16, {"completed": 4}, 80, 4)
    assert found.text("origin/trajectory")[0] == "iter003_job1_walker0"
