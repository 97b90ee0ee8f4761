"""Reference forces are derivatives of reference energies, and the barrier is the labeller's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dubito.config.data import DataConfig
from dubito.config.evaluation import InversionProfile
from dubito.config.labelling import LabellingConfig, PyscfConfig, TeacherConfig
from dubito.core.errors import ConfigError, LabelError
from dubito.data.molecules import equilibrium
from dubito.data.store import read_attributes, read_structures, write_structures
from dubito.data.structures import Structures
from dubito.labelling.base import Label, LabellingFailure
from dubito.labelling.inversion import flattened, geometry_at, height_of, heights, umbrella_of
from dubito.labelling.potentials import DoubleWellAmmonia
from dubito.labelling.pyscf_labeller import PyscfLabeller
from dubito.labelling.relax import KeepInPlane, LabelSource, relax
from dubito.labelling.teacher import TeacherLabeller
from dubito.stages import prepare_reference
from dubito.testing.structures import rattled, toy_labels

AMMONIA = rattled(1, molecules="ammonia", displacement=0.08)
AMIDOGEN = Structures.build([[7, 1, 1]], [[[0, 0, 0.14], [0.05, 0.8, -0.5], [0, -0.82, -0.47]]], multiplicity=2)


def labeller(**settings: Any) -> PyscfLabeller:
    return PyscfLabeller(PyscfConfig(**{"basis": "sto-3g", **settings}))


def worst_difference(dft: PyscfLabeller, one: Structures, components: list[tuple[int, int]]) -> float:
    """Return the largest deviation of a force from central differences of the energy, eV/Å."""
    forces, step, worst = dft.label(one).forces, 5e-4, 0.0
    for atom, axis in components:
        shift = np.zeros_like(forces)
        shift[atom, axis] = step
        plus, minus = (dft.label(replace(one, positions=one.positions + s * shift)).energy for s in (1, -1))
        worst = max(worst, abs((minus - plus) / (2 * step) - forces[atom, axis]))
    return worst


# --- PySCF ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "components"), [(AMMONIA, [(0, 2), (3, 1)]), (AMIDOGEN, [(1, 1)])], ids=["RKS", "UKS"])
def test_forces_are_finite_differences(one: Structures, components: list[tuple[int, int]]) -> None:
    assert worst_difference(labeller(grid_level=4, conv_tol_hartree=1e-11), one, components) < 3e-4


def test_on_coarse_grids_the_gradient_of_the_grid_is_what_makes_forces_exact() -> None:
    coarse = labeller(grid_level=1, conv_tol_hartree=1e-11)
    assert worst_difference(coarse, AMMONIA, [(0, 2), (1, 1)]) < 3e-4
    coarse.full_grid_gradient = False
    assert worst_difference(coarse, AMMONIA, [(1, 1)]) > 1e-3
    assert not labeller(grid_level=3).full_grid_gradient
    assert labeller(grid_level=3, xc="r2scan").full_grid_gradient


@pytest.mark.parametrize(("auxbasis", "tolerance"), [(None, 0.02), ("def2-universal-jkfit", 0.004)])
def test_density_fitting_changes_forces_by_little(auxbasis: str | None, tolerance: float) -> None:
    exact = labeller(basis="def2-svp", density_fit=False).label(AMMONIA)
    fitted = labeller(basis="def2-svp", auxbasis=auxbasis).label(AMMONIA)
    assert 0 < np.abs(fitted.forces - exact.forces).max() < tolerance
    assert abs(fitted.energy - exact.energy) < 0.01


def test_multiplicity_decides_the_state() -> None:
    positions = [[[0, 0, 0], [0, 0, 1.21]]]
    singlet, triplet = (labeller().label(Structures.build([[8, 8]], positions, multiplicity=m)).energy for m in (1, 3))
    assert triplet < singlet - 0.5, "oxygen is a triplet"


def test_charge_counts() -> None:
    positions = [[[0, 0, 0], [0.94, 0.33, 0], [-0.47, 0.33, 0.81], [-0.47, 0.33, -0.81], [0, -1.02, 0]]]
    ammonium = labeller().label(Structures.build([[7, 1, 1, 1, 1]], positions, charge=1))
    ammonia = labeller().label(AMMONIA)
    # The proton affinity of ammonia is 8.9 eV; in so small a basis about 11 (without the charge: no singlet).
    assert 8 < ammonia.energy - ammonium.energy < 13


def test_heavy_elements_get_their_core_potential() -> None:
    # Hydrogen iodide, 1.61 Å: without the potential the valence basis collapses into the bare nucleus.
    short, long = (
        labeller(basis="def2-svp").label(Structures.build([[53, 1]], [[[0, 0, 0], [0, 0, d]]])) for d in (1.45, 1.85)
    )
    assert short.forces[1, 2] > 2
    assert long.forces[1, 2] < -1
    assert -299 < short.energy / 27.2114 < -297


def test_ladder_rescues_what_plain_cycles_leave() -> None:
    plain = labeller().label(AMMONIA)
    second = labeller(max_cycle=3).label(AMMONIA)
    third = labeller(max_cycle=1).label(AMMONIA)
    assert (plain.attempts, second.attempts, third.attempts) == (1, 2, 3)
    for rescued in (second, third):
        assert rescued.energy == pytest.approx(plain.energy, abs=1e-6)
        np.testing.assert_allclose(rescued.forces, plain.forces, atol=1e-3)


def test_an_unconverged_scf_gives_no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dubito.labelling.scf_ladder.second_order", lambda scf, max_cycle: False)
    with pytest.raises(LabellingFailure, match="did not converge") as caught:
        labeller(max_cycle=2).label(AMMONIA)
    assert caught.value.reason == "scf_not_converged"
    assert caught.value.attempts == 7
    for rung in ("DIIS in 2 cycles", "second-order", "damping", "fractional", "'huckel'", "'vsap'", "'atom'"):
        assert rung in str(caught.value), "the message names each rung"


def test_a_net_force_beyond_the_limit_gives_no_label() -> None:
    with pytest.raises(LabellingFailure) as caught:
        labeller(max_net_force_ev_per_angstrom=1e-9).label(AMMONIA)
    assert caught.value.reason == "net_force"


# --- inversion profile --------------------------------------------------------------------------


def make_profile(folder: Path, *, data: dict[str, Any] | None = None, labels: Any = None, **profile: Any) -> str:
    return prepare_reference.run(
        output=folder / "profile.h5",
        profile=InversionProfile.model_validate(profile),
        data=DataConfig.model_validate({"initial": {"kind": "rattle", **(data or {})}}),
        labelling=LabellingConfig.model_validate({"labeller": labels or {"kind": "teacher"}}),
        cache=folder / "cache",
        threads=1,
    )


@pytest.mark.parametrize("n_points", [3, 10, 11, 25])
def test_profile_of_the_teacher_has_its_analytic_barrier(tmp_path: Path, n_points: int) -> None:
    said = make_profile(tmp_path, n_points=n_points)
    assert "barrier 250 meV" in said
    structures, teacher = read_structures(tmp_path / "profile.h5"), DoubleWellAmmonia()
    about = read_attributes(tmp_path / "profile.h5")["profile"]
    h, low, top = np.array(about["coordinate"]), about["minimum_index"], about["barrier_index"]
    assert len(structures) == n_points + (n_points + 1) % 2 == len(h)
    assert h[top] == 0.0
    np.testing.assert_allclose(h, -h[::-1])
    assert np.all(np.diff(h) > 0)
    if n_points > 3:
        assert h[-1] == pytest.approx(1.2 * h[low])
    energy = structures.energy
    assert energy[low] == energy.min() == energy[::-1][low]
    assert energy[low] == pytest.approx(-3 * teacher.bond_depth, abs=1e-4)
    assert energy[top] - energy[low] == pytest.approx(teacher.barrier, abs=2e-4)
    assert about["coordinate_label"] == "N height over H plane"
    assert (about["coordinate_unit"], about["kind"], about["name"]) == ("Angstrom", "inversion", "inversion")
    profile = InversionProfile()
    for one, height in zip(structures, h, strict=True):
        # Mirror images are copied, not computed: they must be what the labeller would have said.
        e, forces, _ = teacher.evaluate(one)
        assert one.energy[0] == pytest.approx(e, abs=1e-9)
        np.testing.assert_allclose(one.forces, forces, atol=1e-8)
        assert abs(height_of(one.positions, profile)) == pytest.approx(abs(height), abs=1e-9)
    assert np.abs(structures[low].forces).max() < 0.02
    assert np.abs(structures[top].forces).max() < 0.02


def test_profile_is_not_labelled_twice(tmp_path: Path) -> None:
    make_profile(tmp_path)
    first = read_structures(tmp_path / "profile.h5").energy
    assert " 0 labels computed" in make_profile(tmp_path)
    np.testing.assert_array_equal(read_structures(tmp_path / "profile.h5").energy, first)


def test_profile_killed_on_the_way_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, calls = TeacherLabeller.label, []

    def mortal(self: TeacherLabeller, one: Structures) -> Label:
        calls.append(one.ids[0])
        if len(calls) == 9:  # the first label, four around it that check its gradient, three more, and one in hand
            raise KeyboardInterrupt
        return honest(self, one)

    monkeypatch.setattr(TeacherLabeller, "label", mortal)
    with pytest.raises(KeyboardInterrupt):
        make_profile(tmp_path)
    make_profile(tmp_path)
    assert len(calls) == len(set(calls)) + 1, "only the label in hand was made again"


def test_without_relaxing_the_bonds_keep_their_length(tmp_path: Path) -> None:
    make_profile(tmp_path, relax=False)
    structures = read_structures(tmp_path / "profile.h5")
    bonds = [np.linalg.norm(one.positions[1:] - one.positions[0], axis=1) for one in structures]
    np.testing.assert_allclose(bonds, bonds[0][0], atol=1e-4)


def test_path_of_a_larger_molecule_keeps_what_hangs_on_the_neighbours() -> None:
    one = equilibrium(DataConfig.model_validate({"initial": {"kind": "rattle", "molecule": "H3CNH2"}}))
    names = one.atomic_numbers
    center = int(np.flatnonzero(names == 7)[0])
    near = np.argsort(np.linalg.norm(one.positions - one.positions[center], axis=1))[1:4].tolist()
    profile = InversionProfile(center_atom=center, plane_atoms=near)
    minimum = umbrella_of(one.positions, profile)
    planar = flattened(minimum, profile)
    carbon = int(np.flatnonzero(names == 6)[0])
    methyl = [i for i in range(len(names)) if i not in (center, carbon, *near)]
    for h in heights(minimum.height, 7):
        x = geometry_at(h, minimum, planar, profile)
        assert height_of(x, profile) == pytest.approx(h, abs=1e-9)
        lengths = np.linalg.norm(x[methyl] - x[carbon], axis=1)
        np.testing.assert_allclose(
            lengths, np.linalg.norm(one.positions[methyl] - one.positions[carbon], axis=1), atol=1e-9
        )
        np.testing.assert_allclose(np.linalg.norm(x[near] - x[center], axis=1), minimum.bonds, atol=1e-9)
    at_minimum = geometry_at(minimum.height, minimum, planar, profile)
    gaps = [np.linalg.norm(x[:, None] - x[None], axis=2) for x in (at_minimum, one.positions)]
    np.testing.assert_allclose(*gaps, atol=1e-9)


def test_planar_constraint_removes_exactly_the_force_on_the_height() -> None:
    profile, rng = InversionProfile(), np.random.default_rng(0)
    constraint, positions = KeepInPlane(profile), AMMONIA.positions.copy()
    constraint.adjust_positions(None, positions)
    assert abs(height_of(positions, profile)) < 1e-12
    gradient, step = np.zeros((4, 3)), 1e-6
    for i, k in np.ndindex(4, 3):
        shift = np.zeros((4, 3))
        shift[i, k] = step
        gradient[i, k] = (height_of(positions + shift, profile) - height_of(positions - shift, profile)) / (2 * step)
    forces = rng.normal(size=(4, 3))
    left = forces.copy()
    constraint.adjust_forces(SimpleNamespace(positions=positions), left)
    assert abs((left * gradient).sum()) < 1e-8
    removed = forces - left
    cosine = (removed * gradient).sum() / np.linalg.norm(removed) / np.linalg.norm(gradient)
    assert abs(cosine) == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("constrained", [True, False])
def test_relaxing_in_the_plane_ends_on_the_barrier_and_otherwise_in_a_well(constrained: bool) -> None:
    teacher, profile = DoubleWellAmmonia(), InversionProfile()
    positions = AMMONIA.positions.copy()
    KeepInPlane(profile).adjust_positions(None, positions)
    positions[0] += 0 if constrained else 0.02
    source = LabelSource(TeacherLabeller(TeacherConfig(kind="teacher")), None, "test")
    relaxed = relax(replace(AMMONIA, positions=positions), source, KeepInPlane(profile) if constrained else None)
    above = teacher.evaluate(relaxed)[0] + 3 * teacher.bond_depth
    assert above == pytest.approx(teacher.barrier if constrained else 0, abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"plane_atoms": [1, 2, 7]}, "names atom 7, but the molecule has the atoms 0 to 3"),
        ({"center_atom": 1, "plane_atoms": [0, 2, 3]}, "not its neighbour"),
        ({"center_atom": 1, "plane_atoms": [1, 2, 3]}, "both as center_atom and in plane_atoms"),
        ({"data": {"molecule": "BF3"}, "labels": {"kind": "teacher", "potential": "morse"}, "relax": False},
         "nothing to invert"),
        ({"data": {"molecule": "NH33"}}, r"'NH33' is not among the \d+ molecules.*Did you mean 'NH3'"),
        ({"data": {"molecule": None, "file": "none.xyz"}}, r"data\.initial\.file: none\.xyz does not exist"),
    ],
)  # fmt: skip
def test_profile_that_does_not_fit(tmp_path: Path, changes: dict[str, Any], pattern: str) -> None:
    with pytest.raises(ConfigError, match=pattern):
        make_profile(tmp_path, **changes)


def test_profile_needs_a_labeller_that_computes(tmp_path: Path) -> None:
    write_structures(tmp_path / "data.h5", toy_labels(rattled(2, molecules="ammonia")))
    with pytest.raises(ConfigError, match=r"set evaluation\.profiles to \[\]"):
        make_profile(tmp_path, labels={"kind": "dataset", "files": [str(tmp_path / "data.h5")]})


def test_wrong_multiplicity_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"10 electrons at charge \+0, which can't have multiplicity 2"):
        make_profile(tmp_path, data={"multiplicity": 2}, labels={"kind": "pyscf"})
    assert not (tmp_path / "cache").exists()
