"""Wrong labels never reach a dataset: gradients, torques, absurd forces and outliers planted; honest ones pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dubito.config.labelling import LabelChecksConfig, LabellingConfig, PyscfConfig, TeacherConfig
from dubito.core.errors import LabelError
from dubito.core.files import read_json
from dubito.data.store import read_structures, write_structures
from dubito.data.structures import Structures
from dubito.labelling.base import Label, LabellingFailure
from dubito.labelling.cache import LabelCache
from dubito.labelling.gradient_check import check_gradients, examine
from dubito.labelling.outliers import outliers
from dubito.labelling.pyscf_labeller import PyscfLabeller
from dubito.labelling.sane import insane, net_torque, refuse_insane
from dubito.labelling.service import label_structures
from dubito.labelling.teacher import TeacherLabeller
from dubito.labelling.vouching import FOLDER, fingerprint, new_job, sign
from dubito.stages import label_structures as stage
from dubito.testing.structures import crystal, random_orthogonal, rattled, toy_labels

TEACHER = TeacherConfig(kind="teacher")
CHECKS = LabelChecksConfig()
EIGHT = rattled(8, molecules="ammonia", displacement=0.04)


class Spoilt(TeacherLabeller):
    """A teacher whose labels go through a function."""

    name: ClassVar[str] = "spoilt"

    def __init__(self, spoil: Any, only: set[str] | None = None) -> None:
        super().__init__(TEACHER)
        self.spoil, self.only, self.calls = spoil, only, 0

    def label(self, structure: Structures) -> Label:
        self.calls += 1
        label = super().label(structure)
        if self.only is not None and structure.ids[0] not in self.only:
            return label
        return self.spoil(label)


def labelled_by(labeller: TeacherLabeller, folder: Path, some: Structures = EIGHT) -> tuple[Structures, LabelCache]:
    cache = sign(LabelCache(folder, labeller.settings()), labeller, CHECKS, new_job())
    return label_structures(some, labeller, cache)[0], cache


def verdict(cache: LabelCache, labeller: TeacherLabeller | PyscfLabeller) -> Path | None:
    """Return the file of the check that vouches for what this code makes."""
    return next((cache.folder / FOLDER).glob(f"{fingerprint(labeller)}_*.json"), None)


def honest(some: Structures = EIGHT) -> Structures:
    return label_structures(some, TeacherLabeller(TEACHER), None)[0]


def flip_one(label: Label) -> Label:
    forces = label.forces.copy()
    forces[1] *= -1
    return replace(label, forces=forces)


def scaled(factor: float) -> Any:
    return lambda label: replace(label, forces=factor * label.forces)


# --- the gradient -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil",
    [
        scaled(1.2),
        scaled(0.95),
        scaled(-1.0),
        scaled(27.211386 / 0.529177),
        flip_one,
        lambda label: replace(label, energy=label.energy / 27.2),
    ],
    ids=["x1.2", "x0.95", "sign", "atomic units", "one atom", "energy in Hartree"],
)
def test_a_labeller_with_a_wrong_gradient_is_refused_in_one_paragraph(tmp_path: Path, spoil: Any) -> None:
    labeller = Spoilt(spoil)
    labelled, cache = labelled_by(labeller, tmp_path)
    with pytest.raises(LabelError, match="are not the derivative of its energies") as caught:
        check_gradients(labelled, labeller, cache, CHECKS)
    assert "\n" not in str(caught.value)
    assert "labelling.checks.gradient" in str(caught.value)
    assert verdict(cache, labeller) is None
    assert [cache.get(name) for name in EIGHT.ids] == [None] * 8, "the next start makes them anew"
    assert len(list((cache.folder / "refused").iterdir())) == 8, "and nothing is deleted"
    assert check_gradients(labelled, labeller, cache, CHECKS.model_copy(update={"gradient": "none"})) == {}


def test_a_right_gradient_is_checked_once_and_remembered(tmp_path: Path) -> None:
    labeller = Spoilt(lambda label: label)
    labelled, cache = labelled_by(labeller, tmp_path)
    labeller.calls = 0
    assert check_gradients(labelled, labeller, cache, CHECKS) == {}
    assert labeller.calls == 4
    path = verdict(cache, labeller)
    assert path is not None
    found = read_json(path)
    assert found["structure"] == EIGHT.ids[0]
    assert found["difference_ev_per_angstrom"] < 2e-3
    check_gradients(labelled, labeller, cache, CHECKS)
    assert labeller.calls == 4
    check_gradients(labelled, labeller, cache, CHECKS.model_copy(update={"gradient_tolerance_ev_per_angstrom": 0.01}))
    assert labeller.calls == 8, "a stricter tolerance asks again"
    for path in (cache.folder / FOLDER).iterdir():
        path.write_text("{")
    check_gradients(labelled, labeller, cache, CHECKS)
    assert labeller.calls == 12, "a damaged record counts as none"


def test_a_new_version_of_the_program_is_checked_again(tmp_path: Path) -> None:
    old = Spoilt(lambda label: label)
    labelled, cache = labelled_by(old, tmp_path)
    check_gradients(labelled, old, cache, CHECKS)
    new = Spoilt(lambda label: replace(scaled(1.2)(label), code_version="teacher 99"))
    other = EIGHT[3:]
    broken, cache = labelled_by(new, tmp_path, replace(other, positions=other.positions * 1.01))
    with pytest.raises(LabelError):
        check_gradients(broken, new, cache, CHECKS)


def test_at_a_minimum_a_factor_is_found_all_the_same() -> None:
    """Forces vanish there, so that any multiple of them is as good; beside it they don't."""
    start = rattled(1, molecules="ammonia", displacement=0.0)
    teacher = TeacherLabeller(TEACHER)
    for _ in range(400):
        start = replace(start, positions=start.positions + 0.005 * teacher.label(start).forces)
    label = teacher.label(start)
    assert np.abs(label.forces).max() < 0.01
    right = examine(start, label, teacher.label, 0.02)
    bad = Spoilt(scaled(1.2))
    wrong = examine(start, bad.label(start), bad.label, 0.02)
    assert right is not None
    assert wrong is not None
    assert right.agrees
    assert not wrong.agrees


@given(seed=st.integers(0, 10**6), displacement=st.floats(0.0, 0.2))
@settings(max_examples=30, deadline=None)
def test_honest_gradients_pass_wherever_the_atoms_are(seed: int, displacement: float) -> None:
    teacher = TeacherLabeller(TEACHER)
    one = rattled(1, molecules="ammonia", seed=seed, displacement=displacement)
    verdict = examine(one, teacher.label(one), teacher.label, 0.02)
    assert verdict is not None
    assert verdict.agrees


def test_one_wrong_label_among_right_ones_is_refused_alone(tmp_path: Path) -> None:
    labeller = Spoilt(scaled(1.2), only={EIGHT.ids[4]})
    labelled, cache = labelled_by(labeller, tmp_path)
    every = CHECKS.model_copy(update={"gradient": "all"})
    wrong = check_gradients(labelled, labeller, cache, every)
    assert list(wrong) == [4]
    kept, report = refuse_insane(labelled, {"done": 8, "failed": [], "reused": 0, "retried": 0}, None, CHECKS, wrong)
    assert kept.is_labelled.tolist() == [True] * 4 + [False] + [True] * 3
    assert report["failed"][0]["reason"] == "gradient"


def test_what_cannot_be_judged_accuses_nobody(tmp_path: Path) -> None:
    class Lonely(Spoilt):
        def label(self, structure: Structures) -> Label:
            if structure.ids[0] not in EIGHT.ids:
                raise LabellingFailure("scf_not_converged", "no")
            return super().label(structure)

    labeller = Lonely(scaled(2.0))
    labelled, cache = labelled_by(labeller, tmp_path)
    assert check_gradients(labelled, labeller, cache, CHECKS) == {}
    assert verdict(cache, labeller) is None
    climbed = Spoilt(lambda label: replace(label, forces=2 * label.forces, attempts=2))
    labelled, cache = labelled_by(climbed, tmp_path / "other")
    assert check_gradients(labelled, climbed, cache, CHECKS) == {}, "its neighbours may be in another state"


@pytest.mark.parametrize("loose", [{}, {"grid_level": 1, "conv_tol_hartree": 1e-6}], ids=["usual", "draft"])
def test_dft_passes_its_own_check(tmp_path: Path, loose: dict[str, Any]) -> None:
    labeller = PyscfLabeller(PyscfConfig(**{"basis": "sto-3g", "grid_level": 2, **loose}))
    cache = sign(LabelCache(tmp_path, labeller.settings()), labeller, CHECKS, new_job())
    labelled, _ = label_structures(EIGHT[:1], labeller, cache)
    assert check_gradients(labelled, labeller, cache, CHECKS) == {}
    path = verdict(cache, labeller)
    assert path is not None
    assert read_json(path)["difference_ev_per_angstrom"] < 5e-3


# --- force and torque ---------------------------------------------------------------------------


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_torque_belongs_to_the_molecule_not_to_its_place(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positions, forces = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    forces -= forces.mean(0)
    turn = random_orthogonal(seed, proper=True)
    torque = net_torque(positions, forces)
    assert net_torque(positions @ turn.T + rng.normal(size=3), forces @ turn.T) == pytest.approx(torque)
    assert net_torque(3 * positions, forces) == pytest.approx(torque), "a force, whatever the size"


def test_torque_of_a_couple_is_its_force() -> None:
    assert net_torque(np.array([[0, 0, 0], [0, 0, 2.0]]), np.array([[0.1, 0, 0], [-0.1, 0, 0]])) == pytest.approx(0.2)
    assert net_torque(np.zeros((1, 3)), np.ones((1, 3))) == 0.0


def spoil_forces(labelled: Structures, row: int, change: Any) -> Structures:
    forces = labelled.forces.copy()
    atoms = slice(labelled.ptr[row], labelled.ptr[row + 1])
    forces[atoms] = change(labelled.positions[atoms], forces[atoms])
    return labelled.with_columns(labels__forces=forces)


def turning(positions: Any, forces: Any) -> Any:
    added = np.cross([0, 0, 0.3], positions - positions.mean(0))
    return forces + added - added.mean(0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (turning, "net_torque"),
        (lambda x, f: f + [0.05, 0, 0], "net_force"),
        (lambda x, f: 1e4 * f, "absurd_force"),
        (lambda x, f: np.where(np.arange(4)[:, None] == 2, -f, f), "net_force"),
    ],
    ids=["torque", "net force", "absurd", "one atom flipped"],
)
def test_what_no_physics_allows_is_refused(change: Any, reason: str) -> None:
    wrong = insane(spoil_forces(honest(), 3, change), CHECKS)
    assert {row: found for row, (found, _) in wrong.items()} == {3: reason}


def test_honest_labels_have_neither_force_nor_torque() -> None:
    assert insane(honest(), CHECKS) == {}
    assert insane(toy_labels(crystal(3)), CHECKS) == {}, "a crystal has no torque to be judged"
    water = PyscfLabeller(PyscfConfig(basis="sto-3g", grid_level=1))
    assert insane(label_structures(rattled(2), water, None)[0], CHECKS) == {}


# --- outliers -----------------------------------------------------------------------------------


def said_of(labelled: Structures, *, error: float, seed: int = 0, sigma: bool = True) -> dict[str, Any]:
    """Return predictions with a random force error (eV/Å), and energies that go with it."""
    rng = np.random.default_rng(seed)
    shape = labelled.forces.shape
    said = {
        "energy": labelled.energy + 0.3 * error * rng.normal(size=len(labelled)),
        "forces": labelled.forces + error * rng.normal(size=shape),
    }
    if sigma:
        said["energy_uncertainty"] = np.full(len(labelled), 0.3 * error)
        said["forces_uncertainty"] = np.full(shape, error)
    return said


@given(seed=st.integers(0, 10**6), error=st.floats(0.001, 5.0), sigma=st.booleans(), n=st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_honest_labels_of_an_ensemble_that_errs_pass(seed: int, error: float, sigma: bool, n: int) -> None:
    labelled = honest()[:n]
    assert outliers(labelled, said_of(labelled, error=error, seed=seed, sigma=sigma), CHECKS) == {}


@pytest.mark.parametrize("sigma", [True, False], ids=["with uncertainty", "score only"])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("energy", "another electronic state"),
        ("state", "the ensemble that selected"),
        ("sign", "-1.00 times"),
        ("factor", "1.20 times"),
    ],
)
def test_a_planted_outlier_is_refused(fault: str, words: str, *, sigma: bool) -> None:
    labelled = honest()
    said = said_of(labelled, error=0.02, sigma=sigma)
    energy, forces = labelled.energy.copy(), labelled.forces.copy()
    atoms = slice(labelled.ptr[5], labelled.ptr[6])
    energy[5] += {"energy": 1.0, "state": 16.0}.get(fault, 0.0)
    if fault == "state":
        forces[atoms] = turning(labelled.positions[atoms], -forces[atoms])
    elif fault == "sign":
        forces[atoms] *= -1
    elif fault == "factor":
        forces[atoms] *= 1.2
    wrong = outliers(labelled.with_columns(labels__energy=energy, labels__forces=forces), said, CHECKS)
    assert list(wrong) == [5]
    assert words in wrong[5]


def test_an_ensemble_that_knows_nothing_accuses_nobody_of_its_forces() -> None:
    labelled = honest()
    said = said_of(labelled, error=0.1, sigma=False)
    said["forces"] = -said["forces"]
    assert outliers(labelled, said, CHECKS) == {}


def test_a_shift_that_all_labels_share_is_no_outlier() -> None:
    labelled = honest()
    said = said_of(labelled, error=0.02)
    said["energy"] = said["energy"] - 40.0
    assert outliers(labelled, said, CHECKS) == {}


def test_in_a_job_of_one_structure_the_uncertainty_judges() -> None:
    labelled = honest()[:1]
    said = said_of(labelled, error=0.01)
    assert outliers(labelled, said, CHECKS) == {}
    said["energy"] = said["energy"] - 16.0
    assert list(outliers(labelled, said, CHECKS)) == [0]
    del said["energy_uncertainty"]
    assert outliers(labelled, said, CHECKS) == {}, "with nothing to judge by nothing is judged"


def test_a_larger_factor_takes_it_back_and_failed_structures_are_passed_over() -> None:
    labelled = honest()
    said = said_of(labelled, error=0.05)
    energy = labelled.energy.copy()
    energy[2] += 0.6
    mask = np.arange(8) != 6
    energy[6] = np.nan
    wrong = labelled.with_columns(labels__energy=energy, labels__mask=mask)
    assert list(outliers(wrong, said, CHECKS)) == [2]
    assert outliers(wrong, said, CHECKS.model_copy(update={"outlier_factor": 100.0})) == {}


# --- where labels are made ----------------------------------------------------------------------


def selected_file(folder: Path, error: float = 0.02) -> Path:
    path = folder / "selected.h5"
    write_structures(path, EIGHT, predictions={"ensemble": said_of(honest(), error=error)})
    return path


def run_stage(folder: Path, selected: Path, name: str, **checks: Any) -> tuple[Structures, dict[str, Any]]:
    stage.run(
        selected=selected,
        shard=0,
        structures_per_shard=8,
        output=folder / f"{name}.h5",
        report=folder / f"{name}.json",
        cache=folder / "cache",
        labelling=LabellingConfig.model_validate({"labeller": {"kind": "teacher"}, "checks": checks}),
        threads=1,
    )
    return read_structures(folder / f"{name}.h5"), read_json(folder / f"{name}.json")


def plant(folder: Path, row: int, change: Any) -> None:
    """Put a wrong label into the cache, as a program that ended in another state does."""
    cache = LabelCache(folder / "cache", TeacherLabeller(TEACHER).settings())
    cache.put(EIGHT.ids[row], change(TeacherLabeller(TEACHER).label(EIGHT[row])))


def test_an_insane_label_never_leaves_the_labelling_job(tmp_path: Path) -> None:
    selected = selected_file(tmp_path)
    plant(tmp_path, 2, lambda label: replace(label, energy=label.energy + 16))
    plant(tmp_path, 5, scaled(-1.0))
    labelled, report = run_stage(tmp_path, selected, "shard_000", gradient="none")
    assert np.flatnonzero(~labelled.is_labelled).tolist() == [2, 5]
    assert np.isnan(labelled.energy[[2, 5]]).all()
    assert np.isnan(labelled[5].forces).all()
    assert labelled.text("provenance/kind")[2] == ""
    assert {entry["id"]: entry["reason"] for entry in report["failed"]} == {
        EIGHT.ids[2]: "outlier",
        EIGHT.ids[5]: "outlier",
    }
    assert report["done"] == 6
    again, report = run_stage(tmp_path, selected, "again", refuse_outliers=False, gradient="none")
    assert again.is_labelled.all(), "the cache kept them"
    assert report["reused"] == 8


def test_honest_labels_leave_it_untouched(tmp_path: Path) -> None:
    for error in (0.02, 1.0):
        labelled, report = run_stage(tmp_path, selected_file(tmp_path, error), "shard_000")
        assert labelled.is_labelled.all()
        assert report["failed"] == []
    np.testing.assert_array_equal(labelled.energy, honest().energy)


def test_a_wrong_gradient_stops_the_job_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = TeacherLabeller.label
    monkeypatch.setattr(TeacherLabeller, "label", lambda self, one: scaled(1.1)(right(self, one)))
    with pytest.raises(LabelError, match="not the derivative"):
        run_stage(tmp_path, selected_file(tmp_path), "shard_000")
    assert not (tmp_path / "shard_000.h5").exists()
