"""The gates before a reference calculation: one malformed candidate for each code, and what the codes rest on."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from dubito.config.sanity import SanityConfig
from dubito.config.selection import SelectionConfig
from dubito.core.random import generator
from dubito.data.bond_graphs import bond_graphs
from dubito.data.electrons import n_electrons, state_exists
from dubito.data.sanity import REASONS as SANITY_REASONS
from dubito.data.store import write_structures
from dubito.data.structures import Structures
from dubito.selection import reasons
from dubito.selection.batch import choose_batch
from dubito.selection.reasons import REASONS
from dubito.stages import select_batch
from dubito.testing.structures import random_orthogonal, rattled, toy_labels, transformed

SANITY = SanityConfig(bond_graph="as_labelled")


def from_ase(name: str, *, charge: int = 0, multiplicity: int = 1) -> Structures:
    atoms = molecule(name)
    return Structures.build([atoms.numbers], [atoms.positions], charge=charge, multiplicity=multiplicity)


def ammonia(seed: int = 0) -> Structures:
    return rattled(1, seed=seed, displacement=0.03, molecules="ammonia")


def known() -> Structures:
    """Return labelled structures: ammonia, and ethanol but not its isomer."""
    return toy_labels(Structures.concatenate([ammonia(1), ammonia(2), from_ase("CH3CH2OH")]))


def moved(structure: Structures, atom: int, position: list[float]) -> Structures:
    positions = structure.positions.copy()
    positions[atom] = position
    return replace(structure, positions=positions)


def one(structure: Structures, **predicted: float) -> tuple[Structures, dict[str, float]]:
    return structure, predicted


# Each is a candidate with its fault, and the code and number that it must get. `energy` is above the lowest label, eV.
FIXTURES: dict[str, tuple[Callable[[], tuple[Structures, dict[str, float]]], str, float | None]] = {
    "atoms overlap": (lambda: one(moved(ammonia(3), 1, [0.0, 0.0, 0.15])), "min_distance", None),
    "atoms coincide": (lambda: one(moved(a := ammonia(4), 1, a.positions[0].tolist())), "min_distance", 0.0),
    "an atom has left": (lambda: one(moved(ammonia(5), 3, [0.0, 0.0, 7.0])), "fragments", 2.0),
    "crystal too dense": (
        lambda: one(Structures.build([[14]], [[[0, 0, 0]]], cell=1.2 * np.eye(3), pbc=True)),
        "min_distance",
        1.2 / 2.22,
    ),
    "energy above the ceiling": (lambda: one(ammonia(6), energy=4.4), "energy", 1.1),
    "force above the ceiling": (lambda: one(ammonia(7), force=31.0), "force", 31.0),
    "energy is no number": (lambda: one(ammonia(8), energy=np.nan), "not_finite", None),
    "force is infinite": (lambda: one(ammonia(9), force=np.inf), "not_finite", None),
    "score is no number": (lambda: one(ammonia(10), score=np.nan), "not_finite", None),
    "cation called a singlet": (lambda: one(from_ase("NH3", charge=1)), "spin_parity", 9.0),
    "radical called a singlet": (lambda: one(from_ase("CH3")), "spin_parity", 9.0),
    "more spins than electrons": (lambda: one(from_ase("H2", multiplicity=5)), "spin_parity", 2.0),
    "isomer of what is labelled": (lambda: one(from_ase("CH3OCH3")), "bond_graph", 8.0),
    "as labelled already": (
        lambda: one(transformed(known()[0], random_orthogonal(1, proper=True))), "duplicate_labelled", None
    ),
    "the same candidate again": (lambda: one(ammonia(20)), "duplicate_in_pool", 0.0),
}  # fmt: skip


def assemble() -> tuple[Structures, dict[str, np.ndarray]]:
    """Return all malformed candidates and, last, a good one that one of them repeats; and what is predicted."""
    made = [make() for make, _, _ in FIXTURES.values()]
    good = ammonia(20)
    # Of equal candidates the first is kept: the good one.
    pool = Structures.concatenate([good, *[structure for structure, _ in made]])
    lowest = {4: known().energy[:2].min() / 4}
    energy = np.array([lowest.get(int(n), 0.0) * n for n in pool.n_atoms])
    forces, scores = np.zeros((len(pool.positions), 3)), np.linspace(0.2, 0.8, len(pool))
    for i, (_, predicted) in enumerate(made, start=1):
        energy[i] += predicted.get("energy", 0.0)
        forces[pool.ptr[i], 0] = predicted.get("force", 0.0)
        scores[i] = predicted.get("score", scores[i])
    return pool, {"energy": energy, "forces": forces, "scores": scores}


class TestFixtures:
    def test_each_is_rejected_with_its_code_and_number(self) -> None:
        pool, said = assemble()
        config = SelectionConfig(n_select=99, control_fraction=0)
        batch = choose_batch(pool, labelled=known(), config=config, sanity=SANITY, seed=0, iteration=1, **said)
        found = {r.index: r for r in batch.rejected}
        assert batch.chosen == [0]
        assert len(FIXTURES) >= 12
        for i, (name, (_, code, number)) in enumerate(FIXTURES.items(), start=1):
            assert (name, found[i].reason) == (name, code)
            if number is not None:
                assert found[i].value == pytest.approx(number, rel=0.01), name

    def test_the_stage_writes_code_and_number(self, tmp_path: Path) -> None:
        pool, said = assemble()
        candidates, dataset = tmp_path / "c.h5", tmp_path / "d.h5"
        sigma = np.repeat(said["scores"], pool.n_atoms)[:, None] * np.ones(3)
        predictions = {"energy": said["energy"], "forces": said["forces"], "forces_uncertainty": sigma}
        write_structures(candidates, pool, predictions={"ensemble": predictions})
        write_structures(dataset, known())
        select_batch.run(
            candidates=candidates, dataset=dataset, selected=tmp_path / "s.h5", manifest=tmp_path / "m.json",
            rejected=tmp_path / "r.csv", selection=SelectionConfig(n_select=9, control_fraction=0), sanity=SANITY,
            method="ensemble", structures_per_shard=8, remaining_labels=None, seed=0, iteration=1,
        )  # fmt: skip
        with (tmp_path / "r.csv").open() as handle:
            rows = list(csv.DictReader(handle))
        assert sorted(row["reason"] for row in rows) == sorted(code for _, code, _ in FIXTURES.values())
        assert {row["value"] for row in rows if row["reason"] == "spin_parity"} == {"9", "2"}
        assert all(row["value"] for row in rows if row["reason"] != "not_finite")

    def test_labellers_without_electrons_take_any_charge(self) -> None:
        pool = from_ase("CH3")
        options = {"labelled": Structures.empty(), "config": SelectionConfig(), "sanity": SanityConfig()}
        assert choose_batch(pool, seed=0, iteration=0, counts_electrons=False, **options).chosen == [0]
        assert choose_batch(pool, seed=0, iteration=0, **options).counts() == {"spin_parity": 1}
        options["sanity"] = SanityConfig(spin_parity=False)
        assert choose_batch(pool, seed=0, iteration=0, **options).chosen == [0]


def test_every_code_is_explained() -> None:
    codes = {value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str)}
    assert codes == set(REASONS)
    assert set(SANITY_REASONS) <= codes


class TestElectrons:
    @pytest.mark.parametrize(
        ("name", "charge", "multiplicity", "exists"),
        [
            ("O2", 0, 3, True),
            ("O2", 0, 2, False),
            ("O2", -1, 2, True),
            ("CH3", 0, 2, True),
            ("CH3", 1, 1, True),
            ("H2", 2, 1, True),
            ("H2", 3, 2, False),
        ],
    )
    def test_parity(self, name: str, charge: int, multiplicity: int, exists: bool) -> None:
        assert state_exists(from_ase(name, charge=charge, multiplicity=multiplicity)).tolist() == [exists]

    def test_counts(self) -> None:
        pool = Structures.concatenate([from_ase("H2O", charge=-1), from_ase("C6H6"), from_ase("CH3")])
        assert n_electrons(pool).tolist() == [11, 42, 9]

    def test_cells_are_left_alone(self) -> None:
        cell = Structures.build([[13]], [[[0, 0, 0]]], cell=2.8 * np.eye(3), pbc=True)
        assert state_exists(cell).tolist() == [True]


class TestBondGraphs:
    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10_000), st.sampled_from(["CH3CH2OH", "C6H6", "CH3COOH"]), st.booleans())
    def test_motion_and_order_of_atoms_change_nothing(self, seed: int, name: str, proper: bool) -> None:
        plain = from_ase(name)
        rng = generator(seed, "bonds")
        order = rng.permutation(len(plain.atomic_numbers))
        turned = transformed(plain, random_orthogonal(seed, proper=proper), rng.normal(size=3))
        shaken = turned.positions + rng.normal(scale=0.02, size=turned.positions.shape)
        other = replace(turned, positions=shaken[order], atomic_numbers=turned.atomic_numbers[order])
        assert bond_graphs(plain)[0] == bond_graphs(other)[0]

    def test_isomers_differ_and_bonds_are_counted(self) -> None:
        names = ["CH3CH2OH", "CH3OCH3", "isobutane", "trans-butane", "CH3COOH", "HCOOCH3"]
        pool = Structures.concatenate([from_ase(name) for name in names])
        graphs, n_bonds = bond_graphs(pool)
        assert len(set(graphs.tolist())) == len(names)
        assert n_bonds.tolist() == [8, 8, 13, 13, 7, 7]

    def test_a_proton_that_moves_is_another_graph(self) -> None:
        # H from O to the far carbon: the same formula, the same number of bonds.
        ethanol = from_ase("CH3CH2OH")
        carbons, (oxygen,) = np.flatnonzero(ethanol.atomic_numbers == 6), np.flatnonzero(ethanol.atomic_numbers == 8)
        far = carbons[np.argmax(np.linalg.norm(ethanol.positions[carbons] - ethanol.positions[oxygen], axis=1))]
        hydrogens = np.flatnonzero(ethanol.atomic_numbers == 1)
        proton = hydrogens[np.argmin(np.linalg.norm(ethanol.positions[hydrogens] - ethanol.positions[oxygen], axis=1))]
        away = ethanol.positions[far] - ethanol.positions.mean(axis=0)
        shifted = moved(ethanol, int(proton), (ethanol.positions[far] + 1.1 * away / np.linalg.norm(away)).tolist())
        assert bond_graphs(ethanol)[0] != bond_graphs(shifted)[0]

    def test_no_structures_and_lone_atoms(self) -> None:
        assert len(bond_graphs(Structures.empty())[0]) == 0
        graphs, n_bonds = bond_graphs(Structures.build([[1], [8], [1]], [[[0, 0, 0]]] * 3))
        assert n_bonds.tolist() == [0, 0, 0]
        assert graphs[0] == graphs[2] != graphs[1]

    def test_in_a_crystal_bonds_go_through_the_boundary(self) -> None:
        cell = Structures.build([[6, 6]], [[[0, 0, 0], [0, 0, 8.6]]], cell=10 * np.eye(3), pbc=True)
        assert bond_graphs(cell)[1].tolist() == [1]

    def test_a_formula_that_nobody_labelled_may_be_anything(self) -> None:
        options = {"config": SelectionConfig(), "sanity": SANITY, "seed": 0, "iteration": 0}
        pool = Structures.concatenate([from_ase("CH3OCH3"), from_ase("H2O")])
        assert sorted(choose_batch(pool, labelled=Structures.empty(), **options).chosen) == [0, 1]
        batch = choose_batch(pool, labelled=toy_labels(from_ase("CH3CH2OH")), **options)
        assert (batch.chosen, batch.counts()) == ([1], {"bond_graph": 1})
