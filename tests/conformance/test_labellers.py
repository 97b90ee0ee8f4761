"""All labellers keep the labellers' contract."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dubito.config.labelling import DatasetConfig, PyscfConfig, TeacherConfig
from dubito.data.store import write_structures
from dubito.data.structures import MODEL, Structures
from dubito.labelling.base import Labeller
from dubito.labelling.dataset_labeller import DatasetLabeller
from dubito.labelling.potentials import PairwiseMorse
from dubito.labelling.pyscf_labeller import PyscfLabeller
from dubito.labelling.teacher import TeacherLabeller
from dubito.testing.labeller_suite import LabellerTests
from dubito.testing.structures import crystal, rattled, toy_labels

WATER = Structures.build([[8, 1, 1]], [[[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]]])


def overlapping() -> Structures:
    one = rattled(1, molecules="ammonia")
    positions = one.positions.copy()
    positions[2] = positions[1] + [0.05, 0, 0]
    return replace(one, positions=positions)


class TestDoubleWell(LabellerTests):
    def make(self) -> Labeller:
        return TeacherLabeller(TeacherConfig(kind="teacher"))

    def changed(self) -> list[Labeller]:
        return [TeacherLabeller(TeacherConfig(kind="teacher", potential="morse"))]

    def unchanged(self) -> list[Labeller]:
        return [TeacherLabeller(TeacherConfig(kind="teacher", seconds_per_label=1.0), threads=2)]

    def good(self) -> Structures:
        # Near the minimum, squeezed until the repulsion acts, and torn apart.
        near = rattled(2, molecules="ammonia", displacement=0.2)
        return Structures.concatenate([near, *(replace(near[0], positions=near[0].positions * s) for s in (0.8, 3))])

    def bad(self) -> list[tuple[Structures, str]]:
        return [(WATER, "one N"), (overlapping(), "overlap")]


class TestMorse(LabellerTests):
    def make(self) -> Labeller:
        return TeacherLabeller(TeacherConfig(kind="teacher", potential="morse"))

    def changed(self) -> list[Labeller]:
        other = TeacherLabeller(TeacherConfig(kind="teacher", potential="morse"))
        other.potential = PairwiseMorse(cutoff=5.0)
        return [other]

    def good(self) -> Structures:
        return Structures.concatenate([rattled(2), crystal(1)])

    def bad(self) -> list[tuple[Structures, str]]:
        # Nothing but a hair's breadth to the atom's image through the cell's wall.
        wall = Structures.build([[29, 29]], [[[0, 0, 0.02], [0, 0, 3.99]]], cell=4 * np.eye(3), pbc=True)
        return [(overlapping(), "overlap"), (wall, "overlap"), (replace(wall, cell=0 * wall.cell), "cell")]


class TestMorseCrystal(TestMorse):
    def good(self) -> Structures:
        return crystal(1)

    @pytest.mark.parametrize(("voigt", "i", "j"), [(0, 0, 0), (2, 2, 2), (3, 1, 2), (5, 0, 1)])
    def test_stress_is_the_derivative_by_strain(self, labeller: Labeller, voigt: int, i: int, j: int) -> None:
        one, ends = crystal(1), []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += sign * 0.5e-5
            strain[j, i] += sign * 0.5e-5
            ends.append(labeller.label(replace(one, positions=one.positions @ strain, cell=one.cell @ strain)).energy)
        stress = labeller.label(one).stress
        assert stress is not None
        volume = abs(np.linalg.det(one.cell[0]))
        np.testing.assert_allclose(stress[voigt], (ends[0] - ends[1]) / 2e-5 / volume, atol=1e-8)

    def test_a_doubled_cell_has_twice_the_energy(self, labeller: Labeller) -> None:
        one = crystal(1)
        double = Structures.build(
            [np.tile(one.atomic_numbers, 2)],
            [np.concatenate([one.positions, one.positions + one.cell[0, 1]])],
            cell=one.cell * np.array([1, 2, 1])[:, None],
            pbc=True,
        )
        single, both = labeller.label(one), labeller.label(double)
        assert both.energy == pytest.approx(2 * single.energy, abs=1e-9)
        np.testing.assert_allclose(both.forces, np.tile(single.forces, (2, 1)), atol=1e-9)


class TestPyscf(LabellerTests):
    n_directions = 2
    step_angstrom = 1e-3
    force_tolerance = 2e-3
    energy_tolerance = 2e-4

    def make(self) -> Labeller:
        return PyscfLabeller(PyscfConfig(basis="sto-3g"))

    def changed(self) -> list[Labeller]:
        changes = [
            {"xc": "BLYP"},
            {"basis": "6-31g"},
            {"density_fit": False},
            {"grid_level": 4},
            {"conv_tol_hartree": 1e-8},
            {"auxbasis": "weigend"},
        ]
        return [PyscfLabeller(PyscfConfig(**{"basis": "sto-3g", **change})) for change in changes]

    def unchanged(self) -> list[Labeller]:
        return [PyscfLabeller(PyscfConfig(basis="sto-3g"), threads=1)]

    def good(self) -> Structures:
        return rattled(1, molecules="ammonia", displacement=0.1)

    def bad(self) -> list[tuple[Structures, str]]:
        ammonia = self.good()
        uranium = Structures.build([[92, 1]], [[[0, 0, 0], [0, 0, 2.0]]], multiplicity=2)
        return [
            (overlapping(), "overlap"),
            (replace(ammonia, multiplicity=np.array([2])), "multiplicity 1 or 3"),
            (replace(ammonia, charge=np.array([1])), "9 electrons"),
            (replace(ammonia, charge=np.array([10])), "0 electrons"),
            (crystal(1), "periodic"),
            (uranium, r"labelling\.labeller\.basis: the basis 'sto-3g' has no functions for U"),
        ]


class TestDataset(LabellerTests):
    computes = False

    @pytest.fixture(autouse=True)
    def file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "labelled.h5"
        write_structures(self.path, self.good().with_columns(provenance__kind=["reference", "model", "", "reference"]))

    def make(self) -> Labeller:
        return DatasetLabeller(DatasetConfig(kind="dataset", files=[str(self.path)]))

    def changed(self) -> list[Labeller]:
        other = self.path.with_name("other.h5")
        write_structures(other, self.good()[:2])
        return [DatasetLabeller(DatasetConfig(kind="dataset", files=[str(other)]))]

    def unchanged(self) -> list[Labeller]:
        copy = self.path.with_name("copy.h5")
        shutil.copy(self.path, copy)
        return [DatasetLabeller(DatasetConfig(kind="dataset", files=[str(copy)]))]

    def good(self) -> Structures:
        return toy_labels(rattled(4))

    def bad(self) -> list[tuple[Structures, str]]:
        moved = replace(self.good()[0], positions=self.good()[0].positions + 0.01)
        charged = replace(self.good()[0], charge=np.array([1]))
        return [(moved, "0.01 Å off"), (charged, "none has these atoms, charge"), (crystal(1)[:1], "this geometry"),
                (Structures.build([[29]], [[[0, 0, 0]]]), "contain Cu")]  # fmt: skip

    def test_finds_by_geometry_what_rounding_has_moved(self, labeller: Labeller) -> None:
        for one in self.good():
            rounded = replace(one, positions=one.positions.astype("f4").round(5).astype("f8"))
            assert rounded.ids != one.ids
            label = labeller.label(rounded)
            assert label.energy == one.energy[0]
            np.testing.assert_array_equal(label.forces, one.forces)

    def test_model_labels_stay_model_labels(self, labeller: Labeller) -> None:
        kinds = [labeller.label(one).kind for one in self.good()]
        assert kinds == ["reference", MODEL, "reference", "reference"]
