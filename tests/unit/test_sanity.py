"""The sane region: one planted fault for each reason, and the cost at each step of a sampler."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from ase.data import covalent_radii
from hypothesis import given, settings
from hypothesis import strategies as st

from dubito.config.sanity import SanityConfig
from dubito.data.sanity import ENERGY, FORCE, FRAGMENTS, MIN_DISTANCE, NOT_FINITE, SanityCheck
from dubito.data.structures import Structures
from dubito.testing.structures import crystal, random_orthogonal, rattled, toy_labels, transformed

CONFIG = SanityConfig()


def dimer(distance: float, n: int = 1) -> Structures:
    return Structures.build([[7, 1]] * n, [[[0, 0, 0], [0, 0, distance]]] * n)


def ammonia(n: int = 1) -> Structures:
    return rattled(n, displacement=0.01, molecules="ammonia")


def reasons(structures: Structures, config: SanityConfig = CONFIG, **values: np.ndarray) -> list[str]:
    return SanityCheck(config).check(structures, **values).reasons


class TestGeometry:
    def test_ordinary_molecules_are_sane(self) -> None:
        assert reasons(rattled(30, displacement=0.05)) == [""] * 30

    def test_no_structures(self) -> None:
        assert reasons(Structures.empty()) == []

    def test_a_lone_atom_is_sane(self) -> None:
        assert reasons(Structures.build([[1], [8]], [[[0, 0, 0]], [[1, 1, 1]]])) == ["", ""]

    @pytest.mark.parametrize(("factor", "reason"), [(0.59, MIN_DISTANCE), (0.61, ""), (1.59, ""), (1.61, FRAGMENTS)])
    def test_limits_are_where_the_configuration_puts_them(self, factor: float, reason: str) -> None:
        distance = factor * (covalent_radii[7] + covalent_radii[1])
        verdict = SanityCheck(CONFIG).check(dimer(distance))
        assert verdict.reasons == [reason]
        if reason == MIN_DISTANCE:
            assert verdict.values[0] == pytest.approx(factor)
        if reason == FRAGMENTS:
            assert verdict.values[0] == 2

    def test_atoms_at_the_same_place(self) -> None:
        assert reasons(dimer(0.0)) == [MIN_DISTANCE]

    def test_fragments_may_be_allowed(self) -> None:
        far = dimer(8.0)
        assert reasons(far) == [FRAGMENTS]
        assert reasons(far, SanityConfig(max_fragments=2)) == [""]

    def test_only_the_faulty_one_is_blamed(self) -> None:
        pool = Structures.concatenate([ammonia(3), dimer(9.0), rattled(4, displacement=0.02), dimer(0.1)])
        assert reasons(pool) == [""] * 3 + [FRAGMENTS] + [""] * 4 + [MIN_DISTANCE]

    def test_chunks_do_not_show(self) -> None:
        pool = Structures.concatenate([ammonia(255), dimer(9.0), ammonia(300), dimer(9.0)])
        found = reasons(pool)
        assert [i for i, reason in enumerate(found) if reason] == [255, 556]

    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 1000), st.floats(0.05, 1.0))
    def test_motion_does_not_change_the_verdict(self, seed: int, displacement: float) -> None:
        pool = rattled(8, seed=seed, displacement=displacement)
        moved = transformed(pool, random_orthogonal(seed, proper=seed % 2 == 0), np.array([3.0, -2.0, 9.0]))
        first, second = SanityCheck(CONFIG).check(pool), SanityCheck(CONFIG).check(moved)
        assert first.reasons == second.reasons
        np.testing.assert_allclose(first.values, second.values, atol=1e-9)

    def test_periodic_cells_count_bonds_through_the_boundary(self) -> None:
        # Two atoms 8.8 Å apart in the cell, 1.2 Å through its boundary.
        positions = [[[0, 0, 0], [0, 0, 8.8]]]
        assert reasons(Structures.build([[7, 7]], positions)) == [FRAGMENTS]
        assert reasons(Structures.build([[7, 7]], positions, cell=10 * np.eye(3), pbc=True)) == [""]

    def test_own_image_too_close(self) -> None:
        cell = np.diag([0.5, 9.0, 9.0])
        assert reasons(Structures.build([[7]], [[[0, 0, 0]]], cell=cell, pbc=True)) == [MIN_DISTANCE]

    def test_periodic_and_coincident_atoms_in_one_pool(self) -> None:
        cells = crystal(3, displacement=0.02)
        positions = cells.positions.copy()
        positions[8] = positions[9]
        pool = Structures.concatenate([replace(cells, positions=positions), ammonia(1), dimer(0.0), dimer(9.0)])
        assert reasons(pool, SanityConfig(max_bond_factor=2.5)) == ["", MIN_DISTANCE, "", "", MIN_DISTANCE, FRAGMENTS]


class TestPredictions:
    def test_energy_ceiling_is_above_the_lowest_label_of_the_same_formula(self) -> None:
        labelled = toy_labels(rattled(8, displacement=0.02))
        lowest = labelled.energy[::2].min()
        pool = ammonia(3)
        energy = lowest + 4 * np.array([0.5, 0.99, 1.01])
        verdict = SanityCheck(CONFIG, labelled).check(pool, energy=energy)
        assert verdict.reasons == ["", "", ENERGY]
        assert verdict.values[2] == pytest.approx(1.01)

    def test_unknown_formula_has_no_energy_ceiling(self) -> None:
        labelled = toy_labels(ammonia(4))
        assert SanityCheck(CONFIG, labelled).check(dimer(1.0), energy=np.array([1e6])).reasons == [""]

    def test_unlabelled_structures_set_no_ceiling(self) -> None:
        labelled = toy_labels(ammonia(2)).with_columns(labels__mask=[False, False])
        assert SanityCheck(CONFIG, labelled).check(ammonia(1), energy=np.array([1e6])).reasons == [""]

    def test_force_ceiling(self) -> None:
        forces = np.zeros((8, 3))
        forces[2], forces[6] = [20.0, 20.0, 0.0], [20.0, 20.0, 20.0]
        verdict = SanityCheck(CONFIG).check(ammonia(2), forces=forces)
        assert verdict.reasons == ["", FORCE]
        assert verdict.values[1] == pytest.approx(20 * np.sqrt(3))

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, bad: float) -> None:
        forces, energy = np.zeros((8, 3)), np.zeros(2)
        forces[5, 1] = bad
        assert reasons(ammonia(2), forces=forces) == ["", NOT_FINITE]
        energy[0] = bad
        assert reasons(ammonia(2), energy=energy) == [NOT_FINITE, ""]

    def test_geometry_is_blamed_before_predictions(self) -> None:
        assert reasons(dimer(9.0), energy=np.array([np.nan])) == [FRAGMENTS]


class TestBound:
    def test_positions_that_are_not_numbers(self) -> None:
        pool = ammonia(3)
        positions = pool.positions.copy()
        positions[5, 0], positions[9, 2] = np.nan, np.inf
        assert SanityCheck(CONFIG).bind(pool).geometry(positions).reasons == ["", NOT_FINITE, NOT_FINITE]
        cells = crystal(2, displacement=0.02)
        positions = cells.positions.copy()
        positions[[9, 10]] = np.nan
        config = SanityConfig(max_bond_factor=2.5)
        assert SanityCheck(config).bind(cells).geometry(positions).reasons == ["", NOT_FINITE]

    def test_remembers_no_stale_fragments(self) -> None:
        pool = ammonia(1)
        bound = SanityCheck(CONFIG).bind(pool)
        apart = pool.positions.copy()
        apart[1] += [0, 5, 0]
        for positions, reason in ((pool.positions, ""), (apart, FRAGMENTS), (pool.positions, "")):
            assert bound.geometry(positions).reasons == [reason]

    def test_is_cheap_enough_for_every_step(self) -> None:
        pool = toy_labels(ammonia(16))
        bound = SanityCheck(CONFIG, pool).bind(pool)
        moves = pool.positions + np.random.default_rng(0).normal(scale=0.05, size=(50, 64, 3))
        times = []
        for positions in moves:
            start = time.perf_counter()
            bound.geometry(positions)
            bound.values(pool.energy, pool.forces)
            times.append(time.perf_counter() - start)
        # About 0.1 ms on one core; the bound is loose since test machines are shared.
        assert np.median(times) < 2e-3
