"""Neighbour lists against brute force; statistics against closed forms."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from dubito.core.errors import DataError
from dubito.data.graphs import build_graph, select
from dubito.data.neighbors import find_neighbors
from dubito.data.statistics import composition, fit_statistics
from dubito.data.structures import Structures
from dubito.testing.structures import crystal, rattled, toy_labels


def brute_force(structures: Structures, r_max: float) -> set[tuple[int, int, int, int, int]]:
    """All pairs with their vectors, rounded, through explicit images."""
    found = set()
    for i in range(len(structures)):
        start, stop = structures.ptr[i], structures.ptr[i + 1]
        images = [np.zeros(3)]
        if structures.pbc[i].any():
            images = [np.array(n) @ structures.cell[i] for n in itertools.product(range(-3, 4), repeat=3)]
        for a, b in itertools.product(range(start, stop), repeat=2):
            for shift in images:
                vector = structures.positions[b] + shift - structures.positions[a]
                if 1e-9 < np.linalg.norm(vector) < r_max:
                    found.add((a, b, *(round(float(x) * 1e6) for x in vector)))
    return found


@pytest.mark.parametrize("r_max", [1.5, 3.0, 5.0])
def test_pairs_equal_brute_force(r_max: float) -> None:
    structures = Structures.concatenate([rattled(3), crystal(2), rattled(2, seed=5)])
    pairs = find_neighbors(structures, r_max)
    ours = {
        (int(a), int(b), *(round(float(x) * 1e6) for x in v))
        for a, b, v in zip(pairs.center, pairs.neighbor, pairs.vectors, strict=True)
    }
    assert len(ours) == len(pairs.center)
    assert ours == brute_force(structures, r_max)
    for a, b, lo, hi in zip(structures.ptr, structures.ptr[1:], pairs.ptr, pairs.ptr[1:], strict=False):
        assert np.all((pairs.center[lo:hi] >= a) & (pairs.center[lo:hi] < b))
        assert np.all(np.diff(pairs.center[lo:hi]) >= 0)


def test_large_molecule_equals_dense() -> None:
    rng = np.random.default_rng(0)
    grid = np.array(list(itertools.product(range(6), repeat=3)), float) * 1.3
    positions = grid + rng.normal(scale=0.1, size=grid.shape)
    one = Structures.build([[6] * 216], [positions])
    pairs = find_neighbors(one, 2.0)
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    assert len(pairs.center) == int(((distance < 2.0) & (distance > 0)).sum())


def test_slab_periodic_in_two_directions() -> None:
    slab = replace(crystal(1), pbc=np.array([[True, True, False]]))
    pairs = find_neighbors(slab, 3.0)
    bulk = find_neighbors(crystal(1), 3.0)
    assert 0 < len(pairs.center) < len(bulk.center)


def test_periodic_without_cell_is_refused() -> None:
    with pytest.raises(DataError, match="no volume"):
        find_neighbors(replace(rattled(1), pbc=np.ones((1, 3), bool), cell=np.full((1, 3, 3), 1.0)), 3.0)


def test_selected_graph_equals_the_graph_of_the_selection() -> None:
    structures = Structures.concatenate([rattled(4), crystal(2)])
    whole = build_graph(structures, (1, 7, 8), 3.0, torch.float64)
    index = [4, 1, 0]
    chosen, atoms, pairs = select(whole, torch.tensor(index))
    direct = build_graph(structures[index], (1, 7, 8), 3.0, torch.float64)
    for name in ("species", "structure", "center", "neighbor", "volume", "atom_ptr", "pair_ptr"):
        assert torch.equal(getattr(chosen, name), getattr(direct, name)), name
    torch.testing.assert_close(chosen.vectors, direct.vectors)
    assert torch.equal(whole.species[atoms], chosen.species)
    assert len(pairs) == len(chosen.center)


def test_shifts_are_recovered_from_compositions() -> None:
    structures = rattled(10)
    exact = composition(structures, (1, 7, 8)) @ np.array([-13.5, -1480.0, -2041.0])
    labelled = structures.with_columns(
        labels__energy=exact, labels__forces=np.ones_like(structures.positions), labels__mask=True
    )
    # Two kinds of molecule fix totals, not the three shifts one by one.
    found = fit_statistics(labelled, 3.0)
    np.testing.assert_allclose(composition(structures, found.species) @ found.atomic_energies_ev, exact, atol=1e-8)
    assert found.force_scale_ev_per_angstrom == pytest.approx(1.0)


def test_mean_number_of_neighbors() -> None:
    ammonia = toy_labels(rattled(3, molecules="ammonia", displacement=0.01))
    assert fit_statistics(ammonia, 4.0).avg_num_neighbors == pytest.approx(3.0)


def test_unlabelled_or_zero_forces_are_refused() -> None:
    with pytest.raises(DataError, match="no label"):
        fit_statistics(rattled(2), 3.0)
    zero = toy_labels(rattled(2)).with_columns(labels__forces=np.zeros((7, 3)))
    with pytest.raises(DataError, match="zero"):
        fit_statistics(zero, 3.0)
