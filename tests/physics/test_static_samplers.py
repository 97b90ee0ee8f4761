"""Samplers without dynamics: equipartition of normal modes, rigid halves of turned molecules, widths of rattling."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule
from ase.data import atomic_masses

from dubito.config.sanity import SanityConfig
from dubito.config.static_sampling import DihedralScanConfig, NormalModesConfig, RattleSamplerConfig
from dubito.core.errors import DataError
from dubito.core.units import ANGSTROM_SQRT_U_PER_EV_FS, BOLTZMANN_EV_PER_K
from dubito.data.prediction import Prediction
from dubito.data.structures import Array, Structures
from dubito.sampling.bonds import bond_graph, rotatable_bonds, turned
from dubito.sampling.dihedral_scan import DihedralScanSampler
from dubito.sampling.normal_modes import NormalModesSampler
from dubito.sampling.rattle import RattleSampler
from dubito.sampling.vibrations import NormalModes, displaced, normal_modes
from dubito.testing.sampler_suite import ToyPredictor
from dubito.testing.structures import AMMONIA, rattled, toy_labels

LOOSE = SanityConfig(max_energy_above_min_ev_per_atom=3.0)


class Network:
    """Springs between all atoms of one molecule, at rest in a given geometry: harmonic in the distances."""

    def __init__(self, rest: Array, k: float = 20.0) -> None:
        self.i, self.j = np.triu_indices(len(rest), 1)
        self.r0, self.k = np.linalg.norm(rest[self.i] - rest[self.j], axis=1), k
        self.batches: list[int] = []

    def predict(self, structures: Structures) -> Prediction:
        self.batches.append(len(structures))
        x = structures.positions.reshape(len(structures), -1, 3)
        bond = x[:, self.i] - x[:, self.j]
        r = np.linalg.norm(bond, axis=2)
        pull = (-self.k * (r - self.r0) / r)[..., None] * bond
        forces = np.zeros_like(x)
        for e, (i, j) in enumerate(zip(self.i, self.j, strict=True)):
            forces[:, i] += pull[:, e]
            forces[:, j] -= pull[:, e]
        energy = 0.5 * self.k * ((r - self.r0) ** 2).sum(axis=1) - 100.0
        n = len(structures.positions)
        return Prediction(structures.ptr, energy, np.zeros(n), forces.reshape(-1, 3), {"forces": np.full((n, 3), 0.01)})


def labelled(numbers: list[int], rest: Array, n: int = 3) -> Structures:
    rng = np.random.default_rng(5)
    x = [rest + rng.normal(scale=0.02, size=rest.shape) for _ in range(n)]
    return Structures.build(
        [numbers] * n,
        x,
        labels__energy=-100.0 + 0.01 * np.arange(n),
        labels__forces=np.full((n * len(rest), 3), 0.01),
        labels__mask=True,
    )


def modes_of(predictor: Network, numbers: list[int], rest: Array) -> NormalModes:
    geometries = displaced(rest, 0.005)
    batch = Structures.build([numbers] * len(geometries), list(geometries))
    forces = predictor.predict(batch).forces.reshape(geometries.shape)
    return normal_modes(rest, atomic_masses[numbers], forces, 0.005, is_periodic=False)


class TestNormalModes:
    def test_wavenumber_of_a_diatomic_in_closed_form(self) -> None:
        rest = np.array([[0.0, 0.0, 0.0], [0.4, 0.3, 1.0]])
        modes = modes_of(Network(rest, k=143.0), [7, 7], rest)
        # omega = sqrt(k / mu); with k = 143 eV/Å² about the 2359 1/cm of N2.
        omega = np.sqrt(143.0 / (14.007 / 2)) / ANGSTROM_SQRT_U_PER_EV_FS
        assert modes.wavenumbers == pytest.approx([omega / (2 * np.pi * 2.99792458e-5)], rel=1e-4)
        assert modes.wavenumbers[0] == pytest.approx(2359, rel=0.01)

    @pytest.mark.parametrize(
        ("numbers", "rest", "count"),
        [
            ([7, 1, 1, 1], AMMONIA, 6),
            ([8, 6, 8], np.array([[0.0, 0, -1.2], [0, 0, 0], [0, 0, 1.2]]), 4),
            ([8, 1, 1], np.array([[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]]), 3),
        ],
    )
    def test_as_many_modes_as_there_are_vibrations(self, numbers: list[int], rest: Array, count: int) -> None:
        assert len(modes_of(Network(rest), numbers, rest).curvatures) == count

    def test_each_mode_holds_half_kt_and_the_whole_neither_moves_nor_turns(self) -> None:
        numbers, kelvin, n = [7, 1, 1, 1], 300.0, 4000
        modes, masses = modes_of(Network(AMMONIA), numbers, AMMONIA), atomic_masses[numbers]
        rng = np.random.default_rng(0)
        shifts = np.stack([modes.displacement(kelvin, 1.0, rng) for _ in range(n)])
        amplitude = (shifts * np.sqrt(masses)[:, None]).reshape(n, -1) @ modes.vectors
        held = 0.5 * modes.curvatures * (amplitude**2).mean(axis=0) / (BOLTZMANN_EV_PER_K * kelvin)
        # The standard error of a mean square of 4000 normal numbers is 2.2 %.
        assert held == pytest.approx([0.5] * 6, rel=0.09)
        assert np.corrcoef(amplitude.T) == pytest.approx(np.eye(6), abs=0.07)
        centred = AMMONIA - (masses[:, None] * AMMONIA).sum(axis=0) / masses.sum()
        assert np.abs((masses[:, None] * shifts).sum(axis=1)).max() < 1e-12
        assert np.abs((masses[:, None] * np.cross(centred, shifts)).sum(axis=1)).max() < 1e-12

    def test_candidates_hold_the_energy_of_their_temperature(self) -> None:
        predictor = Network(AMMONIA)
        config = NormalModesConfig(n_structures=1500, temperatures_K=[20.0, 60.0], max_force_ev_per_angstrom=1e-4)
        sampler = NormalModesSampler(config, LOOSE)
        found = sampler.sample(predictor, labelled([7, 1, 1, 1], AMMONIA), seed=1, iteration=1)
        energy = predictor.predict(found.candidates).energy + 100.0
        name = np.array(found.candidates.text("origin/sampler"))
        for kelvin in (20, 60):
            mine = energy[name == f"normal_modes_{kelvin}K"]
            assert len(mine) == 750
            # Six modes; chi squared of 4500 degrees: 2.1 %, and springs in distances are not quite harmonic.
            assert mine.mean() == pytest.approx(6 * 0.5 * BOLTZMANN_EV_PER_K * kelvin, rel=0.09)
        # One lowest structure, its mirror images and copies relax to one minimum, whose Hessian is made once.
        assert predictor.batches.count(24) == 1
        assert found.steps == sum(predictor.batches) - len(found.candidates)

    def test_soft_and_imaginary_modes_keep_to_the_amplitude_of_the_floor(self) -> None:
        floor = (100.0 * 2 * np.pi * 2.99792458e-5 * ANGSTROM_SQRT_U_PER_EV_FS) ** 2
        modes = NormalModes(np.ones(2), np.array([-3.0, 1e-9, 4.0]), np.eye(6)[:, :3])
        assert modes.wavenumbers[0] < 0 < modes.wavenumbers[1]
        rng = np.random.default_rng(3)
        drawn = np.stack([modes.displacement(300.0, 100.0, rng).ravel()[:3] for _ in range(4000)])
        kt = BOLTZMANN_EV_PER_K * 300
        assert drawn.var(axis=0) == pytest.approx([kt / floor, kt / floor, kt / 4], rel=0.1)

    def test_modes_of_a_crystal_keep_its_rotations(self) -> None:
        rng = np.random.default_rng(1)
        x = rng.uniform(0, 4, (4, 3))
        half = rng.normal(size=(12, 12))
        stiff = half @ half.T
        # Forces of a crystal depend on positions relative to each other alone.
        relative = np.eye(12) - np.kron(np.full((4, 4), 0.25), np.eye(3))
        hessian = relative @ stiff @ relative
        forces = -(displaced(x, 0.01) - x).reshape(24, 12) @ hessian
        modes = normal_modes(x, np.ones(4), forces.reshape(24, 4, 3), 0.01, is_periodic=True)
        assert len(modes.curvatures) == 9
        assert modes.curvatures == pytest.approx(np.linalg.eigvalsh(hessian)[3:], rel=1e-6)

    def test_every_composition_is_relaxed_before_one_is_relaxed_twice(self) -> None:
        mixed = toy_labels(rattled(8, seed=1, displacement=0.03))
        sampler = NormalModesSampler(NormalModesConfig(n_minima=2, n_structures=20, temperatures_K=[100.0]), LOOSE)
        found = sampler.sample(ToyPredictor(), mixed, seed=1, iteration=1).candidates
        assert set(found.n_atoms.tolist()) == {3, 4}
        rows = {name: i for i, name in enumerate(mixed.ids)}
        for parent in set(found.text("origin/parent")):
            alike = mixed.n_atoms == mixed.n_atoms[rows[parent]]
            assert mixed.energy[rows[parent]] == mixed.energy[alike].min()

    def test_relaxations_that_leave_the_sane_region_are_counted(self) -> None:
        def spoil(structures: Structures, prediction: Prediction) -> Prediction:
            # Water falls apart in this model, ammonia does not.
            away = np.where(np.repeat(structures.n_atoms == 3, structures.n_atoms), -1.0, 1.0)
            return replace(prediction, forces=prediction.forces * away[:, None])

        mixed = toy_labels(rattled(4, seed=1, displacement=0.03))
        config = NormalModesConfig(n_minima=4, n_structures=10, temperatures_K=[100.0])
        found = NormalModesSampler(config, LOOSE).sample(ToyPredictor(spoil=spoil), mixed, seed=1, iteration=1)
        assert set(found.candidates.n_atoms.tolist()) == {4}
        assert found.walkers == sum(found.stops.values()) == 12
        assert found.stops["completed"] == 10

    def test_single_atoms_have_no_modes(self) -> None:
        atoms = Structures.build(
            [[7]], [[[0.0, 0, 0]]], labels__energy=-1.0, labels__forces=np.zeros((1, 3)), labels__mask=True
        )
        with pytest.raises(DataError, match="single atoms"):
            NormalModesSampler(NormalModesConfig(), LOOSE).sample(ToyPredictor(), atoms, seed=1, iteration=1)


class TestRattle:
    def test_coordinates_are_displaced_by_the_widths_in_turn(self) -> None:
        start = toy_labels(rattled(5, displacement=0.01, molecules="ammonia"))
        config = RattleSamplerConfig(n_structures=900, displacements_angstrom=[0.01, 0.02, 0.04])
        # A model without forces: nothing is refused, which would narrow the distribution.
        calm = ToyPredictor(spoil=lambda _, p: replace(p, energy=p.energy * 0 - 400.0, forces=p.forces * 0))
        found = RattleSampler(config, LOOSE).sample(calm, start, seed=1, iteration=1)
        assert found.stops == {"completed": 900}
        rows = {name: i for i, name in enumerate(start.ids)}
        parent = np.array([rows[name] for name in found.candidates.text("origin/parent")])
        shift = (found.candidates.positions - start[parent].positions).reshape(900, 12)
        name = np.array(found.candidates.text("origin/sampler"))
        for width in (0.01, 0.02, 0.04):
            mine = shift[name == f"rattle_{width}A"]
            assert len(mine) == 300
            # 3600 normal numbers: 1.2 %.
            assert mine.std() == pytest.approx(width, rel=0.05)
        assert set(Counter(parent.tolist()).values()) == {180}

    def test_jobs_share_the_widths(self) -> None:
        start = toy_labels(rattled(5, displacement=0.01, molecules="ammonia"))
        config = RattleSamplerConfig(n_structures=2, displacements_angstrom=[0.01, 0.02, 0.04])
        names: Counter[str] = Counter()
        for job in range(3):
            found = RattleSampler(config, LOOSE).sample(ToyPredictor(), start, seed=1, iteration=1, job=job)
            names.update(found.candidates.text("origin/sampler"))
        assert set(names.values()) == {2}

    def test_doubt_refuses_nothing_and_insane_copies_are_counted(self) -> None:
        start = toy_labels(rattled(5, displacement=0.01, molecules="ammonia"))
        config = RattleSamplerConfig(n_structures=60, displacements_angstrom=[0.4])
        found = RattleSampler(config, LOOSE).sample(ToyPredictor(doubt=99.0), start, seed=1, iteration=1)
        assert found.stops["min_distance"] > 0
        assert found.stops["completed"] == len(found.candidates) > 0
        assert sum(found.stops.values()) == 60


class TestDihedralScan:
    @pytest.mark.parametrize(
        ("name", "bonds"),
        [
            ("CH3CH2OH", {"CC", "CO"}),
            ("trans-butane", {"CC"}),
            ("butadiene", {"CC"}),
            ("H2O2", {"OO"}),
            ("C6H6", set()),
            ("cyclobutane", set()),
            ("C2H4", set()),
            ("HCN", set()),
            ("NH3", set()),
        ],
    )
    def test_single_bonds_outside_rings_can_be_turned(self, name: str, bonds: set[str]) -> None:
        atoms = molecule(name)
        found = rotatable_bonds(atoms.numbers, atoms.positions)
        assert {"".join(sorted(atoms.symbols[list(turn.axis)])) for turn in found} == bonds
        for turn in found:
            assert 2 <= len(turn.moving) <= len(atoms) / 2
            assert turn.axis[1] in turn.moving
            assert turn.axis[0] not in turn.moving
        if name == "butadiene":
            assert len(found) == 1

    def test_both_sides_stay_rigid_and_the_dihedral_turns_by_the_angle(self) -> None:
        atoms = molecule("CH3CH2OH")
        bonded = bond_graph(atoms.numbers, atoms.positions)
        for turn in rotatable_bonds(atoms.numbers, atoms.positions):
            moved = atoms.copy()
            moved.positions = turned(atoms.positions, turn, np.radians(70.0))
            still = np.setdiff1d(np.arange(len(atoms)), turn.moving)
            # The bond itself belongs to both sides: its length, and the angles at both its ends, stay.
            for side in (np.append(turn.moving, turn.axis[0]), np.append(still, turn.axis[1])):
                before, after = (a.get_all_distances()[np.ix_(side, side)] for a in (atoms, moved))
                assert np.abs(before - after).max() < 1e-12
            outer = next(k for k in np.flatnonzero(bonded[turn.axis[0]]) if k != turn.axis[1])
            inner = next(k for k in np.flatnonzero(bonded[turn.axis[1]]) if k != turn.axis[0])
            chain = (int(outer), *turn.axis, int(inner))
            assert (moved.get_dihedral(*chain) - atoms.get_dihedral(*chain)) % 360 == pytest.approx(70.0)

    def test_a_scan_goes_round_in_equal_steps_and_sides_stay_rigid(self) -> None:
        butane = molecule("trans-butane")
        one = toy_labels(Structures.build([butane.numbers], [butane.positions]))
        config = DihedralScanConfig(n_structures=48, step_degrees=30, max_bonds=1)
        wide = SanityConfig(
            min_distance_factor=0.1, max_energy_above_min_ev_per_atom=1e3, max_force_ev_per_angstrom=1e4
        )
        found = DihedralScanSampler(config, wide).sample(ToyPredictor(), one, seed=2, iteration=1)
        assert found.stops == {"completed": 48}
        trajectory = np.array(found.candidates.text("origin/trajectory"))
        assert sorted(Counter(trajectory.tolist()).values()) == [12] * 4
        bonded, x = bond_graph(butane.numbers, butane.positions), butane.positions
        near = bonded | ((bonded.astype(int) @ bonded) > 0)  # bonds, and the far ends of angles
        lengths = np.linalg.norm(x[:, None] - x[None], axis=2)
        for at in found.candidates.positions.reshape(48, -1, 3):
            now = np.linalg.norm(at[:, None] - at[None], axis=2)
            assert np.abs(now - lengths)[near].max() < 1e-10
        for scan in sorted(set(trajectory)):
            images = found.candidates[trajectory == scan].positions.reshape(12, -1, 3)
            chains = [c for c in _chains(bonded) if np.ptp([_dihedral(at, c) for at in images]) > 1]
            angles = np.sort([_dihedral(at, chains[0]) % 360 for at in images])
            assert np.diff(angles) == pytest.approx([30.0] * 11)

    def test_several_bonds_turn_together_and_each_takes_all_its_angles(self) -> None:
        config = DihedralScanConfig(max_bonds=2, step_degrees=60)
        butane = molecule("trans-butane")
        bonds = rotatable_bonds(butane.numbers, butane.positions)
        sampler, rng = DihedralScanSampler(config, LOOSE), np.random.default_rng(0)
        scans = [sampler._angles(bonds, 6, rng) for _ in range(40)]
        assert {len(scan) for scan in scans} == {1, 2}
        for scan in scans:
            assert len({turn.axis for turn, _ in scan}) == len(scan)
            for _, angles in scan:
                assert np.diff(np.sort(angles)) == pytest.approx([np.pi / 3] * 5)

    def test_molecules_without_such_bonds_are_passed_over_or_said_to_be_all_there_is(self) -> None:
        peroxide = molecule("H2O2")
        mixed = Structures.concatenate([rattled(6), Structures.build([peroxide.numbers], [peroxide.positions])])
        sampler = DihedralScanSampler(DihedralScanConfig(n_structures=6), LOOSE)
        with pytest.raises(DataError, match="nothing to turn"):
            sampler.sample(ToyPredictor(), toy_labels(rattled(6)), seed=1, iteration=1)
        with pytest.raises(DataError, match="None of 6 structures"):
            sampler.check_starts(rattled(6))
        sampler.check_starts(mixed)
        found = sampler.sample(ToyPredictor(), toy_labels(mixed), seed=1, iteration=1)
        assert found.walkers == 6
        assert set(found.candidates.text("origin/parent")) <= {mixed.ids[6]}


def _chains(bonded: Array) -> list[tuple[int, int, int, int]]:
    """Return all i-j-k-l along bonds."""
    pairs = np.argwhere(bonded).tolist()
    return [(i, j, k, m) for i, j in pairs for k, m in pairs if bonded[j, k] and len({i, j, k, m}) == 4]


def _dihedral(positions: Array, chain: tuple[int, int, int, int]) -> float:
    from ase.geometry import get_dihedrals

    a, b, c, d = positions[list(chain)]
    return float(get_dihedrals([b - a], [c - b], [d - c])[0])
