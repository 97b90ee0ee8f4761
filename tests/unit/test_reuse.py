"""Labels of earlier datasets: the same structure under the same settings is never paid for twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubito.config import parse_config
from dubito.config.data import DataConfig
from dubito.config.inputs import require_inputs
from dubito.config.labelling import DatasetConfig, LabelChecksConfig, LabellingConfig, TeacherConfig
from dubito.core.errors import ConfigError, DataError
from dubito.core.files import read_json
from dubito.data.formats import read_any, write_extxyz
from dubito.data.store import read_structures, write_structures
from dubito.data.structures import MODEL, Structures
from dubito.labelling.base import Label
from dubito.labelling.cache import Failure, LabelCache
from dubito.labelling.dataset_labeller import DatasetLabeller
from dubito.labelling.reuse import adopt, offer
from dubito.labelling.service import label_structures
from dubito.labelling.teacher import TeacherLabeller
from dubito.stages import build_dataset, prepare_structures
from dubito.stages import label_structures as stage
from dubito.testing.structures import rattled

SIX = rattled(6, molecules="ammonia")
TEN = rattled(10, seed=1, molecules="ammonia")
TEACHER = TeacherLabeller(TeacherConfig(kind="teacher"))


class Calls:
    """The structures that the potential was evaluated for, in order; in a file, since jobs label in a child process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, name: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{name}\n")

    @property
    def ids(self) -> list[str]:
        return self.path.read_text().split() if self.path.exists() else []

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    """Count the calls of the labeller."""
    made, label = Calls(tmp_path / "calls.txt"), TeacherLabeller.label

    def counted(self: TeacherLabeller, structure: Structures) -> Label:
        made.add(structure.ids[0])
        return label(self, structure)

    monkeypatch.setattr(TeacherLabeller, "label", counted)
    return made


def labelled(structures: Structures, **columns: Any) -> Structures:
    """Label structures with the teacher."""
    return label_structures(structures, TEACHER, None)[0].with_columns(**columns)


def run(
    folder: Path, structures: Structures, *, cache: Path, reuse_from: list[Path] | None = None, **teacher: Any
) -> Any:
    """Label one batch, as a shard of a campaign; return its report."""
    folder.mkdir(parents=True, exist_ok=True)
    write_structures(folder / "selected.h5", structures.with_columns(origin__iteration=1))
    line = stage.run(
        selected=folder / "selected.h5",
        shard=0,
        structures_per_shard=len(structures),
        output=folder / "shard_000.h5",
        report=folder / "shard_000.json",
        cache=cache,
        labelling=LabellingConfig.model_validate(
            {
                "labeller": {"kind": "teacher", **teacher},
                "reuse_from": list(map(str, reuse_from or [])),
                "checks": {"gradient": "none"},
            }
        ),
        threads=1,
    )
    return {**read_json(folder / "shard_000.json"), "line": line}


def test_neither_a_later_iteration_nor_another_campaign_pays_again(tmp_path: Path, calls: Calls) -> None:
    cache = tmp_path / "label_cache"
    run(tmp_path / "a" / "iter_000", SIX, cache=cache)
    assert calls.ids == SIX.ids
    both = Structures.concatenate([SIX[:3], TEN])
    report = run(tmp_path / "a" / "iter_001", both, cache=cache)
    assert calls.ids == [*SIX.ids, *TEN.ids]
    assert report["reused"] == 3
    report = run(tmp_path / "b" / "iter_000", Structures.concatenate([TEN, SIX]), cache=cache)
    assert len(calls.ids) == 16, "the other campaign made none"
    assert report["reused"] == report["done"] == 16


def test_labels_of_a_named_dataset_cost_nothing_and_are_the_same(tmp_path: Path, calls: Calls) -> None:
    write_structures(tmp_path / "old.h5", labelled(SIX))
    calls.clear()
    both = Structures.concatenate([TEN[:2], SIX])
    report = run(tmp_path / "new", both, cache=tmp_path / "cache", reuse_from=[tmp_path / "old.h5"])
    assert calls.ids == TEN.ids[:2]
    assert (report["done"], report["reused"], report["adopted"]) == (8, 6, 6)
    assert "labelling.reuse_from: 6 labels fit" in report["line"]
    found, made = read_structures(tmp_path / "new" / "shard_000.h5")[2:], labelled(SIX)
    np.testing.assert_array_equal(found.energy, made.energy)
    np.testing.assert_array_equal(found.forces, made.forces)
    for name in ("kind", "method", "settings_hash", "code_version"):
        assert found.text(f"provenance/{name}") == made.text(f"provenance/{name}"), name
    calls.clear()
    report = run(tmp_path / "again", both, cache=tmp_path / "cache", reuse_from=[tmp_path / "old.h5"])
    assert calls.ids == []
    assert (report["reused"], report["adopted"]) == (8, 0), "they are in the cache now"


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"provenance__settings_hash": "0123456789abcdef"}, "of other settings, teacher double_well_ammonia"),
        ({"provenance__settings_hash": ""}, "of other settings"),
        ({"provenance__kind": MODEL}, "made by a model"),
        ({"provenance__kind": ""}, "of unknown origin"),
        ({"labels__energy": np.nan}, "not finite"),
        ({"labels__forces": np.full((24, 3), np.inf)}, "not finite"),
    ],
)
def test_what_is_not_interchangeable_is_passed_over_and_said(
    tmp_path: Path, calls: Calls, columns: dict[str, Any], why: str
) -> None:
    write_structures(tmp_path / "old.h5", labelled(SIX, **columns))
    calls.clear()
    report = run(tmp_path / "new", SIX, cache=tmp_path / "cache", reuse_from=[tmp_path / "old.h5"])
    assert calls.ids == SIX.ids
    assert report["adopted"] == report["reused"] == 0
    assert "0 labels fit, 6 are passed over (6 " in report["line"]
    assert why in report["line"]
    assert np.isfinite(read_structures(tmp_path / "new" / "shard_000.h5").forces).all()


def test_unlabelled_structures_of_a_file_are_no_labels(tmp_path: Path) -> None:
    mask = np.arange(6) < 2
    write_structures(tmp_path / "old.h5", labelled(SIX, labels__mask=mask))
    given = offer([str(tmp_path / "old.h5")], TEACHER, SIX.ids)
    assert list(given.labels) == SIX.ids[:2]
    assert (given.fitting, given.passed_over) == (2, {})


def test_a_wrong_id_in_a_file_lends_no_wrong_label(tmp_path: Path) -> None:
    """The id is that of the geometry that is there, not what the file says it is."""
    import h5py

    write_structures(tmp_path / "old.h5", labelled(TEN[:6]))
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        file["id"][:] = np.array(SIX.ids, dtype="S32")
    assert offer([str(tmp_path / "old.h5")], TEACHER, SIX.ids).labels == {}


def test_a_label_takes_the_place_of_a_remembered_failure_but_never_of_a_label(tmp_path: Path) -> None:
    write_structures(tmp_path / "old.h5", labelled(SIX))
    given = offer([str(tmp_path / "old.h5")], TEACHER, SIX.ids)
    cache = LabelCache(tmp_path / "cache", TEACHER.settings())
    cache.put(SIX.ids[0], Failure("scf_not_converged", "no rung"))
    label_structures(SIX[1:2], TEACHER, cache)
    before = cache.path(SIX.ids[1]).read_bytes()
    assert adopt(given, SIX[:2], TEACHER, cache, LabelChecksConfig(gradient="none")) == 1
    assert isinstance(cache.get(SIX.ids[0]), Label)
    assert cache.path(SIX.ids[1]).read_bytes() == before


def test_labels_of_an_older_ladder_are_not_taken(tmp_path: Path) -> None:
    class Later(TeacherLabeller):
        def outdated(self, label: Label) -> bool:
            return label.attempts > 1

    write_structures(tmp_path / "old.h5", labelled(SIX, provenance__attempts=[1, 1, 2, 1, 3, 1]))
    given = offer([str(tmp_path / "old.h5")], Later(TeacherConfig(kind="teacher")), SIX.ids)
    assert set(given.labels) == set(SIX.ids) - {SIX.ids[2], SIX.ids[4]}
    assert given.passed_over.total() == 2


def test_a_missing_file_is_named_with_the_nearest(tmp_path: Path) -> None:
    write_structures(tmp_path / "dataset.h5", labelled(SIX))
    with pytest.raises(ConfigError, match=r"labelling\.reuse_from: .*Did you mean '.*dataset\.h5'") as error:
        require_inputs(parse_config({"labelling": {"reuse_from": [str(tmp_path / "datset.h5")]}}))
    assert "does not exist" in str(error.value)


def test_a_file_that_does_not_say_its_settings_is_refused(tmp_path: Path) -> None:
    write_extxyz(tmp_path / "old.xyz", labelled(SIX))
    with pytest.raises(DataError, match=r"labelling\.reuse_from: .*old\.xyz is not one of dubito's"):
        offer([str(tmp_path / "old.xyz")], TEACHER)
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(DataError, match=r"labelling\.reuse_from: .*cut\.h5"):
        offer([str(tmp_path / "cut.h5")], TEACHER)


# --- labels that a model made -------------------------------------------------------------------


def dataset_of(folder: Path, shard: Path, ids: list[str], **data: Any) -> Structures:
    (folder / "selection.json").write_text(json.dumps({"ids": ids}))
    output = folder / "dataset.h5"
    build_dataset.run(
        previous=None,
        manifest=folder / "selection.json",
        shards=[shard],
        output=output,
        data=DataConfig.model_validate(data),
        seed=1,
        iteration=0,
    )
    return read_structures(output)


def test_labels_of_a_model_that_are_looked_up_stay_a_models_and_are_refused(tmp_path: Path) -> None:
    write_structures(tmp_path / "made.h5", labelled(SIX, provenance__kind=MODEL))
    labeller = DatasetLabeller(DatasetConfig(kind="dataset", files=[str(tmp_path / "made.h5")]))
    found, _ = label_structures(SIX, labeller, None)
    assert set(found.text("provenance/kind")) == {MODEL}
    write_structures(tmp_path / "shard.h5", found)
    with pytest.raises(DataError, match=r"6 of 6 labels .*allow_model_labels"):
        dataset_of(tmp_path, tmp_path / "shard.h5", SIX.ids)
    taken = dataset_of(tmp_path, tmp_path / "shard.h5", SIX.ids, allow_model_labels=True)
    assert set(taken.text("provenance/kind")) == {MODEL}


def test_labels_of_initial_files_do_not_enter_a_campaign(tmp_path: Path) -> None:
    """They may be of any level of theory, or of a model: the campaign's labeller makes its own."""
    write_structures(tmp_path / "start.h5", labelled(SIX, provenance__kind=MODEL, labels__energy=-1.0))
    initial = {"kind": "files", "files": [str(tmp_path / "start.h5")]}
    prepare_structures.run(output=tmp_path / "c.h5", data=DataConfig.model_validate({"initial": initial}), seed=1)
    start = read_structures(tmp_path / "c.h5")
    assert not start.is_labelled.any()
    assert np.isnan(start.energy).all()
    run(tmp_path / "run", start, cache=tmp_path / "cache")
    made = read_structures(tmp_path / "run" / "shard_000.h5")
    assert set(made.text("provenance/kind")) == {"reference"}
    np.testing.assert_array_equal(made.energy, labelled(start).energy)


@pytest.mark.parametrize("ending", ["h5", "xyz"])
def test_an_imported_file_keeps_who_made_its_labels(tmp_path: Path, ending: str) -> None:
    from dubito.cli.files import import_data

    kinds = [MODEL, "reference"] * 3
    given = labelled(SIX, provenance__kind=kinds)
    write_structures(tmp_path / "made.h5", given)
    write_extxyz(tmp_path / "made.xyz", given)
    import_data(tmp_path / f"made.{ending}", tmp_path / "imported.h5")
    import_data(tmp_path / "imported.h5", tmp_path / "imported.xyz")
    for name in ("imported.h5", "imported.xyz"):
        found = read_any(tmp_path / name)
        assert found.text("provenance/kind") == kinds, name
        assert found.text("provenance/settings_hash") == given.text("provenance/settings_hash"), name
    with pytest.raises(DataError, match="3 of 6 labels"):
        dataset_of(tmp_path, tmp_path / "imported.h5", read_structures(tmp_path / "imported.h5").ids)
