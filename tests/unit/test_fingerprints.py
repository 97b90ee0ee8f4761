"""Fingerprints: what must not change them, what must, and what they say by number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dubito.core.random import generator
from dubito.data.fingerprints import MAX_DISTANCES, fingerprints, rms_difference
from dubito.data.structures import Structures
from dubito.testing.structures import crystal, random_orthogonal, rattled, transformed


def permuted(structures: Structures, seed: int) -> Structures:
    """Shuffle the atoms of one structure."""
    order = generator(seed, "permute").permutation(len(structures.atomic_numbers))
    return replace(structures, positions=structures.positions[order], atomic_numbers=structures.atomic_numbers[order])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.integers(0, 1))
def test_motion_mirror_and_permutation_change_nothing(seed: int, proper: bool, kind: int) -> None:
    one = rattled(2, seed=seed, displacement=0.3)[kind]
    shift = generator(seed, "shift").normal(scale=20, size=3)
    moved = permuted(transformed(one, random_orthogonal(seed, proper=proper), shift), seed)
    assert rms_difference(one, moved)[0, 0] < 1e-6


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_the_same_holds_for_crystals(seed: int, proper: bool) -> None:
    one = crystal(1, seed=seed)
    moved = transformed(one, random_orthogonal(seed, proper=proper), generator(seed, "shift").normal(size=3))
    # The same crystal with atoms moved by lattice vectors, in another order.
    images = generator(seed, "images").integers(-2, 3, size=(8, 3))
    moved = permuted(replace(moved, positions=moved.positions + images @ moved.cell[0]), seed)
    assert rms_difference(one, moved)[0, 0] < 1e-6


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 0.5))
def test_a_stretched_bond_counts(seed: int, stretch: float) -> None:
    dimer = Structures.build([[7, 7]], [[[0, 0, 0], [0, 0, 1.1]]])
    longer = Structures.build([[7, 7]], [[[0, 0, 0], [0, 0, 1.1 + stretch]]])
    assert rms_difference(dimer, longer)[0, 0] == pytest.approx(stretch, abs=1e-7)


def test_symmetric_in_its_arguments_and_zero_with_itself() -> None:
    pool = rattled(12, seed=3)
    difference = rms_difference(pool, pool)
    np.testing.assert_allclose(difference, difference.T)
    assert np.diag(difference).max() < 1e-6
    same = np.isfinite(difference)
    # Ammonia and water alternate and are never compared.
    np.testing.assert_array_equal(same, np.equal.outer(np.arange(12) % 2, np.arange(12) % 2))


def test_charge_multiplicity_and_periodicity_make_another_structure() -> None:
    positions = [[0, 0, 0], [0, 0, 1.1]]
    base = Structures.build([[7, 8]], [positions])
    others = Structures.concatenate(
        [
            Structures.build([[7, 8]], [positions], charge=1),
            Structures.build([[7, 8]], [positions], multiplicity=2),
            Structures.build([[7, 8]], [positions], cell=9 * np.eye(3), pbc=True),
        ]
    )
    assert np.isinf(rms_difference(base, others)).all()


def test_strain_of_a_crystal_counts_even_with_one_atom() -> None:
    cells = [3.0 * np.eye(3), np.diag([3.0, 3.0, 3.1])]
    one = [Structures.build([[14]], [[[0, 0, 0]]], cell=cell, pbc=True) for cell in cells]
    # The thirteen shortest translations, by hand.
    steps = np.array([n for n in np.ndindex(3, 3, 3)]) - 1
    steps = steps[[tuple(n) > (0, 0, 0) for n in steps]]
    lengths = [np.sort(np.linalg.norm(steps @ cell, axis=1)) for cell in cells]
    expected = np.sqrt(np.mean((lengths[0] - lengths[1]) ** 2))
    assert rms_difference(one[0], one[1])[0, 0] == pytest.approx(expected, abs=1e-7)
    assert expected > 0.02


def test_another_choice_of_lattice_vectors_is_the_same_crystal() -> None:
    one = crystal(1, seed=5)
    skewed = np.array([[1, 0, 0], [2, 1, 0], [-1, 1, 1]]) @ one.cell[0]
    assert rms_difference(one, replace(one, cell=skewed[None]))[0, 0] < 1e-6


def test_slab_is_not_repeated_along_its_normal() -> None:
    def slab(height: float) -> Structures:
        return Structures.build(
            [[14, 14]], [[[0, 0, 0], [1, 1, 2]]], cell=np.diag([4.0, 4.0, height]), pbc=[True, True, False]
        )

    assert rms_difference(slab(10.0), slab(30.0))[0, 0] < 1e-7


def test_nearest_agrees_with_all_differences() -> None:
    pool, labelled = rattled(700, seed=1), rattled(31, seed=2)
    nearest = fingerprints(pool).nearest(fingerprints(labelled))
    np.testing.assert_allclose(nearest, rms_difference(pool, labelled).min(axis=1), atol=1e-9)
    assert np.isinf(fingerprints(pool).nearest(fingerprints(Structures.empty()))).all()


def test_a_part_is_like_the_part_alone() -> None:
    pool = rattled(20, seed=1)
    rows = np.array([7, 3, 3, 16, 2])
    part, alone, whole = fingerprints(pool).take(rows), fingerprints(pool[rows]), fingerprints(pool)
    for i in range(20):
        # The square root of a difference that cancels: its own distance is 0 but for rounding.
        np.testing.assert_allclose(part.to_one(whole, i), alone.to_one(whole, i), atol=1e-6)


def test_large_molecules_keep_the_shortest_distances() -> None:
    rng = generator(0, "large")
    positions = rng.uniform(0, 30, size=(120, 3))
    numbers = [6] * 80 + [1] * 40
    one = Structures.build([numbers], [positions])
    length = fingerprints(one).matrices[0].shape[1]
    assert MAX_DISTANCES - 3 <= length <= MAX_DISTANCES
    moved = transformed(one, random_orthogonal(0, proper=True))
    assert rms_difference(one, moved)[0, 0] < 1e-6


def test_single_atoms_are_all_the_same() -> None:
    atoms = Structures.build([[1], [1]], [[[0, 0, 0]], [[5, 5, 5]]])
    assert rms_difference(atoms, atoms).max() == 0.0


def test_what_is_taken_is_copied_when_it_is_looked_at() -> None:
    pool = rattled(11, seed=0)
    whole, rows = fingerprints(pool), np.array([9, 0, 4, 10, 2])
    taken = whole.take(rows)
    assert len(taken) == 5
    assert not taken.matrices._copies  # type: ignore[attr-defined]
    for k in range(5):
        np.testing.assert_allclose(taken.to_one(taken, k), whole.to_one(whole, int(rows[k]))[rows], atol=1e-6)
        assert taken.take(np.array([k])).to_one(whole, int(rows[k])) == pytest.approx(0.0, abs=1e-6)
    assert taken.matrices[0] is taken.matrices[0]
