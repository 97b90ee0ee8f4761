"""A check vouches for labels of the code it looked at, and for no others, whatever jobs, files and campaigns do."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubito.cli.show.lines import as_lines
from dubito.cli.show.record import find_record
from dubito.config.data import DataConfig
from dubito.config.evaluation import InversionProfile
from dubito.config.labelling import LabelChecksConfig, LabellingConfig, TeacherConfig
from dubito.core import provenance
from dubito.core.errors import LabelError
from dubito.core.files import read_json, write_json
from dubito.core.hashing import hash_file
from dubito.data.store import read_structures, write_structures
from dubito.data.structures import Structures
from dubito.labelling.base import Label, LabellingFailure
from dubito.labelling.cache import REOPENED, Failure, LabelCache
from dubito.labelling.gradient_check import check_gradients
from dubito.labelling.service import label_one, label_structures
from dubito.labelling.teacher import TeacherLabeller
from dubito.labelling.vouching import FOLDER, fingerprint, new_job, sign
from dubito.stages import label_structures as stage
from dubito.stages import prepare_reference
from dubito.testing.structures import rattled

CONFIG = TeacherConfig(kind="teacher")
CHECKS = LabelChecksConfig()
EIGHT = rattled(8, molecules="ammonia", displacement=0.04)
RIGHT = TeacherLabeller(CONFIG)
HONEST = label_structures(EIGHT, RIGHT, None)[0]
ALL = dict(zip(EIGHT.ids, range(8), strict=True))


def flipped(label: Label) -> Label:
    return replace(label, forces=-label.forces)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Flip the teacher's forces by its potential: to all that looks at its code it is the same. Mended by ``undo``."""
    from dubito.labelling.potentials import POTENTIALS

    kind = POTENTIALS[CONFIG.potential]
    right = kind.evaluate

    def evaluate(self: Any, one: Structures) -> Any:
        energy, forces, stress = right(self, one)
        return energy, -forces, stress

    monkeypatch.setattr(kind, "evaluate", evaluate)
    return monkeypatch


def run(folder: Path, rows: slice = slice(0, 8), **labelling: Any) -> tuple[Structures, dict[str, Any]]:
    """Run a labelling job."""
    write_structures(folder / "selected.h5", EIGHT[rows].with_columns(origin__iteration=1))
    stage.run(
        selected=folder / "selected.h5",
        shard=0,
        structures_per_shard=8,
        output=folder / "shard.h5",
        report=folder / "shard.json",
        cache=folder / "cache",
        labelling=LabellingConfig.model_validate({"labeller": {"kind": "teacher"}, **labelling}),
        threads=1,
    )
    return read_structures(folder / "shard.h5"), read_json(folder / "shard.json")


def is_right(labelled: Structures) -> bool:
    rows = [ALL[name] for name in labelled.ids]
    expected = np.concatenate([HONEST[row].forces for row in rows])
    return bool(labelled.is_labelled.all()) and np.allclose(labelled.forces, expected)


def of(folder: Path) -> LabelCache:
    return LabelCache(folder / "cache", RIGHT.settings())


def unsigned(cache: LabelCache, name: str, **made_by: Any) -> None:
    """Make an entry look like those of dubito before it signed them."""
    entry = read_json(cache.path(name))
    entry.pop("made_by")
    write_json(cache.path(name), entry | ({"made_by": made_by} if made_by else {}))


# --- a labeller that is mended ------------------------------------------------------------------


def test_a_mended_labeller_makes_its_labels_anew(tmp_path: Path, broken: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        with pytest.raises(LabelError, match=r"not the derivative of its energies.*refused \(8 labels\)"):
            run(tmp_path)
    broken.undo()
    labelled, report = run(tmp_path)
    assert is_right(labelled)
    assert report["reused"] == 0
    assert len(list((of(tmp_path).folder / "refused").iterdir())) == 16, "nothing is deleted"


def test_fresh_labels_do_not_vouch_for_those_of_a_job_that_was_killed_before_its_check(
    tmp_path: Path, broken: pytest.MonkeyPatch
) -> None:
    cache = sign(of(tmp_path), RIGHT, CHECKS, new_job())
    label_structures(EIGHT[4:], RIGHT, cache)
    broken.undo()
    assert is_right(run(tmp_path, slice(0, 4))[0])
    assert list((cache.folder / FOLDER).glob(f"{fingerprint(RIGHT)}_*")), "the mended code is vouched for"
    with pytest.raises(LabelError, match=r"made earlier have forces that are not.*refused \(4 labels\)") as caught:
        run(tmp_path)
    assert "\n" not in str(caught.value)
    assert cache.get(EIGHT.ids[0]) is not None, "those that are vouched for stay"
    labelled, report = run(tmp_path)
    assert is_right(labelled)
    assert report["reused"] == 4


def test_what_runs_on_a_vouched_code_costs_no_further_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, slice(0, 4))
    calls = tmp_path / "calls"
    label = TeacherLabeller.__dict__["_rehearse_failure"]

    def counted(self: TeacherLabeller, name: str) -> None:
        with calls.open("a") as file:
            file.write("x")
        label(self, name)

    monkeypatch.setattr(TeacherLabeller, "_rehearse_failure", counted)
    run(tmp_path)
    assert calls.stat().st_size == 4 + 4, "other code: its first label is checked"
    calls.unlink()
    run(tmp_path)
    assert not calls.exists()


@pytest.mark.parametrize("made_by", [{}, {"host": "far", "slurm_job": "7", "code": "0.4", "time": 1.0}])
def test_labels_of_before_stay_valid_after_one_check(tmp_path: Path, made_by: dict[str, Any]) -> None:
    cache = of(tmp_path)
    label_structures(EIGHT, RIGHT, cache)
    write_json(cache.folder / "checks" / "gradient_check.json", {"code_version": "teacher 1"})
    for name in EIGHT.ids:
        unsigned(cache, name, **made_by)
    before = {name: cache.path(name).read_bytes() for name in EIGHT.ids}
    labelled, report = run(tmp_path)
    assert report["reused"] == 8
    assert is_right(labelled)
    assert {name: cache.path(name).read_bytes() for name in EIGHT.ids} == before
    assert len(list((cache.folder / FOLDER).glob("old*"))) == 1
    for name in EIGHT.ids[2:]:
        cache.put(name, flipped(RIGHT.label(EIGHT[ALL[name]])))
        unsigned(cache, name, **made_by | {"host": "elsewhere"})
    with pytest.raises(LabelError, match=r"made earlier.*\(6 labels\)"):
        run(tmp_path)


def test_few_wrong_ones_do_not_take_all_of_their_maker_along(tmp_path: Path) -> None:
    cache = of(tmp_path)
    label_structures(EIGHT, RIGHT, cache)
    cache.put(EIGHT.ids[7], flipped(RIGHT.label(EIGHT[7])))
    for name in EIGHT.ids:
        unsigned(cache, name)
    with pytest.raises(LabelError, match=r"refused \(1 label\)"):
        run(tmp_path, slice(7, 8))
    assert [cache.get(name) is None for name in EIGHT.ids] == [False] * 7 + [True]


def test_a_label_that_was_refused_alone_does_not_come_back_unchecked(tmp_path: Path) -> None:
    """As `dubito retry` runs the job again, which by now has a code that is vouched for."""
    cache = sign(of(tmp_path), RIGHT, CHECKS, new_job())
    label_structures(EIGHT, RIGHT, cache)
    cache.put(EIGHT.ids[0], flipped(RIGHT.label(EIGHT[0])))
    assert [one["reason"] for one in run(tmp_path)[1]["failed"]] == ["gradient"]
    assert is_right(run(tmp_path)[0]), "it is made anew"
    cache = sign(of(tmp_path), RIGHT, CHECKS, new_job())
    assert cache.maker == fingerprint(RIGHT)
    (cache.folder / "checks" / "gradient_suspects").mkdir(exist_ok=True)
    write_json(cache.folder / "checks" / "gradient_suspects" / f"{EIGHT.ids[0]}.json", {})
    cache.put(EIGHT.ids[0], flipped(RIGHT.label(EIGHT[0])))
    assert [one["reason"] for one in run(tmp_path)[1]["failed"]] == ["gradient"], "and looked at once more"


@pytest.mark.parametrize("how", ["raises", "dies"])
def test_a_crash_beside_a_structure_costs_no_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    right = TeacherLabeller.label

    def label(self: TeacherLabeller, one: Structures) -> Label:
        if one.ids[0] not in ALL and np.abs(one.positions - EIGHT[0].positions).max() < 0.02:
            if how == "dies":
                os._exit(3)
            raise ValueError("no such place")
        return right(self, one)

    monkeypatch.setattr(TeacherLabeller, "label", label)
    labelled, report = run(tmp_path)
    assert is_right(labelled)
    assert (report["done"], report["failed"], report["reused"]) == (8, [], 0)
    found = [read_json(path)["structure"] for path in (of(tmp_path).folder / FOLDER).iterdir()]
    assert set(found) == {EIGHT.ids[1]}, "the next one was looked at"


# --- labels of files ----------------------------------------------------------------------------


def lend(folder: Path, change: Any = lambda forces: forces) -> dict[str, Any]:
    provenance.set_context(campaign="far", stage="build_dataset", iteration=3, part="", inputs={})
    write_structures(folder / "foreign.h5", HONEST.with_columns(labels__forces=change(HONEST.forces)))
    provenance.set_context()
    return {"reuse_from": [str(folder / "foreign.h5")]}


@pytest.mark.parametrize("before", [False, True], ids=["first", "beside a vouched labeller"])
def test_wrong_labels_of_a_file_are_refused_by_its_name_and_poison_nothing(tmp_path: Path, *, before: bool) -> None:
    if before:
        run(tmp_path, slice(0, 2))
    named = lend(tmp_path, lambda forces: -forces)
    with pytest.raises(LabelError, match=r"forces in .*foreign\.h5 \(labelling\.reuse_from\) are not the derivative"):
        run(tmp_path, **named)
    assert of(tmp_path).get(EIGHT.ids[5]) is None
    assert is_right(run(tmp_path)[0]), "without the file it goes on"


def test_a_wrong_labeller_is_not_taken_for_a_wrong_file(tmp_path: Path, broken: pytest.MonkeyPatch) -> None:
    named = lend(tmp_path)
    with pytest.raises(LabelError, match="Mend the labeller first"):
        run(tmp_path, **named)
    broken.undo()
    labelled, report = run(tmp_path, **named)
    assert is_right(labelled)
    assert report["adopted"] == 8


def test_what_was_taken_unchecked_is_moved_with_the_name_of_its_file(tmp_path: Path) -> None:
    named = lend(tmp_path, lambda forces: -forces)
    run(tmp_path, **named, checks={"gradient": "none"})
    with pytest.raises(LabelError, match=r"taken from .*foreign\.h5 .*refused \(8 labels\)\. Take the file out"):
        run(tmp_path)
    assert is_right(run(tmp_path)[0])


def test_an_adopted_label_says_where_it_is_from(tmp_path: Path) -> None:
    _, report = run(tmp_path, **lend(tmp_path))
    assert report["adopted"] == 8
    path = of(tmp_path).path(EIGHT.ids[0])
    origin = read_json(path)["made_by"]["adopted_from"]
    assert origin["file"] == str(tmp_path / "foreign.h5")
    assert origin["sha256"] == hash_file(tmp_path / "foreign.h5", 64)
    assert (origin["created_by"]["campaign"], origin["created_by"]["stage"]) == ("far", "build_dataset")
    text = "\n".join(as_lines(find_record(path), {"inputs": [], "config_file": None}))
    assert f"not computed by this job but taken from {tmp_path / 'foreign.h5'}" in text
    assert "written by build_dataset, iteration 3" in text


# --- two campaigns, one cache -------------------------------------------------------------------


def test_a_failure_never_takes_the_place_of_a_label(tmp_path: Path) -> None:
    """Another campaign, with more effort, finishes the label while this one fails at it."""
    one, cache = EIGHT[0], of(tmp_path)
    label = RIGHT.label(one)

    class Slow(TeacherLabeller):
        def label(self, structure: Structures) -> Label:
            of(tmp_path).put(structure.ids[0], label)
            raise LabellingFailure("scf_not_converged", "no rung")

    outcome = label_one(one, Slow(CONFIG), cache)
    assert outcome.label is not None
    assert outcome.reused
    # Even at the very moment between looking and writing: there is no order of the two that loses the label.
    cache.put(one.ids[0], Failure("scf_not_converged", "no rung"))
    assert isinstance(cache.get(one.ids[0]), Label)
    assert not cache.reopen(one.ids[0])


def test_a_failure_goes_before_an_outdated_label_and_before_a_failure_of_old(tmp_path: Path) -> None:
    cache, name = of(tmp_path), EIGHT.ids[0]
    cache.put(name, RIGHT.label(EIGHT[0]))
    cache.put(name, Failure("scf_not_converged", "no rung"))
    assert isinstance(cache.get(name, lambda label: True), Failure)
    # Before failures had a folder of their own they lay where labels do.
    cache.failure_path(name).replace(cache.path(name))
    assert cache.get(name) == Failure("scf_not_converged", "no rung")
    cache.put(name, Failure("net_force", "later"))
    assert getattr(cache.get(name), "reason", "") == "net_force"
    cache.put(name, RIGHT.label(EIGHT[0]))
    assert isinstance(cache.get(name), Label)
    assert not cache.failure_path(name).exists()


def test_reopening_does_not_say_that_it_made_the_failure(tmp_path: Path) -> None:
    cache, name = of(tmp_path), EIGHT.ids[0]
    provenance.set_context(campaign="far", stage="label_structures", iteration=1, part="002", inputs={})
    cache.put(name, Failure("scf_not_converged", "no rung", effort="x"))
    provenance.set_context()
    before = read_json(cache.failure_path(name))["made_by"]
    assert cache.reopen(name)
    after = read_json(cache.failure_path(name))
    assert after["content"]["effort"] == REOPENED
    assert {key: value for key, value in after["made_by"].items() if key != "reopened"} == before


# --- profiles -----------------------------------------------------------------------------------


def profile(folder: Path, **checks: Any) -> str:
    return prepare_reference.run(
        output=folder / "profile.h5",
        profile=InversionProfile(n_points=5),
        data=DataConfig.model_validate({"initial": {"kind": "rattle", "molecule": "NH3"}}),
        labelling=LabellingConfig.model_validate({"labeller": {"kind": "teacher"}, "checks": checks}),
        cache=folder / "cache",
        threads=1,
    )


def test_a_profile_is_not_relaxed_along_wrong_forces(tmp_path: Path, broken: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabelError, match=r"not the derivative.*refused \(1 label\)"):
        profile(tmp_path)
    assert [path.name for path in of(tmp_path).folder.glob("*.json")] == ["settings.json"]
    broken.undo()
    assert profile(tmp_path).startswith("profile 'inversion'")
    energies = read_structures(tmp_path / "profile.h5").energy.tolist()
    profile(tmp_path / "clean")
    assert read_structures(tmp_path / "clean" / "profile.h5").energy.tolist() == energies


def test_a_label_of_a_profile_that_no_physics_allows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabellingFailure, match=r"'inversion': the label of structure .* is refused.*max_force_ev"):
        profile(tmp_path, max_force_ev_per_angstrom=1e-4)


# --- what code is -------------------------------------------------------------------------------


def test_a_fingerprint_is_of_the_code_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    code = fingerprint(RIGHT)
    assert fingerprint(TeacherLabeller(TeacherConfig(kind="teacher", seconds_per_label=0.1), threads=2)) == code
    right = TeacherLabeller.label
    monkeypatch.setattr(TeacherLabeller, "label", lambda self, one: flipped(right(self, one)))
    assert fingerprint(RIGHT) != code


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    import subprocess
    import sys

    text = (
        "from dubito.config.labelling import TeacherConfig; from dubito.labelling.teacher import TeacherLabeller\n"
        "from dubito.labelling.vouching import fingerprint\n"
        "print(fingerprint(TeacherLabeller(TeacherConfig(kind='teacher'))))"
    )
    made = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "5"},
    )
    assert made.stdout.strip() == fingerprint(RIGHT)


def test_in_a_job_of_one_mind_nothing_is_asked_twice(tmp_path: Path) -> None:
    cache = sign(of(tmp_path), RIGHT, CHECKS, new_job())
    labelled, _ = label_structures(EIGHT, RIGHT, cache)
    check_gradients(labelled, RIGHT, cache, CHECKS)
    assert cache.maker == fingerprint(RIGHT), "what it makes from now on is vouched for"
    assert json.loads(cache.path(EIGHT.ids[0]).read_text())["made_by"]["maker"].startswith(f"{cache.maker}-")
