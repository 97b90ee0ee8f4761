"""From pool to batch: gates, duplicates, control slice, budget, and files that don't vary."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubito.config.sanity import SanityConfig
from dubito.config.selection import KNOWN_SELECTORS, SelectionConfig
from dubito.core.errors import DataError
from dubito.core.random import generator
from dubito.data.fingerprints import rms_difference
from dubito.data.store import read_attributes, read_predictions, read_structures, write_structures
from dubito.data.structures import Array, Structures
from dubito.metrics.reduce import worst_atom
from dubito.selection.batch import Batch, choose_batch
from dubito.stages import select_batch
from dubito.testing.structures import random_orthogonal, rattled, toy_labels, transformed

LOOSE = SanityConfig(
    min_distance_factor=0.01, max_bond_factor=3.0, max_energy_above_min_ev_per_atom=50, max_force_ev_per_angstrom=500
)


def choose(pool: Structures, scores: Array | None, labelled: Structures | None = None, **changes: Any) -> Batch:
    keys = {"sanity", "seed", "iteration", "remaining", "energy", "forces", "features", "labelled_features"}
    keys |= {"accepted_up_to", "counts_electrons"}
    options = {"sanity": LOOSE, "seed": 0, "iteration": 1} | {k: changes.pop(k) for k in keys & set(changes)}
    return choose_batch(
        pool,
        labelled=Structures.empty() if labelled is None else labelled,
        scores=scores,
        config=SelectionConfig(**({"min_control_labels": 1} | changes)),
        **options,
    )


def ammonia(n: int, seed: int = 0) -> Structures:
    """Return structures that differ: the guard finds near-copies among many small displacements."""
    return rattled(n, seed=seed, displacement=0.25, molecules="ammonia")


def random_scores(pool: Structures, seed: int = 0) -> Array:
    return generator(seed, "test scores").uniform(0.1, 1.0, size=len(pool))


def with_copies(pool: Structures, share: float, seed: int = 0) -> tuple[Structures, list[int]]:
    """Replace a share of a pool by copies of others: exact, turned, mirrored, permuted or barely moved."""
    rng = generator(seed, "copies")
    n_copies = round(share * len(pool))
    order = rng.permutation(len(pool))
    originals = order[n_copies:]
    parts, origin = [pool[int(i)] for i in range(len(pool))], list(range(len(pool)))
    for k, i in enumerate(order[:n_copies]):
        source = int(rng.choice(originals))
        copy = pool[source]
        if k % 4 == 1:
            copy = transformed(copy, random_orthogonal(k, proper=True), rng.normal(size=3))
        elif k % 4 == 2:
            copy = transformed(copy, random_orthogonal(k, proper=False))
        elif k % 4 == 3:
            shaken = rng.normal(scale=0.002, size=copy.positions.shape)
            copy = Structures.build([copy.atomic_numbers], [copy.positions + shaken])
        parts[i], origin[i] = copy, source
    return Structures.concatenate(parts), origin


class TestDuplicates:
    @pytest.mark.parametrize("with_features", [False, True])
    @pytest.mark.parametrize("selector", KNOWN_SELECTORS)
    def test_planted_duplicates_are_never_selected(self, selector: str, with_features: bool) -> None:
        pool, origin = with_copies(ammonia(300, seed=7), 0.4)
        features = generator(0, "features").normal(size=(300, 5))[origin] if with_features else None
        # Copies of doubtful structures are just as doubtful, so that a selector without a guard takes them.
        scores = random_scores(pool)[origin]
        batch = choose(pool, scores, selector=selector, n_select=80, control_fraction=0.25, features=features)
        assert len(batch.chosen) == 100 - len(batch.copies)
        assert len({origin[i] for i in batch.chosen}) == len(batch.chosen)
        difference = rms_difference(pool[batch.chosen], pool[batch.chosen])
        np.fill_diagonal(difference, np.inf)
        assert difference.min() > 0.02

    def test_without_a_guard_they_would_be(self) -> None:
        pool, origin = with_copies(ammonia(300, seed=7), 0.4)
        batch = choose(pool, random_scores(pool)[origin], n_select=80, duplicate_distance_angstrom=0)
        assert len({origin[i] for i in batch.chosen}) < len(batch.chosen)

    def test_known_structures_are_not_labelled_twice(self) -> None:
        pool = ammonia(40, seed=1)
        labelled = toy_labels(transformed(pool[:10], random_orthogonal(1, proper=False)))
        batch = choose(pool, random_scores(pool), labelled, n_select=100)
        assert batch.counts()["duplicate_labelled"] == 10
        assert sorted(batch.chosen) == list(range(10, 40))

    def test_exact_copies_are_known_even_without_a_distance(self) -> None:
        pool = ammonia(20, seed=1)
        batch = choose(pool, random_scores(pool), toy_labels(pool[:5]), n_select=99, duplicate_distance_angstrom=0)
        assert batch.counts() == {"duplicate_labelled": 5}

    def test_the_same_candidate_twice_is_one(self) -> None:
        pool = ammonia(10, seed=1)
        batch = choose(Structures.concatenate([pool, pool]), np.ones(20), n_select=99)
        assert batch.counts() == {"duplicate_in_pool": 10}
        assert len(batch.chosen) == 10


class TestGates:
    def test_each_fault_is_rejected_with_its_reason(self) -> None:
        pool = rattled(8, seed=2, molecules="ammonia", displacement=0.02)
        positions = pool.positions.copy()
        positions[1], positions[5] = positions[0] + 0.1, positions[4] + [0, 0, 9]
        pool = Structures.build(pool.atomic_numbers.reshape(8, 4), positions.reshape(8, 4, 3))
        labelled = toy_labels(rattled(4, seed=3, molecules="ammonia", displacement=0.02))
        energy, forces, scores = np.full(8, labelled.energy.min()), np.zeros((32, 3)), np.ones(8)
        energy[2] += 4.5
        forces[13] = 99.0
        forces[17] = np.nan
        scores[5] = np.nan
        gates = {"sanity": SanityConfig(), "energy": energy, "forces": forces}
        batch = choose(pool, scores, labelled, n_select=9, duplicate_distance_angstrom=0, **gates)
        found = {r.index: r.reason for r in batch.rejected}
        assert found == {0: "min_distance", 1: "fragments", 2: "energy", 3: "force", 4: "not_finite", 5: "not_finite"}
        assert sorted(batch.chosen) == [6, 7]

    def test_top_share_is_skipped_but_not_for_control(self) -> None:
        pool = ammonia(100, seed=2)
        scores = random_scores(pool)
        plain = choose(pool, scores, n_select=10, control_fraction=0)
        assert set(plain.chosen) == set(np.argsort(-scores)[:10])
        skipped = choose(pool, scores, n_select=10, control_fraction=0, skip_top_fraction=0.1)
        assert set(skipped.chosen) == set(np.argsort(-scores)[10:20])
        assert skipped.counts() == {"skipped_top": 10}

    def test_scores_below_the_minimum_are_left_out(self) -> None:
        pool = ammonia(50, seed=2)
        scores = random_scores(pool)
        batch = choose(pool, scores, n_select=50, control_fraction=0, min_score=0.6)
        assert set(batch.chosen) == set(np.flatnonzero(scores >= 0.6))


class TestControl:
    def test_is_a_fair_sample_of_the_gated_pool(self) -> None:
        pool = ammonia(40, seed=5)
        scores = np.linspace(0.1, 1.0, 40)
        picked = np.zeros(40)
        for seed in range(300):
            batch = choose(pool, scores, n_select=10, control_fraction=0.4, seed=seed)
            control = [i for i, reason in zip(batch.chosen, batch.reasons, strict=True) if reason == "control"]
            assert len(control) == 4
            picked[control] += 1
        # 30 expected each; chi-square with 39 degrees of freedom: 99.99 % below 79.
        assert np.sum((picked - 30) ** 2 / 30) < 79

    def test_does_not_depend_on_scores_or_selector(self) -> None:
        pool = ammonia(60, seed=5)

        def control(**changes: Any) -> list[int]:
            batch = choose(pool, random_scores(pool, changes.pop("score_seed", 0)), n_select=20, **changes)
            return [i for i, reason in zip(batch.chosen, batch.reasons, strict=True) if reason == "control"]

        assert control() == control(score_seed=1) == control(selector="random") == control(skip_top_fraction=0.3)

    def test_there_is_at_least_one_unless_switched_off(self) -> None:
        pool = ammonia(30, seed=5)
        assert choose(pool, np.ones(30), n_select=3, control_fraction=0.01).reasons.count("control") == 1
        assert choose(pool, np.ones(30), n_select=3, control_fraction=0.0).reasons.count("control") == 0


class TestBudget:
    @pytest.mark.parametrize(
        ("remaining", "control", "selected"), [(0, 0, 0), (1, 1, 0), (6, 1, 5), (11, 2, 9), (99, 4, 20)]
    )
    def test_is_kept(self, remaining: int, control: int, selected: int) -> None:
        pool = ammonia(60, seed=5)
        batch = choose(pool, np.ones(60), n_select=20, control_fraction=0.2, remaining=remaining)
        assert (batch.reasons.count("control"), batch.reasons.count("uncertainty")) == (control, selected)

    def test_is_kept_by_the_initial_structures_too(self) -> None:
        pool = ammonia(20, seed=5)
        batch = choose(pool, None, iteration=0, remaining=7)
        assert batch.reasons == ["initial"] * 7
        assert batch.counts() == {"over_budget": 13}
        assert batch.chosen == sorted(batch.chosen)


def test_order_of_candidates_does_not_matter() -> None:
    pool, origin = with_copies(ammonia(80, seed=9), 0.3)
    scores = random_scores(pool)[origin]
    order = generator(0, "order").permutation(80)
    for selector in KNOWN_SELECTORS:
        first = choose(pool, scores, selector=selector, n_select=20)
        second = choose(pool[order], scores[order], selector=selector, n_select=20)
        assert [pool.ids[i] for i in first.chosen] == [pool[order].ids[i] for i in second.chosen]


def test_features_replace_fingerprints_for_diversity() -> None:
    pool = ammonia(40, seed=9)
    features = generator(0, "features").normal(size=(40, 2))
    # Of the doubtful half only two are far from the others.
    far = np.argsort(pool.ids)[[5, 11]]
    features[far] += [[1000.0], [-1000.0]]
    batch = choose(pool, np.ones(40), selector="farthest_point", n_select=3, control_fraction=0, features=features)
    assert set(batch.chosen[1:]) == set(far)


class TestStage:
    def files(self, folder: Path) -> dict[str, Path]:
        folder.mkdir(exist_ok=True)
        return {"selected": folder / "s.h5", "manifest": folder / "selection.json", "rejected": folder / "rejected.csv"}

    def run(
        self, folder: Path, candidates: Path, dataset: Path | None, iteration: int, **changes: Any
    ) -> dict[str, Any]:
        files = self.files(folder)
        options: dict[str, Any] = {
            "selection": SelectionConfig(n_select=10, control_fraction=0.2, min_control_labels=1),
            "sanity": LOOSE,
            "method": "ensemble",
            "structures_per_shard": 5,
            "remaining_labels": None,
            "seed": 3,
        }
        line = select_batch.run(
            candidates=candidates, dataset=dataset, iteration=iteration, **files, **(options | changes)
        )
        assert "\n" not in line
        found: dict[str, Any] = json.loads(files["manifest"].read_text())
        return found | {"line": line}

    def scored(self, path: Path, n: int = 60, **predictions: Array) -> Structures:
        pool, _ = with_copies(ammonia(n, seed=4), 0.4)
        pool = pool.with_columns(origin__sampler="langevin_300K", origin__iteration=1)
        known = toy_labels(pool)
        sigma = generator(0, "sigma").uniform(0.1, 0.5, size=(len(pool.positions), 3))
        said = {"energy": known.energy, "forces": known.forces, "forces_uncertainty": sigma} | predictions
        attributes = {"stops": {"completed": 3, "uncertainty": 1}, "steps": 400, "walkers": 4}
        write_structures(path, pool, predictions={"ensemble": said}, attributes=attributes)
        return pool

    def test_later_iteration(self, tmp_path: Path) -> None:
        pool = self.scored(tmp_path / "c.h5")
        write_structures(tmp_path / "d.h5", toy_labels(pool[:3]))
        plan = self.run(tmp_path / "a", tmp_path / "c.h5", tmp_path / "d.h5", 1)
        chosen = read_structures(tmp_path / "a" / "s.h5")
        assert chosen.ids == plan["ids"]
        assert chosen.text("origin/reason") == plan["reasons"]
        assert (plan["n_selected"], plan["n_control"], plan["n_shards"], plan["n_candidates"]) == (12, 2, 3, 60)
        assert plan["threshold"] == 0.3
        assert plan["line"].startswith("12 of 60 candidates selected, 2 of them control; ")
        said = read_predictions(tmp_path / "a" / "s.h5")["ensemble"]
        np.testing.assert_allclose(worst_atom(said["forces_uncertainty"], chosen.ptr), plan["scores"])
        np.testing.assert_allclose(said["energy"], toy_labels(chosen).energy)
        np.testing.assert_allclose(said["forces"], toy_labels(chosen).forces)
        assert read_attributes(tmp_path / "a" / "s.h5")["stops"] == {"completed": 3, "uncertainty": 1}
        rows = list(csv.DictReader((tmp_path / "a" / "rejected.csv").open()))
        counts = {reason: sum(row["reason"] == reason for row in rows) for reason in plan["rejected"]}
        assert counts == plan["rejected"]
        assert counts["duplicate_labelled"] >= 3
        assert {row["sampler"] for row in rows} == {"langevin_300K"}
        # Only an exact copy of a chosen one can have its id.
        assert {row["reason"] for row in rows if row["id"] in plan["ids"]} <= {"duplicate_in_pool"}

    @pytest.mark.parametrize("selector", KNOWN_SELECTORS)
    def test_same_seed_gives_the_same_bytes(self, tmp_path: Path, selector: str) -> None:
        self.scored(tmp_path / "c.h5")
        config = SelectionConfig(n_select=10, selector=selector, stratify_by_sampler=True, skip_top_fraction=0.1)
        for folder in ("a", "b"):
            self.run(tmp_path / folder, tmp_path / "c.h5", None, 1, selection=config)
        for name in ("selection.json", "rejected.csv"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        self.run(tmp_path / "b", tmp_path / "c.h5", None, 1, selection=config, seed=4)
        assert (tmp_path / "a" / "selection.json").read_bytes() != (tmp_path / "b" / "selection.json").read_bytes()

    def test_scores_without_unit_have_no_threshold(self, tmp_path: Path) -> None:
        pool, _ = with_copies(ammonia(20, seed=4), 0.0)
        write_structures(
            tmp_path / "c.h5",
            pool,
            predictions={"ensemble": {"forces_score": generator(0, "s").uniform(size=len(pool.positions))}},
        )
        assert self.run(tmp_path / "a", tmp_path / "c.h5", None, 1)["threshold"] is None

    def test_initial_structures(self, tmp_path: Path) -> None:
        pool = ammonia(9, seed=4)
        write_structures(tmp_path / "c.h5", pool)
        plan = self.run(tmp_path / "a", tmp_path / "c.h5", None, 0)
        assert plan["reasons"] == ["initial"] * 9
        assert plan["scores"] == [None] * 9
        assert plan["ids"] == pool.ids
        assert (plan["n_shards"], plan["n_control"], plan["threshold"]) == (2, 0, None)

    def test_no_sane_initial_structure(self, tmp_path: Path) -> None:
        overlapping = Structures.build([[7, 1]], [[[0, 0, 0], [0, 0, 0.1]]])
        write_structures(tmp_path / "c.h5", overlapping)
        with pytest.raises(DataError, match=r"None of the 1 initial structures.*min_distance 1"):
            self.run(tmp_path / "a", tmp_path / "c.h5", None, 0, sanity=SanityConfig())

    def test_empty_pool(self, tmp_path: Path) -> None:
        write_structures(tmp_path / "c.h5", Structures.empty(), attributes={"stops": {}, "steps": 0, "walkers": 4})
        plan = self.run(tmp_path / "a", tmp_path / "c.h5", None, 2)
        assert (plan["n_selected"], plan["n_shards"], plan["ids"]) == (0, 0, [])
        assert len(read_structures(tmp_path / "a" / "s.h5")) == 0

    def test_spent_budget(self, tmp_path: Path) -> None:
        self.scored(tmp_path / "c.h5")
        plan = self.run(tmp_path / "a", tmp_path / "c.h5", None, 1, remaining_labels=0)
        assert (plan["n_selected"], plan["n_shards"]) == (0, 0)
        assert "0 labels left in the budget" in plan["line"]

    def test_missing_predictions(self, tmp_path: Path) -> None:
        self.scored(tmp_path / "c.h5")
        with pytest.raises(DataError, match=r"lacks the predictions of 'gmm' \(it has: ensemble\)"):
            self.run(tmp_path / "a", tmp_path / "c.h5", None, 1, method="gmm")
