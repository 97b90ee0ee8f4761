"""The label cache, the labelling service and its faults, and the messages about bad input."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from dubito.config.data import DataConfig
from dubito.config.evaluation import InversionProfile
from dubito.config.labelling import DatasetConfig, LabellingConfig, PyscfConfig, TeacherConfig
from dubito.core.errors import ConfigError, EnvironmentFault, LabelError, StorageError
from dubito.core.files import read_json
from dubito.core.hashing import hash_json
from dubito.data.store import read_attributes, read_structures, write_structures
from dubito.data.structures import Structures
from dubito.labelling.base import Label, Labeller, LabellingFailure, verified
from dubito.labelling.cache import Failure, LabelCache
from dubito.labelling.dataset_labeller import DatasetLabeller
from dubito.labelling.pyscf_labeller import PyscfLabeller
from dubito.labelling.registry import LABELLERS, make_labeller
from dubito.labelling.relax import LabelSource
from dubito.labelling.service import label_structures
from dubito.labelling.teacher import TeacherLabeller
from dubito.stages import label_structures as stage
from dubito.stages import prepare_reference, prepare_test
from dubito.testing.structures import rattled, toy_labels

TEACHER = {"kind": "teacher"}
SIX = rattled(6, molecules="ammonia")


class Counting(TeacherLabeller):
    """A teacher that counts its labels and raises what it is told to at some of them."""

    name: ClassVar[str] = "counting"

    def __init__(self, faults: dict[str, Exception | type[BaseException]] | None = None) -> None:
        super().__init__(TeacherConfig(kind="teacher"))
        self.faults, self.calls = faults or {}, []

    def label(self, structure: Structures) -> Label:
        self.calls.append(structure.ids[0])
        if structure.ids[0] in self.faults:
            raise self.faults[structure.ids[0]]
        return super().label(structure)


def cache_of(labeller: Labeller, folder: Path) -> LabelCache:
    return LabelCache(folder, labeller.settings())


# --- cache ------------------------------------------------------------------------------------


def test_numbers_survive_the_cache_exactly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label = Label(
        energy=-1534.1234567890123 / 3,
        forces=np.array([[math.pi, -0.0, 5e-324], [1e300, 1 / 3, -1e-17]]),
        stress=rng.normal(size=6),
        method="m",
        code_version="c",
        attempts=3,
        wall_time_s=0.1,
        kind="model",
    )
    cache = LabelCache(tmp_path, {"a": 1})
    cache.put("x", label)
    found = cache.get("x")
    assert isinstance(found, Label)
    assert found.energy == label.energy
    assert found.forces.tobytes() == label.forces.tobytes()
    assert found.stress is not None
    assert found.stress.tobytes() == label.stress.tobytes()  # type: ignore[union-attr]
    assert (found.method, found.attempts, found.kind) == ("m", 3, "model")


def test_other_settings_are_another_cache(tmp_path: Path) -> None:
    LabelCache(tmp_path, {"xc": "PBE"}).put("x", Failure("crashed", "boom"))
    assert LabelCache(tmp_path, {"xc": "BLYP"}).get("x") is None
    assert read_json(LabelCache(tmp_path, {"xc": "PBE"}).folder / "settings.json") == {"xc": "PBE"}


@pytest.mark.parametrize("damage", ["truncate", "flip", "swap", "empty", "binary"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    labeller = Counting()
    cache = cache_of(labeller, tmp_path)
    good, _ = label_structures(SIX, labeller, cache)
    path = cache.path(SIX.ids[2])
    text = path.read_text()
    if damage == "truncate":
        path.write_text(text[: len(text) // 2])
    elif damage == "flip":
        energy = float(good.energy[2])
        path.write_text(text.replace(f'"energy": {energy!r}', f'"energy": {energy + 1!r}'))
        assert path.read_text() != text
    elif damage == "swap":
        path.write_text(cache.path(SIX.ids[3]).read_text())
    else:
        path.write_bytes(b"" if damage == "empty" else b"\xff\xfe\x00")
    labeller.calls.clear()
    again, report = label_structures(SIX, labeller, cache)
    assert labeller.calls == [SIX.ids[2]]
    assert report["reused"] == 5
    assert "is damaged" in caplog.text
    np.testing.assert_array_equal(again.energy, good.energy)
    label_structures(SIX, labeller, cache)
    assert len(labeller.calls) == 1, "the new entry is sound"


# --- service ----------------------------------------------------------------------------------


def test_labels_and_provenance_land_in_the_columns(tmp_path: Path) -> None:
    labeller = Counting()
    labelled, report = label_structures(SIX, labeller, cache_of(labeller, tmp_path))
    labelled.require_labels("here")
    assert set(labelled.text("provenance/kind")) == {"reference"}
    assert set(labelled.text("provenance/method")) == {"teacher double_well_ammonia"}
    assert set(labelled.text("provenance/settings_hash")) == {labeller.settings_hash}
    assert (labelled.column("provenance/attempts") == 1).all()
    assert report["done"] == 6
    assert report["failed"] == []
    assert report["reused"] == 0
    for one in labelled:
        assert one.energy[0] == labeller.potential.evaluate(one)[0]


def test_an_interrupted_run_repeats_no_label(tmp_path: Path) -> None:
    first = Counting({SIX.ids[3]: KeyboardInterrupt})
    with pytest.raises(KeyboardInterrupt):
        label_structures(SIX, first, cache_of(first, tmp_path))
    assert len(first.calls) == 4
    second = Counting()
    labelled, report = label_structures(SIX, second, cache_of(second, tmp_path))
    assert second.calls == SIX.ids[3:]
    assert report["reused"] == 3
    plain, _ = label_structures(SIX, Counting(), None)
    np.testing.assert_array_equal(labelled.energy, plain.energy)
    np.testing.assert_array_equal(labelled.forces, plain.forces)


def test_one_failure_is_recorded_and_stops_nothing(tmp_path: Path) -> None:
    faults = {
        SIX.ids[1]: LabellingFailure("scf_not_converged", "no rung held", attempts=3),
        SIX.ids[4]: ZeroDivisionError("float division"),
    }
    labeller = Counting(faults)
    # A structure that brings an older label must not keep it when the new one fails.
    labelled, report = label_structures(toy_labels(SIX), labeller, cache_of(labeller, tmp_path))
    assert labelled.is_labelled.tolist() == [True, False, True, True, False, True]
    assert np.isnan(labelled.energy[[1, 4]]).all()
    assert np.isnan(labelled[1].forces).all()
    assert labelled.text("provenance/kind")[1] == ""
    assert labelled.column("provenance/attempts")[1] == 3
    assert [(f["id"], f["reason"]) for f in report["failed"]] == [
        (SIX.ids[1], "scf_not_converged"),
        (SIX.ids[4], "crashed"),
    ]
    assert "ZeroDivisionError" in report["failed"][1]["message"]


def test_failures_are_remembered_and_retried_only_when_asked(tmp_path: Path) -> None:
    first = Counting({SIX.ids[1]: LabellingFailure("net_force", "0.3 eV/Å")})
    label_structures(SIX, first, cache_of(first, tmp_path))
    second = Counting()
    _, report = label_structures(SIX, second, cache_of(second, tmp_path))
    assert second.calls == []
    assert report["done"] == report["reused"] == 5
    assert report["failed"][0]["message"] == "0.3 eV/Å"
    _, report = label_structures(SIX, second, cache_of(second, tmp_path), retry_failed=True)
    assert second.calls == [SIX.ids[1]]
    assert report["done"] == 6


def test_a_crash_is_reported_but_not_remembered(tmp_path: Path) -> None:
    """Its cause (a full temporary folder, a network drive) may pass; other failures would come out the same."""
    first = Counting({SIX.ids[1]: OSError(errno.EIO, "I/O error")})
    cache = cache_of(first, tmp_path)
    _, report = label_structures(SIX, first, cache)
    assert [f["reason"] for f in report["failed"]] == ["crashed"]
    assert cache.get(SIX.ids[1]) is None
    second = Counting()
    _, report = label_structures(SIX, second, cache)
    assert second.calls == [SIX.ids[1]]
    assert report["done"] == 6


def test_crashes_that_an_older_version_kept_are_tried_again(tmp_path: Path) -> None:
    labeller = Counting()
    cache = cache_of(labeller, tmp_path)
    cache.put(SIX.ids[0], Failure("crashed", "boom", effort=hash_json(labeller.effort())))
    _, report = label_structures(SIX[:1], labeller, cache)
    assert report["done"] == 1


def test_a_crash_while_a_profile_is_relaxed_is_not_remembered(tmp_path: Path) -> None:
    crashing, sound = Counting({SIX.ids[0]: OSError(errno.EIO, "I/O error")}), Counting()
    with pytest.raises(LabellingFailure):
        LabelSource(crashing, cache_of(crashing, tmp_path), "here")(SIX[0])
    source = LabelSource(sound, cache_of(sound, tmp_path), "here")
    assert source(SIX[0]).energy == sound.potential.evaluate(SIX[0])[0]
    assert (source.computed, source.reused) == (1, 0)


def test_a_stricter_limit_of_the_net_force_holds_for_labels_in_the_cache(tmp_path: Path) -> None:
    strict, lax = (PyscfLabeller(PyscfConfig(max_net_force_ev_per_angstrom=x)) for x in (0.05, 0.2))
    assert strict.settings_hash == lax.settings_hash
    plain = Label(energy=-1.0, forces=np.zeros((4, 3)), method="m", code_version="c", cpu_time_s=3.0)
    cache = cache_of(lax, tmp_path)
    for one, net in zip(SIX[:3], (0.01, 0.1, None), strict=True):
        cache.put(one.ids[0], replace(plain, net_force=net))
    _, report = label_structures(SIX[:3], strict, cache)
    assert [(f["id"], f["reason"]) for f in report["failed"]] == [(SIX.ids[1], "net_force")]
    assert report["cpu_s"] == 9.0
    _, report = label_structures(SIX[:3], lax, cache)
    assert report["done"] == 3, "the label itself is kept"


def test_a_dft_label_keeps_the_net_force_that_was_taken_from_it() -> None:
    settings = {"basis": "sto-3g", "grid_level": 3}
    label = PyscfLabeller(PyscfConfig(**settings)).label(SIX[0])  # type: ignore[arg-type]
    assert label.net_force is not None
    assert label.net_force > 1e-7 > np.linalg.norm(label.forces.sum(axis=0))
    for factor, accepted in ((2.0, True), (0.5, False)):
        limit = factor * label.net_force
        judge = PyscfLabeller(PyscfConfig(**settings, max_net_force_ev_per_angstrom=limit))  # type: ignore[arg-type]
        assert (judge.accepts(label) is None) is accepted


def test_a_profile_says_what_its_labels_cost_wherever_they_were_made(tmp_path: Path) -> None:
    def run(name: str) -> float:
        prepare_reference.run(
            output=tmp_path / name,
            profile=InversionProfile(n_points=5),
            data=DataConfig.model_validate({"initial": {"kind": "rattle", "molecule": "NH3"}}),
            labelling=LabellingConfig.model_validate({"labeller": TEACHER}),
            cache=tmp_path / "cache",
            threads=1,
        )
        return float(read_attributes(tmp_path / name)["cpu_s"])

    first = run("a.h5")
    kept = [read_json(p)["content"] for p in (tmp_path / "cache").glob("*/*.json") if p.name != "settings.json"]
    assert len(kept) > (len(read_structures(tmp_path / "a.h5")) + 1) // 2, "the relaxation is labelled too"
    assert first == pytest.approx(sum(label["cpu_time_s"] for label in kept))
    assert run("b.h5") == pytest.approx(first)


def test_cost_counts_labels_of_earlier_runs(tmp_path: Path) -> None:
    slow = TeacherLabeller(TeacherConfig(kind="teacher", seconds_per_label=0.02))
    _, first = label_structures(SIX, slow, cache_of(slow, tmp_path))
    _, second = label_structures(SIX, slow, cache_of(slow, tmp_path))
    assert first["wall_s"] >= 0.12
    assert second["wall_s"] == pytest.approx(first["wall_s"])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_stops_with_a_clear_message_and_keeps_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    write, written = Path.write_text, []

    def full(self: Path, *args: Any, **kwargs: Any) -> int:
        if "settings" not in self.name:
            written.append(self)
        if len(written) > 3:
            raise OSError(code, os.strerror(code))
        return write(self, *args, **kwargs)

    labeller = Counting()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(StorageError, match="disk is full or the quota") as caught:
            label_structures(SIX, labeller, cache_of(labeller, tmp_path))
    assert SIX.ids[3] in str(caught.value)
    assert "is not computed twice" in str(caught.value)
    assert not list(tmp_path.rglob("*.partial"))
    labeller.calls.clear()
    _, report = label_structures(SIX, labeller, cache_of(labeller, tmp_path))
    assert labeller.calls == SIX.ids[3:]
    assert report["reused"] == 3


def test_a_full_disk_inside_the_labeller_is_no_failure_of_the_structure(tmp_path: Path) -> None:
    labeller = Counting({SIX.ids[2]: OSError(errno.ENOSPC, "No space left on device")})
    cache = cache_of(labeller, tmp_path)
    with pytest.raises(StorageError, match="temporary file"):
        label_structures(SIX, labeller, cache)
    assert cache.get(SIX.ids[1]) is not None
    assert cache.get(SIX.ids[2]) is None


def test_lack_of_memory_is_not_remembered_as_a_failure(tmp_path: Path) -> None:
    labeller = Counting({SIX.ids[0]: MemoryError()})
    cache = cache_of(labeller, tmp_path)
    with pytest.raises(EnvironmentFault, match="mem_mb"):
        label_structures(SIX, labeller, cache)
    assert cache.get(SIX.ids[0]) is None


def test_refusal_stops_given_structures_but_not_candidates() -> None:
    water = rattled(2)[1]
    mixed = Structures.concatenate([SIX[:2], water])
    labeller = Counting()
    with pytest.raises(LabelError, match="structure 2"):
        label_structures(mixed, labeller, None)
    assert labeller.calls == [], "nothing was spent"
    labelled, report = label_structures(mixed, labeller, None, refuse_all=False)
    assert labelled.is_labelled.tolist() == [True, True, False]
    assert report["failed"][0]["reason"] == "refused"


@pytest.mark.parametrize("energy", [np.nan, np.inf])
def test_labels_that_are_not_finite_are_refused(energy: float) -> None:
    with pytest.raises(LabellingFailure) as caught:
        verified(Label(energy=energy, forces=np.zeros((1, 3)), method="", code_version=""))
    assert caught.value.reason == "not_finite"


def test_a_net_force_is_refused() -> None:
    label = Label(energy=0.0, forces=np.full((2, 3), 0.1), method="", code_version="")
    assert verified(label, 0.4) is label
    with pytest.raises(LabellingFailure, match=r"sum to 0\.346") as caught:
        verified(label, 0.3)
    assert caught.value.reason == "net_force"


# --- stages -----------------------------------------------------------------------------------


def run_stage(folder: Path, shard: int, labeller: dict[str, Any] = TEACHER, per_shard: int = 4) -> str:
    return stage.run(
        selected=folder / "selected.h5",
        shard=shard,
        structures_per_shard=per_shard,
        output=folder / f"shard_{shard}.h5",
        report=folder / f"shard_{shard}.json",
        cache=folder / "cache",
        labelling=LabellingConfig.model_validate({"labeller": labeller}),
        threads=1,
    )


def test_shards_cover_the_selection_once(tmp_path: Path) -> None:
    write_structures(tmp_path / "selected.h5", SIX.with_columns(origin__reason=["diverse"] * 6))
    assert run_stage(tmp_path, 0) == "4 of 4 structures labelled"
    assert run_stage(tmp_path, 1) == "2 of 2 structures labelled"
    joined = Structures.concatenate([read_structures(tmp_path / f"shard_{s}.h5") for s in (0, 1)])
    assert joined.ids == SIX.ids
    assert joined.text("origin/reason") == ["diverse"] * 6
    report = json.loads((tmp_path / "shard_1.json").read_text())
    assert {k: report[k] for k in ("shard", "done", "failed", "reused")} == {
        "shard": 1, "done": 2, "failed": [], "reused": 0
    }  # fmt: skip
    assert run_stage(tmp_path, 1) == "2 of 2 structures labelled, 2 of them known already"
    with pytest.raises(Exception, match="no shard 2"):
        run_stage(tmp_path, 2)


def test_candidates_of_a_campaign_may_be_refused_one_by_one(tmp_path: Path) -> None:
    mixed = rattled(4)
    write_structures(tmp_path / "selected.h5", mixed.with_columns(origin__iteration=1))
    assert run_stage(tmp_path, 0) == "2 of 4 structures labelled; 2 failed (refused)"
    write_structures(tmp_path / "selected.h5", mixed.with_columns(origin__iteration=0))
    with pytest.raises(LabelError, match="one N"):
        run_stage(tmp_path, 0)


def test_a_job_killed_in_the_middle_repeats_no_finished_label(tmp_path: Path) -> None:
    write_structures(tmp_path / "selected.h5", SIX)
    slow = {"kind": "teacher", "seconds_per_label": 0.4}
    call = f"run_stage(Path({str(tmp_path)!r}), 0, {slow}, 6)"
    code = f"from pathlib import Path; from test_labelling import run_stage; {call}"
    job = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent)
    deadline = time.monotonic() + 60
    labels: list[Path] = []
    while len(labels) < 2 and time.monotonic() < deadline:
        labels = [p for p in (tmp_path / "cache").glob("*/*.json") if p.name != "settings.json"]
        time.sleep(0.02)
    job.send_signal(signal.SIGKILL)
    job.wait()
    labels = [p for p in (tmp_path / "cache").glob("*/*.json") if p.name != "settings.json"]
    assert 2 <= len(labels) < 6
    made = {p: p.stat().st_mtime_ns for p in labels}
    run_stage(tmp_path, 0, TEACHER, 6)  # the pretended duration is no setting of the label
    assert {p: p.stat().st_mtime_ns for p in labels} == made
    assert json.loads((tmp_path / "shard_0.json").read_text())["reused"] == len(labels)
    plain, _ = label_structures(SIX, Counting(), None)
    np.testing.assert_array_equal(read_structures(tmp_path / "shard_0.h5").energy, plain.energy)


def test_test_files_are_joined_without_duplicates(tmp_path: Path) -> None:
    labelled = toy_labels(rattled(4))
    write_structures(tmp_path / "a.h5", labelled[:3])
    write_structures(tmp_path / "b.h5", labelled[2:])
    said = prepare_test.run(files=[str(tmp_path / n) for n in ("a.h5", "b.h5")], output=tmp_path / "test.h5")
    assert said == "4 test structures from 2 files; 1 duplicates left out"
    assert read_structures(tmp_path / "test.h5").ids == labelled.ids
    write_structures(tmp_path / "bare.h5", rattled(2))
    with pytest.raises(ConfigError, match=r"evaluation\.test_files: .*bare\.h5 holds 2 structures, of which 2 have no"):
        prepare_test.run(files=[str(tmp_path / "bare.h5")], output=tmp_path / "test.h5")


# --- what is said about bad settings ------------------------------------------------------------


def test_every_kind_of_the_configuration_has_a_labeller() -> None:
    for kind in LABELLERS.known():
        assert LABELLERS.load(kind).name == kind
    made = make_labeller(TeacherConfig(kind="teacher"), threads=2)
    assert isinstance(made, TeacherLabeller)


def test_unknown_labeller_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'pyscf'"):
        make_labeller(SimpleNamespace(kind="pyscff"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("xc", "pattern"),
    [
        ("PBEE", "does not know the functional 'PBEE'.*Did you mean 'PBE'"),
        ("B3LIP", "Did you mean 'B3LYP'"),
        ("wb97x-d3", "does not know the functional"),
        ("b2plyp", "double hybrids are not available"),
        (" ", "is blank"),
        ("mgga_x_br89", "Laplacian"),
    ],
)
def test_unknown_functional(xc: str, pattern: str) -> None:
    with pytest.raises(LabelError, match=r"labelling\.labeller\.xc.*" + pattern):
        PyscfLabeller(PyscfConfig(xc=xc))


@pytest.mark.parametrize(
    ("setting", "numbers", "pattern"),
    [
        ({"basis": "def2-svpp"}, [1, 1], r"labeller\.basis: PySCF does not know the basis 'def2-svpp'.*'def2-svp"),
        ({"basis": "6-31gg"}, [1, 1], "Did you mean '6-31"),
        ({"basis": "def2-svp"}, [92, 92], "no functions for U.*Choose one that has"),
        ({"auxbasis": "def2-universal-jkfi"}, [1, 1], r"labeller\.auxbasis.*'def2-universal-jkfit'"),
        ({"auxbasis": "def2-universal-jkfit"}, [92, 92], r"labeller\.auxbasis|no functions for U"),
    ],
)
def test_unfit_basis(setting: dict[str, str], numbers: list[int], pattern: str) -> None:
    labeller = PyscfLabeller(PyscfConfig(**setting))
    with pytest.raises(LabelError, match=pattern):
        labeller.check(Structures.build([numbers], [[[0, 0, 0], [0, 0, 2.5]]]))


def test_dispersion_without_its_package_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dubito.labelling.pyscf_checks.find_spec", lambda name: None)
    with pytest.raises(LabelError, match="pyscf-dispersion"):
        PyscfLabeller(PyscfConfig(xc="pbe-d3bj"))


def test_dataset_without_files_or_labels(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"labelling\.labeller\.files: 'nowhere\.xyz' does not exist"):
        DatasetLabeller(DatasetConfig(kind="dataset", files=["nowhere.xyz"]))
    write_structures(tmp_path / "bare.h5", rattled(2))
    bare = DatasetLabeller(DatasetConfig(kind="dataset", files=[str(tmp_path / "bare.h5")]))
    with pytest.raises(LabelError, match="not one label"):
        bare.check(rattled(1))


def test_more_effort_tries_failures_again_and_keeps_labels(tmp_path: Path) -> None:
    """Raising max_cycle, as the message of a failure advises, must neither be in vain nor cost finished labels."""

    class Tired(Counting):
        cycles = 1

        def effort(self) -> dict[str, int]:
            return {"cycles": self.cycles}

        def label(self, structure: Structures) -> Label:
            if structure.ids[0] == SIX.ids[1] and self.cycles < 2:
                self.calls.append(structure.ids[0])
                raise LabellingFailure("scf_not_converged", "one cycle more")
            return super().label(structure)

    labeller = Tired()
    cache = cache_of(labeller, tmp_path)
    _, report = label_structures(SIX, labeller, cache)
    assert report["done"] == 5
    labeller.calls.clear()
    label_structures(SIX, labeller, cache)
    assert labeller.calls == [], "a failure stands while nothing changes"
    labeller.cycles = 2
    _, report = label_structures(SIX, labeller, cache)
    assert labeller.calls == [SIX.ids[1]]
    assert report["done"] == 6


def test_settings_of_effort_leave_the_hash_of_pyscf_labels_alone() -> None:
    labellers = [PyscfLabeller(PyscfConfig(max_cycle=n)) for n in (50, 200)]
    assert labellers[0].settings_hash == labellers[1].settings_hash
    assert labellers[0].effort() != labellers[1].effort()
