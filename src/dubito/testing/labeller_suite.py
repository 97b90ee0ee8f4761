"""Conformance suite of labellers: subclass, say how to make one, run with pytest."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from dubito.core.errors import LabelError
from dubito.core.random import generator
from dubito.data.structures import MODEL, REFERENCE, Array, Structures
from dubito.labelling.base import Labeller, LabellingFailure
from dubito.testing.structures import random_orthogonal, transformed


class LabellerTests:
    """What every labeller must do.

    Attributes
    ----------
    computes : it labels any geometry; False: only those it knows (no derivatives, no symmetry to test)
    n_directions : random directions in which forces are compared with finite differences
    step_angstrom : of the central differences
    force_tolerance, energy_tolerance : eV/Å and eV; integration grids break rotational symmetry a little
    """

    computes: ClassVar[bool] = True
    n_directions: ClassVar[int] = 6
    step_angstrom: ClassVar[float] = 1e-5
    force_tolerance: ClassVar[float] = 1e-6
    energy_tolerance: ClassVar[float] = 1e-9

    def make(self) -> Labeller:
        """Return the labeller under test."""
        raise NotImplementedError("say how to make the labeller")

    def changed(self) -> list[Labeller]:
        """Return labellers that each differ from it in one setting that changes labels."""
        raise NotImplementedError("say which settings change labels")

    def unchanged(self) -> list[Labeller]:
        """Return labellers that differ from it only in what changes no label (threads, paths)."""
        return [self.make()]

    def good(self) -> Structures:
        """Return structures it can label, away from equilibrium; the first is used for costly tests."""
        raise NotImplementedError("name structures that can be labelled")

    def bad(self) -> list[tuple[Structures, str]]:
        """Return structures it must refuse, each with a pattern of the message."""
        raise NotImplementedError("name structures that can't be labelled")

    @pytest.fixture
    def labeller(self) -> Labeller:
        """The labeller under test."""
        return self.make()

    @pytest.fixture
    def one(self) -> Structures:
        """One structure it can label."""
        return self.good()[0]

    def test_label_is_complete(self, labeller: Labeller) -> None:
        structures = self.good()
        labeller.check(structures)
        for one in structures:
            label = labeller.label(one)
            assert np.isfinite(label.energy)
            assert label.forces.shape == one.positions.shape
            assert label.forces.dtype == np.float64
            assert np.all(np.isfinite(label.forces))
            assert label.attempts >= 1
            assert label.kind in (REFERENCE, MODEL)
            assert label.method
            assert label.code_version

    def test_is_deterministic(self, labeller: Labeller, one: Structures) -> None:
        first, again = labeller.label(one), self.make().label(one)
        assert abs(first.energy - again.energy) < 1e-7
        np.testing.assert_allclose(first.forces, again.forces, atol=1e-6)

    def test_leaves_the_structure_alone(self, labeller: Labeller, one: Structures) -> None:
        before = one.positions.copy()
        labeller.label(one)
        np.testing.assert_array_equal(one.positions, before)

    def test_forces_are_minus_the_gradient(self, labeller: Labeller, one: Structures) -> None:
        if not self.computes:
            pytest.skip("looks labels up")
        rng, forces = generator(0, "directions"), labeller.label(one).forces
        for _ in range(self.n_directions):
            direction = rng.normal(size=one.positions.shape)
            direction /= np.linalg.norm(direction)
            ends = [self._energy(labeller, one, sign * self.step_angstrom * direction) for sign in (1, -1)]
            slope = (ends[0] - ends[1]) / (2 * self.step_angstrom)
            assert abs(slope + np.sum(forces * direction)) < self.force_tolerance

    @staticmethod
    def _energy(labeller: Labeller, one: Structures, displacement: Array) -> float:
        return labeller.label(replace(one, positions=one.positions + displacement)).energy

    def test_forces_sum_to_zero(self, labeller: Labeller, one: Structures) -> None:
        if not self.computes:
            pytest.skip("looks labels up")
        np.testing.assert_allclose(labeller.label(one).forces.sum(axis=0), 0, atol=1e-8)

    @pytest.mark.parametrize("proper", [True, False])
    def test_energy_is_invariant_and_forces_turn(self, labeller: Labeller, one: Structures, proper: bool) -> None:
        if not self.computes:
            pytest.skip("looks labels up")
        matrix, shift = random_orthogonal(3, proper=proper), np.array([1.3, -0.7, 2.1])
        label, moved = labeller.label(one), labeller.label(transformed(one, matrix, shift))
        assert abs(label.energy - moved.energy) < self.energy_tolerance
        np.testing.assert_allclose(moved.forces, label.forces @ matrix.T, atol=self.force_tolerance)

    def test_order_of_atoms_does_not_matter(self, labeller: Labeller, one: Structures) -> None:
        if not self.computes:
            pytest.skip("looks labels up")
        order = generator(1, "order").permutation(len(one.atomic_numbers))
        shuffled = replace(one, atomic_numbers=one.atomic_numbers[order], positions=one.positions[order])
        label, other = labeller.label(one), labeller.label(shuffled)
        assert abs(label.energy - other.energy) < self.energy_tolerance
        np.testing.assert_allclose(other.forces, label.forces[order], atol=self.force_tolerance)

    def test_settings_hash_follows_the_settings(self, labeller: Labeller) -> None:
        hashes = [labeller.settings_hash, *(other.settings_hash for other in self.changed())]
        assert len(set(hashes)) == len(hashes)
        assert {other.settings_hash for other in self.unchanged()} == {labeller.settings_hash}

    def test_unfit_structures_are_refused_with_a_reason(self, labeller: Labeller) -> None:
        for structure, pattern in self.bad():
            with pytest.raises((LabelError, LabellingFailure), match=pattern):
                self._checked(labeller, structure)

    @staticmethod
    def _checked(labeller: Labeller, structure: Structures) -> None:
        labeller.check(structure)
        labeller.label(structure)
