"""The network's physics: symmetry, exact derivatives, extensivity, smoothness; both precisions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dubito.config.model import ModelConfig
from dubito.core.errors import DataError, ModelError
from dubito.data.graphs import build_graph
from dubito.data.statistics import Statistics
from dubito.data.structures import Structures
from dubito.model.potential import Potential
from dubito.testing.structures import AMMONIA, crystal, random_orthogonal, rattled, transformed

# Relative to values of order one.
TOLERANCE = {"float32": 2e-4, "float64": 1e-9}
ARCHITECTURES = [(0, False), (1, False), (1, True), (2, False), (2, True), (3, False)]
STATISTICS = Statistics((1, 7, 8), np.array([-13.6, -1480.0, -2040.0]), np.array([0.7, 1.3, 1.5]), 1.0, 6.0)


def make(l_max: int = 1, parity: bool = False, dtype: str = "float64", **options: object) -> Potential:
    settings_ = {"n_features": 8, "n_layers": 2, "r_max_angstrom": 3.5, **options}
    config = ModelConfig(l_max=l_max, parity=parity, dtype=dtype, **settings_)  # type: ignore[arg-type]
    potential = Potential(config, STATISTICS, 2)
    potential.initialise(0, [0, 1])
    return potential


def both(seed: int = 0) -> Structures:
    """Two molecules and a crystal."""
    return Structures.concatenate([rattled(2, seed=seed), crystal(1, seed=seed)])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("l_max", "parity"), ARCHITECTURES)
@pytest.mark.parametrize("proper", [True, False])
def test_rotation_reflection_translation(l_max: int, parity: bool, dtype: str, proper: bool) -> None:
    potential, structures = make(l_max, parity, dtype), both()
    matrix = random_orthogonal(3, proper=proper)
    a = potential.predict(structures)
    b = potential.predict(transformed(structures, matrix, np.array([1.0, -2.0, 0.5])))
    scale = np.abs(a.forces).max()
    assert scale > 0.1, "a network without forces would pass any test"
    np.testing.assert_allclose(b.energies, a.energies, atol=10 * TOLERANCE[dtype])
    np.testing.assert_allclose(b.forces, a.forces @ matrix.T, atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_permutation(dtype: str) -> None:
    potential, structures = make(2, dtype=dtype), crystal(1)
    order = np.random.default_rng(0).permutation(8)
    shuffled = replace(
        structures,
        positions=structures.positions[order],
        atomic_numbers=structures.atomic_numbers[order],
    )
    a, b = potential.predict(structures), potential.predict(shuffled)
    np.testing.assert_allclose(b.energy, a.energy, atol=10 * TOLERANCE[dtype])
    np.testing.assert_allclose(b.forces, a.forces[order], atol=TOLERANCE[dtype] * np.abs(a.forces).max())


@pytest.mark.parametrize(("l_max", "parity"), ARCHITECTURES)
def test_forces_are_the_gradient(l_max: int, parity: bool) -> None:
    potential, structures = make(l_max, parity), both(1)
    forces, h = potential.predict(structures).forces, 1e-4
    for atom in (0, 3, 5, 9, 14):
        for axis in range(3):
            energy = []
            for sign in (1, -1):
                moved = structures.positions.copy()
                moved[atom, axis] += sign * h
                energy.append(potential.predict(replace(structures, positions=moved)).energy.sum())
            assert -(energy[0] - energy[1]) / (2 * h) == pytest.approx(forces[atom, axis], abs=2e-5)


def test_forces_of_each_member_are_its_own_gradient() -> None:
    potential, structures = make(2), rattled(1, seed=3)

    def evaluate(positions: np.ndarray) -> torch.Tensor:
        graph = build_graph(replace(structures, positions=positions), potential.species, 3.5, torch.float64)
        return potential.evaluate(graph, forces=False).energy[:, 0]

    graph = build_graph(structures, potential.species, 3.5, torch.float64)
    forces = potential.evaluate(graph).forces
    moved = {s: structures.positions + s * 1e-4 * np.eye(3)[[0, 0, 0, 0]] * [[0], [1], [0], [0]] for s in (1, -1)}
    numeric = -(evaluate(moved[1]) - evaluate(moved[-1])) / 2e-4
    assert forces is not None
    torch.testing.assert_close(numeric, forces[:, 1, 0], atol=1e-6, rtol=1e-6)
    assert (forces[0] - forces[1]).abs().max() > 0.01


@pytest.mark.parametrize("l_max", [0, 1, 2])
def test_stress_is_the_strain_derivative(l_max: int) -> None:
    potential, structures = make(l_max), crystal(2, seed=2)
    stress, h = potential.predict(structures).stress, 1e-5
    assert stress is not None
    volume = np.abs(np.linalg.det(structures.cell))
    for voigt, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energy = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += sign * h / 2
            strain[j, i] += sign * h / 2
            energy.append(
                potential.predict(
                    replace(structures, positions=structures.positions @ strain, cell=structures.cell @ strain)
                ).energy
            )
        np.testing.assert_allclose((energy[0] - energy[1]) / (2 * h) / volume, stress[:, voigt], atol=1e-6)


def test_net_force_and_torque_vanish() -> None:
    structures = rattled(1, seed=4)
    forces = make(2).predict(structures).forces
    np.testing.assert_allclose(forces.sum(0), 0, atol=1e-12)
    np.testing.assert_allclose(np.cross(structures.positions, forces).sum(0), 0, atol=1e-10)


def test_extensive() -> None:
    potential, one, other = make(2), rattled(1, seed=5), rattled(2, seed=6)[1]
    far = np.concatenate([one.positions, other.positions + [50.0, 0, 0]])
    numbers = np.concatenate([one.atomic_numbers, other.atomic_numbers])
    joined = potential.predict(Structures.build([numbers], [far]))
    apart = potential.predict(Structures.concatenate([one, other]))
    assert joined.energy[0] == pytest.approx(apart.energy.sum(), abs=1e-9)
    np.testing.assert_allclose(joined.forces, apart.forces, atol=1e-9)


def test_supercell_has_the_energy_per_atom_of_the_cell() -> None:
    potential, cell = make(2), crystal(1, seed=7)
    shift = cell.cell[0, 0]
    double = Structures.build(
        [np.tile(cell.atomic_numbers, 2)],
        [np.concatenate([cell.positions, cell.positions + shift])],
        cell=(cell.cell[0] * np.array([2, 1, 1])[:, None])[None],
        pbc=True,
    )
    a, b = potential.predict(cell), potential.predict(double)
    assert b.energy[0] == pytest.approx(2 * a.energy[0], abs=1e-8)
    assert a.stress is not None
    np.testing.assert_allclose(b.stress, a.stress, atol=1e-9)


def test_wrapping_and_whole_cell_shifts_change_nothing() -> None:
    potential, cell = make(1), crystal(1, seed=8)
    rng = np.random.default_rng(1)
    moved = replace(cell, positions=cell.positions + rng.integers(-2, 3, size=(8, 3)) @ cell.cell[0])
    np.testing.assert_allclose(potential.predict(moved).forces, potential.predict(cell).forces, atol=1e-9)


def test_smooth_at_the_cutoff() -> None:
    potential = make(1)

    def at(distance: float) -> tuple[float, float]:
        given = potential.predict(Structures.build([[7, 1]], [[[0, 0, 0], [0, 0, distance]]]))
        return float(given.energy[0]), float(np.abs(given.forces).max())

    isolated = at(10.0)
    assert isolated[1] == 0.0
    for gap in (1e-2, 1e-3):
        energy, force = at(3.5 - gap)
        # The cutoff goes to zero with three derivatives.
        assert abs(energy - isolated[0]) < 200 * gap**3
        assert force < 600 * gap**2
    assert at(3.5 + 1e-9)[1] == 0.0


def test_batch_equals_singles() -> None:
    potential, structures = make(2), both(3)
    together = potential.predict(structures)
    alone = [potential.predict(one) for one in structures]
    np.testing.assert_allclose(together.energy, [p.energy[0] for p in alone], atol=1e-10)
    np.testing.assert_allclose(together.forces, np.concatenate([p.forces for p in alone]), atol=1e-10)


def test_chunks_change_nothing() -> None:
    from dubito.model.predict import predict

    potential, structures = make(1), rattled(7)
    whole, pieces = predict(potential, structures), predict(potential, structures, atoms_per_chunk=8)
    np.testing.assert_allclose(pieces.forces, whole.forces, atol=1e-12)
    np.testing.assert_allclose(pieces.energy_ensemble, whole.energy_ensemble, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_vectorised_members_equal_separate_ones(dtype: str) -> None:
    config = ModelConfig(n_features=8, n_layers=2, l_max=2, dtype=dtype)
    together = Potential(config, STATISTICS, 3)
    together.initialise(5, [0, 1, 2])
    structures = both(4)
    graph = build_graph(structures, STATISTICS.species, 4.0, together.dtype)
    ours = together.evaluate(graph)
    for member in range(3):
        alone = Potential(config, STATISTICS, 1)
        alone.initialise(5, [member])
        its = alone.evaluate(graph)
        assert ours.forces is not None and its.forces is not None
        scale = float(its.forces.abs().max())
        torch.testing.assert_close(ours.energies[member], its.energies[0], atol=TOLERANCE[dtype], rtol=0)
        torch.testing.assert_close(ours.forces[member], its.forces[0], atol=TOLERANCE[dtype] * scale, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("l_max", "parity"), ARCHITECTURES)
def test_dense_kernel_equals_e3nn(l_max: int, parity: bool, dtype: str) -> None:
    """Values, forces and gradients of a force loss."""
    structures, found = both(5), []
    for kernel in ("dense", "e3nn"):
        potential = make(l_max, parity, dtype, kernel=kernel)
        graph = build_graph(structures, STATISTICS.species, 3.5, potential.dtype)
        result = potential.evaluate(graph, create_graph=True)
        assert result.forces is not None
        loss = result.forces.square().mean() + result.energy.square().mean()
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(potential.parameters()))])
        found.append((result.energies.detach(), result.forces.detach(), gradient))
    for ours, reference in zip(*found, strict=True):
        torch.testing.assert_close(ours, reference, rtol=0, atol=TOLERANCE[dtype] * float(reference.abs().max()))


def test_training_gradient_is_exact() -> None:
    """The gradient of a force loss equals its finite difference: nothing is lost in the second derivative."""
    potential, structures = make(1), rattled(2, seed=9)
    graph = build_graph(structures, STATISTICS.species, 3.5, torch.float64)
    parameters = list(potential.parameters())

    def loss(create: bool) -> torch.Tensor:
        result = potential.evaluate(graph, create_graph=create)
        assert result.forces is not None
        return result.forces.square().mean()

    gradients = torch.autograd.grad(loss(True), parameters)
    random = torch.Generator().manual_seed(1)
    direction = [torch.randn(p.shape, generator=random, dtype=p.dtype) for p in parameters]
    h, values = 1e-5, []
    for sign in (1, -1):
        for p, d in zip(parameters, direction, strict=True):
            p.data.add_(d, alpha=sign * h)
        values.append(float(loss(False)))
        for p, d in zip(parameters, direction, strict=True):
            p.data.add_(d, alpha=-sign * h)
    expected = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
    assert (values[0] - values[1]) / (2 * h) == pytest.approx(expected, rel=1e-6)


def test_isolated_atom_has_no_force() -> None:
    given = make(2).predict(Structures.build([[8]], [[[1.0, 2.0, 3.0]]]))
    assert np.isfinite(given.energy[0])
    np.testing.assert_array_equal(given.forces, 0.0)


def test_no_structures_give_no_predictions() -> None:
    given = make().predict(Structures.empty())
    assert given.energy.shape == (0,) and given.forces.shape == (0, 3)


def test_unknown_element_is_named() -> None:
    with pytest.raises(ModelError, match=r"\[26\].*knows \[1, 7, 8\]"):
        make().predict(Structures.build([[26, 1]], [[[0, 0, 0], [0, 0, 1.5]]]))


def test_coincident_atoms_are_refused() -> None:
    with pytest.raises(DataError, match="same place"):
        make().predict(Structures.build([[7, 1]], [[[0, 0, 0], [0, 0, 0]]]))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 0.4))
def test_any_geometry_is_invariant(seed: int, displacement: float) -> None:
    potential = make(1, True)
    rng = np.random.default_rng(seed)
    structure = Structures.build([[7, 1, 1, 1]], [AMMONIA + rng.normal(scale=displacement, size=(4, 3))])
    matrix = random_orthogonal(seed, proper=seed % 2 == 0)
    a, b = potential.predict(structure), potential.predict(transformed(structure, matrix))
    assert b.energy[0] == pytest.approx(a.energy[0], abs=1e-8)
    np.testing.assert_allclose(b.uncertainty["forces"], a.uncertainty["forces"], atol=1e-8)
