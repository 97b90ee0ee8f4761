"""The control slice is a simple random draw of the pool, however many near-copies of each other the pool holds."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import synthetic_campaign as synthetic

from dubito.certificate.certify import Slice, certify
from dubito.certificate.pool import read_pool_scores
from dubito.config.sanity import SanityConfig
from dubito.config.selection import SelectionConfig
from dubito.core.errors import DataError
from dubito.core.files import read_json, write_json
from dubito.core.random import generator
from dubito.data.store import read_predictions, read_structures, write_structures
from dubito.data.structures import Array, Structures
from dubito.reporting.evaluated import Evaluated
from dubito.selection.batch import Batch, choose_batch
from dubito.selection.strata import pool_scores
from dubito.stages import select_batch
from dubito.stages._control_slice import as_drawn, slice_of
from dubito.testing.structures import random_orthogonal, rattled, toy_labels, transformed

LOOSE = SanityConfig(
    min_distance_factor=0.01, max_bond_factor=3.0, max_energy_above_min_ev_per_atom=50, max_force_ev_per_angstrom=500
)


def stuck(n_free: int, n_stuck: int, seed: int = 0) -> tuple[Structures, Array]:
    """Return free structures and turned near-copies of one more, and whether each is one of the latter."""
    both = rattled(n_free + 1, seed=seed, displacement=0.25, molecules="ammonia")
    rng, one = generator(seed, "stuck"), both[n_free : n_free + 1]
    copies = [
        transformed(
            replace(one, positions=one.positions + rng.normal(0, 0.002, one.positions.shape)),
            random_orthogonal(int(rng.integers(1 << 30)), proper=True),
        )
        for _ in range(n_stuck)
    ]
    pool = Structures.concatenate([both[:n_free], *copies])
    return pool, np.arange(len(pool)) >= n_free


def choose(pool: Structures, scores: Array, n_control: int, seed: int = 0) -> Batch:
    config = SelectionConfig(n_select=8, control_fraction=0.1, min_control_labels=n_control)
    known = Structures.empty()
    return choose_batch(pool, labelled=known, config=config, sanity=LOOSE, seed=seed, iteration=1, scores=scores)


def drawn(batch: Batch) -> tuple[list[int], list[int]]:
    """Return what the control slice drew, and where the label of each comes from."""
    control = [i for i, reason in zip(batch.chosen, batch.reasons, strict=True) if reason == "control"]
    return control + [copy.index for copy in batch.copies], control + [copy.of for copy in batch.copies]


def test_copies_of_a_drawn_structure_count_and_are_not_labelled() -> None:
    pool, is_stuck = stuck(30, 30)
    batch = choose(pool, np.ones(60), 20)
    rows, sources = drawn(batch)
    assert len(rows) == len(set(rows)) == 20
    assert len(batch.copies) == is_stuck[rows].sum() - 1 > 4
    assert is_stuck[batch.chosen].sum() == 1
    assert (is_stuck[rows] == is_stuck[sources]).all()
    reason_of = {entry.index: entry.reason for entry in batch.rejected}
    assert {reason_of[copy.index] for copy in batch.copies} == {"duplicate_in_batch"}
    assert sorted(batch.pool) == list(range(60))


def test_every_candidate_is_drawn_as_often_as_any_other() -> None:
    pool, _ = stuck(20, 20)
    counts = np.zeros(40)
    for seed in range(150):
        counts[drawn(choose(pool, np.ones(40), 10, seed))[0]] += 1
    # 37.5 expected each, drawn without replacement; chi-square with 39 degrees of freedom: 99.99 % below 79.
    assert np.sum((counts - 37.5) ** 2 / (37.5 * 0.75)) * 39 / 40 < 79


@pytest.mark.parametrize(("n_stuck", "holds"), [(100, 0.0), (9, 1.0)])
def test_the_risk_is_kept_whatever_share_of_the_pool_a_wrong_cluster_is(n_stuck: int, holds: float) -> None:
    """All copies are wrong and everything else is right; scores say nothing."""
    pool, wrong = stuck(100, n_stuck)
    shares, held, risk = [], [], 0.1
    for seed in range(60):
        scores = generator(seed, "scores").random(len(pool))
        batch = choose(pool, scores, 30, seed)
        rows, sources = drawn(batch)
        said = certify(
            Slice(scores[rows], np.where(wrong[sources], 1.0, 0.0), ("a",) * len(rows)),
            read_pool_scores(pool_scores(scores[batch.pool], ["a"] * len(batch.pool))),
            tolerance=0.5,
            risk=risk,
            min_accepted_fraction=0.8,
        )
        rest = np.setdiff1d(batch.pool, rows)
        accepted = rest[scores[rest] <= said["threshold"]] if said["threshold"] is not None else rest[:0]
        shares.append(wrong[accepted].mean() if len(accepted) else 0.0)
        held.append(said["holds"])
    assert np.mean(shares) <= risk
    assert np.mean(held) == 0.0 if holds == 0.0 else np.mean(held) > 0.2


def manifest_of(folder: Path, **changes: Any) -> dict[str, Any]:
    pool, _ = stuck(30, 30)
    samplers = np.array(["rattle", "langevin_300K"])[np.arange(60) % 2]
    pool = pool.with_columns(origin__sampler=samplers.astype("S16"))
    labels = toy_labels(pool)
    sigma = generator(0, "sigma").uniform(0.1, 0.5, size=(len(pool.positions), 3))
    said = {"energy": labels.energy, "forces": labels.forces, "forces_uncertainty": sigma}
    order = changes.pop("order", np.arange(60))
    rows = np.concatenate([np.arange(pool.ptr[i], pool.ptr[i + 1]) for i in order])
    said = {name: values[order if name == "energy" else rows] for name, values in said.items()}
    write_structures(folder / "c.h5", pool[order], predictions={"ensemble": said})
    select_batch.run(
        candidates=folder / "c.h5", dataset=None, selected=folder / "s.h5", manifest=folder / "m.json",
        rejected=folder / "r.csv", sanity=LOOSE, method="ensemble", structures_per_shard=5, remaining_labels=None,
        selection=SelectionConfig(n_select=8, min_control_labels=20), seed=3, iteration=1,
    )  # fmt: skip
    return {"bytes": (folder / "m.json").read_bytes(), "pool": pool}


def test_the_manifest_names_each_copy_and_its_source_whatever_the_order(tmp_path: Path) -> None:
    found = manifest_of(tmp_path)
    plan, pool = json.loads(found["bytes"]), found["pool"]
    stratum_of = dict(zip(pool.ids, pool.text("origin/sampler"), strict=True))
    control = {name for name, reason in zip(plan["ids"], plan["reasons"], strict=True) if reason == "control"}
    copies = plan["control_copies"]
    assert len(copies) + plan["n_control"] == 20
    assert len({copy["of"] for copy in copies}) == 1 < len(copies)
    for copy in copies:
        assert copy["of"] in control
        assert copy["id"] not in plan["ids"]
        assert copy["stratum"] == stratum_of[copy["id"]]
        assert copy["score"] in plan["pool_scores"][copy["stratum"]]["quantiles"]
    assert len({copy["stratum"] for copy in copies}) == 2
    assert sum(entry["n"] for entry in plan["pool_scores"].values()) == 60
    shuffled = manifest_of(tmp_path, order=generator(0, "order").permutation(60))
    assert shuffled["bytes"] == found["bytes"]


@pytest.fixture
def builder(tmp_path: Path) -> synthetic.Builder:
    return synthetic.build(tmp_path, iterations=4, n_new=4, n_control=8, n_failed=0, n_pool=300, vary=True)


def plant(builder: synthetic.Builder, k: int, rows: list[int]) -> dict[str, Any]:
    """Say that near-copies of some control structures were drawn too; return the manifest."""
    path = builder.where(k) / "selection.json"
    plan: dict[str, Any] = read_json(path)
    control = [name for name, reason in zip(plan["ids"], plan["reasons"], strict=True) if reason == "control"]
    plan["control_copies"] = [
        {"of": control[row], "id": f"copy{i}", "score": 0.05 + 0.01 * i, "stratum": "langevin"}
        for i, row in enumerate(rows)
    ]
    write_json(path, plan)
    return plan


def test_a_copy_has_the_error_of_its_source_and_its_own_score(builder: synthetic.Builder) -> None:
    plain = read_json(builder.where(3) / "metrics.json")
    worst = plain["errors"]["control"]["worst_force_errors"]
    row = int(np.argmax(worst))
    plan = plant(builder, 3, [row] * 12)
    builder.evaluate(3)
    found = read_json(builder.where(3) / "metrics.json")
    certificate = found["certificate"]
    assert (certificate["n_control"], certificate["n_control_labelled"]) == (20, 8)
    assert (plain["certificate"]["n_control"], plain["certificate"]["n_control_labelled"]) == (8, 8)
    tolerance = builder.config.selection.force_tolerance_ev_per_angstrom
    assert certificate["n_bad"] == sum(w > tolerance for w in worst) + 12 * (worst[row] > tolerance)
    assert certificate["slice"]["scores"][8:] == [copy["score"] for copy in plan["control_copies"]]
    assert sorted(found["errors"]["control"]["worst_force_errors"]) == pytest.approx(sorted(worst + [worst[row]] * 12))
    assert found["errors"]["control"]["n_structures"] == 20
    assert found["miss_rate"]["n_control"] == 20
    # New structures are each there once.
    assert found["errors"]["new"] == plain["errors"]["new"]


def test_slice_and_repeats_say_the_same() -> None:
    pool = toy_labels(rattled(3, molecules="ammonia"))
    manifest = {
        "iteration": 1, "ids": pool.ids, "reasons": ["control", "uncertainty", "control"], "scores": [0.1, 0.2, 0.3],
        "strata": ["a", "a", "b"],
        "control_copies": [{"of": pool.ids[0], "id": "x", "score": 0.4, "stratum": "b"},
                           {"of": pool.ids[2], "id": "y", "score": 0.5, "stratum": "a"}],
    }  # fmt: skip
    control = Evaluated(pool[:1], {"m": {"forces": pool[:1].forces + 1.0}})
    found = slice_of(control, manifest, "m")
    assert found.scores.tolist() == [0.1, 0.3, 0.4, 0.5]
    assert found.strata == ("a", "b", "b", "a")
    # The second could not be labelled, so its copy has no label either.
    np.testing.assert_allclose(found.errors, [np.sqrt(3), np.nan, np.sqrt(3), np.nan])
    assert as_drawn(control, manifest).structures.ids == [pool.ids[0]] * 2
    manifest["control_copies"][0]["of"] = "f" * 32
    with pytest.raises(DataError, match="no score for control structure ffffffff"):
        slice_of(control, manifest, "m")


def test_errors_are_those_of_all_members_where_the_batch_was_asked_again(builder: synthetic.Builder) -> None:
    """As after adaptive scoring: what stands beside the selection is partly the word of one member."""
    plain = read_json(builder.where(3) / "metrics.json")
    path = builder.where(3) / "selected.h5"
    structures, said = read_structures(path), read_predictions(path)
    write_structures(builder.batch(3), structures, predictions=said, attributes={"cost": {"n_atoms": 0}})
    first = {**said["ensemble"], "forces": said["ensemble"]["forces"] + 5.0, "forces_uncertainty": np.ones((48, 3))}
    write_structures(path, structures, predictions={"ensemble": first})
    builder.evaluate(3)
    found = read_json(builder.where(3) / "metrics.json")
    assert found["errors"] == plain["errors"]
    assert found["uncertainty"] == plain["uncertainty"]
    assert found["certificate"] == plain["certificate"]
    builder.batch(3).unlink()
    builder.evaluate(3)
    assert read_json(builder.where(3) / "metrics.json")["certificate"]["n_bad"] == 8


@pytest.mark.parametrize(
    ("methods", "adaptive", "iteration", "asked"),
    [(1, False, 2, False), (1, True, 2, True), (2, False, 2, True), (2, True, 2, True), (1, True, 0, False)],
)
def test_all_members_are_asked_about_the_batch_only_where_they_were_not(
    methods: int, adaptive: bool, iteration: int, asked: bool
) -> None:
    text = (Path(__file__).parents[2] / "workflow" / "rules" / "common.smk").read_text()
    (function,) = re.findall(r"^def judged_batch\(.*?(?=^def )", text, re.S | re.M)
    names: dict[str, Any] = {
        "METHODS": ["ensemble", "gmm"][:methods],
        "CONFIG": SimpleNamespace(scoring=SimpleNamespace(adaptive=adaptive)),
        "of_iteration": lambda wildcards, k, path: f"{k}/{path}",
    }
    exec(function, names)  # noqa: S102 - rules are no module; the text is ours
    found = names["judged_batch"](SimpleNamespace(iteration=f"{iteration:03d}"))
    assert found == (["2/predictions/batch.h5"] if asked else [])
