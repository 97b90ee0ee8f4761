"""The acceptance window, strata, shares of a budget, and what a batch says of its pool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dubito.certificate.audit import audit
from dubito.certificate.certify import Slice, certify
from dubito.certificate.pool import StratumScores
from dubito.config import parse_config
from dubito.config.sanity import SanityConfig
from dubito.config.selection import KNOWN_SELECTORS, SelectionConfig
from dubito.core.files import write_json
from dubito.core.random import generator
from dubito.data.fingerprints import rms_difference
from dubito.data.store import write_structures
from dubito.data.structures import Array, Structures
from dubito.selection.batch import Batch, choose_batch
from dubito.selection.quota import quota
from dubito.selection.strata import pool_scores, shares
from dubito.stages import select_batch
from dubito.stages._accepted import accepted_up_to, scoring_mode
from dubito.testing.structures import random_orthogonal, rattled, toy_labels, transformed
from dubito.workflow.recorded import section_settings

LOOSE = SanityConfig(
    min_distance_factor=0.01, max_bond_factor=3.0, max_energy_above_min_ev_per_atom=50, max_force_ev_per_angstrom=500
)


def ammonia(n: int, seed: int = 0) -> Structures:
    return rattled(n, seed=seed, displacement=0.25, molecules="ammonia")


def choose(pool: Structures, scores: Array, labelled: Structures | None = None, **changes: Any) -> Batch:
    keys = {"features", "labelled_features", "accepted_up_to", "remaining", "seed"}
    options = {"seed": 0} | {key: changes.pop(key) for key in keys & set(changes)}
    config = SelectionConfig(**({"min_control_labels": 1, "control_fraction": 0.0} | changes))
    known = Structures.empty() if labelled is None else labelled
    return choose_batch(pool, labelled=known, config=config, sanity=LOOSE, iteration=1, scores=scores, **options)


class TestWindow:
    SCORES = np.linspace(0.01, 1.0, 100)

    def test_both_ends_are_cut_with_their_reasons(self) -> None:
        batch = choose(ammonia(100), self.SCORES, n_select=99, skip_top_fraction=0.05, max_score=0.901, min_score=0.105)
        assert batch.counts() == {"above_max_score": 5, "below_min_score": 10, "skipped_top": 5}
        assert sorted(batch.chosen) == list(range(10, 90))

    def test_what_the_certificate_accepts_is_skipped_where_asked(self) -> None:
        limits = np.where(np.arange(100) % 2 == 0, 0.505, np.nan)
        options = {"accepted_up_to": limits, "n_select": 99}
        batch = choose(ammonia(100), self.SCORES, skip_accepted=True, **options)
        assert batch.counts() == {"accepted": 25}
        assert sorted(batch.chosen) == [i for i in range(100) if i % 2 or i >= 50]
        assert choose(ammonia(100), self.SCORES, **options).counts() == {}

    def test_threshold_window_is_random_between_certificate_and_top(self) -> None:
        limits = np.full(100, 0.405)
        options: dict[str, Any] = {"selector": "threshold_window", "skip_top_fraction": 0.2, "n_select": 10}
        picked = [choose(ammonia(100), self.SCORES, accepted_up_to=limits, seed=s, **options).chosen for s in range(40)]
        assert set(np.concatenate(picked)) <= set(range(40, 80))
        # 400 draws of 40: each is missed by all with a chance of 0.75^40.
        assert set(np.concatenate(picked)) == set(range(40, 80))
        # A number of one's own stands instead of the certificate's.
        own = choose(ammonia(100), self.SCORES, accepted_up_to=limits, min_score=0.7, **options)
        assert min(own.chosen) >= 69

    def test_control_is_drawn_from_the_whole_pool(self) -> None:
        batch = choose(ammonia(100), self.SCORES, n_select=4, control_fraction=0.5, min_control_labels=40,
                       skip_top_fraction=0.5, min_score=0.4)  # fmt: skip
        control = [i for i, reason in zip(batch.chosen, batch.reasons, strict=True) if reason == "control"]
        assert len(control) == 40
        assert min(control) < 40
        assert max(control) > 60
        assert sorted(batch.pool) == list(range(100))


class TestAccepted:
    STRATA = ("a", "b", "a", "c")
    SAID: ClassVar[dict[str, Any]] = {
        "method": "ensemble", "threshold": 0.2, "drift": None,
        "strata": [{"name": "a + b", "members": ["a", "b"], "threshold": 0.2}],
    }  # fmt: skip

    def read(self, folder: Path, certificate: Any, *settings: str) -> list[float | None] | str | None:
        write_json(folder / "metrics.json", {"certificate": certificate})
        found = accepted_up_to(folder / "metrics.json", list(self.STRATA), *(settings or ("ensemble",)))
        return found.ignored if found.limits is None else [None if np.isnan(x) else x for x in found.limits.tolist()]

    def test_a_group_is_accepted_by_its_members_and_a_new_sampler_is_not(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, self.SAID) == [0.2, 0.2, 0.2, None]
        strata = [
            {"name": "a", "members": ["a"], "threshold": 0.1},
            {"name": "b + c", "members": ["b", "c"], "threshold": 0.3},
            {"name": "d", "members": ["d"], "threshold": None},
        ]
        assert self.read(tmp_path, self.SAID | {"threshold": None, "strata": strata}) == [0.1, 0.3, 0.1, 0.3]
        strata[1]["threshold"] = None
        assert self.read(tmp_path, self.SAID | {"threshold": 0.1, "strata": strata}) == [0.1, None, 0.1, None]

    def test_what_certify_writes_is_read_as_its_audit_reads_it(self, tmp_path: Path) -> None:
        strata = np.repeat(["300K", "600K", "rattle", "scan"], [100, 60, 20, 20])
        scores = generator(0, "accepted").random(200) * np.where(strata == "300K", 1, 2)
        pool = {str(name): StratumScores.of(scores[strata == name].repeat(9)) for name in np.unique(strata)}
        control = Slice(scores, np.zeros(200), tuple(strata.tolist()))
        said = certify(control, pool, tolerance=0.3, risk=0.05, min_accepted_fraction=0.9)
        assert [group["members"] for group in said["strata"]] == [["300K"], ["600K"], ["rattle", "scan"]]
        assert said["threshold"] is None
        write_json(tmp_path / "metrics.json", {"certificate": said | {"method": "ensemble", "drift": None}})
        names = ["300K", "600K", "rattle", "scan", "new"]
        limits = accepted_up_to(tmp_path / "metrics.json", names, "ensemble").limits
        assert limits is not None
        assert np.isfinite(limits).tolist() == [True] * 4 + [False]
        of_name = dict(zip(names, limits, strict=True))
        judged = audit(said, 1, control, 0.3)
        assert judged is not None
        assert judged["n_accepted"] == sum(s <= of_name[n] for s, n in zip(scores, strata, strict=True))

    def test_nothing_is_accepted_by_another_method_after_drift_or_without_certificate(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, None) is None
        assert "it is about scores of 'ensemble', these are of 'llpr'" in str(self.read(tmp_path, self.SAID, "llpr"))
        assert "had drifted" in str(self.read(tmp_path, self.SAID | {"drift": {"drifted": True}}))
        assert self.read(tmp_path, self.SAID | {"drift": {"drifted": False}}) == [0.2, 0.2, 0.2, None]

    def test_nor_where_the_scale_of_scores_has_changed(self, tmp_path: Path) -> None:
        before, now = self.SAID | {"scoring_mode": "adaptive"}, ("ensemble", "adaptive")
        assert self.read(tmp_path, before, *now) == [0.2, 0.2, 0.2, None]
        assert "about scores of adaptive scoring, these are full scores" in str(self.read(tmp_path, before))
        for full in (self.SAID, self.SAID | {"scoring_mode": "full"}):
            assert "about full scores, these are scores of adaptive" in str(self.read(tmp_path, full, *now))

    def test_adaptive_scoring_that_gave_up_gives_full_scores(self) -> None:
        assert scoring_mode(None) == scoring_mode({"n": 400, "n_escalated": 400, "cutoff": None}) == "full"
        assert scoring_mode({"n": 4000, "n_escalated": 400, "cutoff": 0.1}) == "adaptive"


class TestShares:
    @settings(max_examples=200, deadline=None)
    @given(st.dictionaries(st.text("abc", min_size=1), st.integers(0, 30), max_size=6), st.integers(0, 60))
    def test_fill_what_can_be_filled_as_equally_as_sizes_allow(self, sizes: dict[str, int], n: int) -> None:
        found = shares(sizes, n)
        assert sum(found.values()) == min(n, sum(sizes.values()))
        assert all(0 <= found[name] <= sizes[name] for name in sizes)
        full = [found[name] for name in sizes if found[name] < sizes[name]]
        # Whoever is not full has as much as anybody, but for one.
        assert not full or min(full) >= max(found.values(), default=0) - 1

    def test_names_decide_where_sizes_do_not(self) -> None:
        assert shares({"b": 9, "a": 9, "c": 9}, 4) == {"a": 2, "b": 1, "c": 1}

    def test_each_sampler_gets_its_share_of_a_batch(self) -> None:
        names = ["hot"] * 60 + ["cold"] * 37 + ["rare"] * 3
        pool = ammonia(100).with_columns(origin__sampler=names)
        # The hot ones are all more doubtful than the cold.
        scores = np.array([{"hot": 2.0, "cold": 1.0, "rare": 0.0}[name] for name in names])
        scores = scores + np.linspace(0, 0.5, 100)
        for selector in KNOWN_SELECTORS:
            batch = choose(pool, scores, selector=selector, n_select=20, stratify_by_sampler=True)
            found = [names[i] for i in batch.chosen]
            assert [found.count(name) for name in ("rare", "hot", "cold")] == [3, 9, 8]
        plain = choose(pool, scores, n_select=20)
        assert {names[i] for i in plain.chosen} == {"hot"}

    def test_duplicates_of_one_sampler_leave_their_places_to_others(self) -> None:
        pool = Structures.concatenate([ammonia(30, seed=1), *[ammonia(1, seed=2)] * 10])
        turned = [transformed(pool[30], random_orthogonal(k, proper=True)) for k in range(10)]
        pool = Structures.concatenate([pool[:30], *turned]).with_columns(origin__sampler=["a"] * 30 + ["b"] * 10)
        batch = choose(pool, np.ones(40), n_select=20, stratify_by_sampler=True)
        assert len(batch.chosen) == 20
        assert sum(i >= 30 for i in batch.chosen) == 1


class TestQuota:
    def test_control_takes_half_of_the_pool_at_most(self) -> None:
        config = SelectionConfig(n_select=16)
        assert quota(config, 1000, None) == (20, 16)
        assert quota(config, 30, None) == (15, 16)
        assert quota(config, 1, None) == (0, 16)
        assert quota(SelectionConfig(n_select=400), 1000, None) == (40, 400)
        assert quota(SelectionConfig(control_fraction=0), 1000, None) == (0, 16)

    @settings(max_examples=100, deadline=None)
    @given(st.integers(1, 50), st.integers(0, 40), st.integers(0, 200), st.integers(0, 120))
    def test_a_budget_is_kept_and_shared(self, n_select: int, least: int, n_open: int, remaining: int) -> None:
        config = SelectionConfig(n_select=n_select, min_control_labels=least)
        wanted = quota(config, n_open, None)
        control, selected = quota(config, n_open, remaining)
        assert control + selected == min(remaining, sum(wanted))
        if sum(wanted) <= remaining:
            assert (control, selected) == wanted
        elif remaining >= 2 and wanted[0]:
            assert min(control, selected) >= 1
            # In proportion: within one of the exact share.
            assert abs(control - remaining * wanted[0] / sum(wanted)) <= 1


class TestPoolScores:
    def test_small_pools_say_all(self) -> None:
        said = pool_scores(np.array([3.0, 1.0, 2.0, 9.0]), ["b", "a", "b", "b"])
        assert said == {"a": {"n": 1, "quantiles": [1.0]}, "b": {"n": 3, "quantiles": [2.0, 3.0, 9.0]}}

    def test_large_ones_say_their_order_statistics(self) -> None:
        scores = generator(0, "scores").permutation(np.arange(20_001.0))
        said = pool_scores(scores, [""] * len(scores))[""]
        assert said == {"n": 20_001, "quantiles": [20.0 * k for k in range(1001)]}
        assert len(pool_scores(scores[:1001], [""] * 1001)[""]["quantiles"]) == 1001


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(KNOWN_SELECTORS), st.booleans())
def test_of_forty_percent_copies_none_is_selected(seed: int, selector: str, with_features: bool) -> None:
    """Turned, mirrored, shifted, permuted and barely moved copies, also of labelled structures."""
    rng = generator(seed, "copies")
    originals = ammonia(70, seed=seed)
    labelled, fresh = toy_labels(originals[:10]), originals[10:]
    parts, origin = [fresh[i] for i in range(60)], list(range(10, 70))
    for k in range(40):
        source = int(rng.integers(0, 70))
        copy = transformed(originals[source], random_orthogonal(seed + k, proper=k % 3 != 0), rng.normal(size=3))
        order = np.concatenate([[0], 1 + rng.permutation(3)]) if k % 2 else np.arange(4)
        x = copy.positions[order] + (rng.normal(scale=0.001, size=(4, 3)) if k % 5 == 0 else 0.0)
        parts.append(Structures.build([copy.atomic_numbers[order]], [x]))
        origin.append(source)
    pool = Structures.concatenate(parts)
    scores = rng.uniform(size=70)[origin]
    features = rng.normal(size=(70, 6))
    extra = {"features": features[origin], "labelled_features": features[:10]} if with_features else {}
    batch = choose(pool, scores, labelled, selector=selector, n_select=100, control_fraction=0.2, **extra)
    sources = [origin[i] for i in batch.chosen]
    assert sorted(sources) == list(range(10, 70))
    everything = Structures.concatenate([labelled, pool[batch.chosen]])
    away = rms_difference(everything, everything)
    np.fill_diagonal(away, np.inf)
    # Of the originals, some may be near each other by chance; none is nearer than the guard allows.
    assert away[:, 10:].min() > 0.01


class TestStage:
    def pool(self, folder: Path, n: int = 80) -> Structures:
        pool = ammonia(n, seed=3)
        copies = [transformed(pool[i], random_orthogonal(i, proper=i % 2 == 0)) for i in range(20)]
        names = ["langevin_300K", "langevin_900K"] * (n // 2) + ["rattle"] * 20
        return Structures.concatenate([pool, *copies]).with_columns(origin__sampler=names, origin__iteration=1)

    def run(self, folder: Path, pool: Structures, order: Array, **changes: Any) -> bytes:
        folder.mkdir()
        known = toy_labels(pool)
        sigma = generator(0, "sigma").uniform(0.1, 0.5, size=(len(pool), 1, 1)) * np.ones((1, 4, 3))
        said = {
            "energy": known.energy[order],
            "forces": known.forces.reshape(-1, 4, 3)[order].reshape(-1, 3),
            "forces_uncertainty": sigma[order].reshape(-1, 3),
        }
        write_structures(folder / "c.h5", pool[order], predictions={"ensemble": said}, attributes={"steps": 4})
        write_structures(folder / "d.h5", toy_labels(rattled(6, seed=9, displacement=0.1, molecules="ammonia")))
        options: dict[str, Any] = {
            "n_select": 12, "control_fraction": 0.25, "min_control_labels": 8, "stratify_by_sampler": True,
            "skip_top_fraction": 0.05, "max_score": 0.9,
        } | changes  # fmt: skip
        files = {key: options.pop(key) for key in ("ensemble", "metrics") if key in options}
        select_batch.run(
            candidates=folder / "c.h5", dataset=folder / "d.h5", selected=folder / "s.h5",
            manifest=folder / "selection.json", rejected=folder / "r.csv", selection=SelectionConfig(**options),
            sanity=LOOSE, method="ensemble", structures_per_shard=5, remaining_labels=None, seed=3, iteration=1,
            **files,
        )  # fmt: skip
        return (folder / "selection.json").read_bytes()

    @pytest.mark.parametrize("selector", KNOWN_SELECTORS)
    def test_a_shuffled_pool_gives_the_same_bytes(self, tmp_path: Path, selector: str) -> None:
        pool = self.pool(tmp_path)
        plain = self.run(tmp_path / "a", pool, np.arange(len(pool)), selector=selector)
        shuffled = self.run(tmp_path / "b", pool, generator(1, "o").permutation(len(pool)), selector=selector)
        assert plain == shuffled

    def test_the_manifest_says_what_control_stands_for(self, tmp_path: Path) -> None:
        pool = self.pool(tmp_path)
        plan = json.loads(self.run(tmp_path / "a", pool, np.arange(len(pool))))
        of_id = dict(zip(pool.ids, pool.text("origin/sampler"), strict=True))
        assert plan["strata"] == [of_id[name] for name in plan["ids"]]
        scores = plan["pool_scores"]
        assert {name: entry["n"] for name, entry in scores.items()} == {
            "langevin_300K": 40, "langevin_900K": 40, "rattle": 20
        }  # fmt: skip
        for name, score, stratum, reason in zip(
            plan["ids"], plan["scores"], plan["strata"], plan["reasons"], strict=True
        ):
            assert score in scores[stratum]["quantiles"], name
            assert reason in ("control", "uncertainty")
        assert plan["n_control"] == 8
        assert plan["adaptive"] is None
        assert plan["window"]["accepted_up_to"] is None

    def test_heeds_the_certificate_of_the_iteration_before(self, tmp_path: Path) -> None:
        pool = self.pool(tmp_path)
        strata = [{"name": "all", "members": sorted(set(pool.text("origin/sampler"))), "threshold": 0.4}]
        certificate = {"method": "ensemble", "threshold": 0.4, "strata": strata, "drift": None}
        write_json(tmp_path / "metrics.json", {"certificate": certificate})
        plan = json.loads(
            self.run(tmp_path / "a", pool, np.arange(len(pool)), skip_accepted=True, metrics=tmp_path / "metrics.json")
        )
        selected = [s for s, reason in zip(plan["scores"], plan["reasons"], strict=True) if reason != "control"]
        assert min(selected) > 0.4
        assert plan["rejected"]["accepted"] > 10
        assert plan["window"]["accepted_up_to"] == [0.4]
        assert plan["window"]["certificate_ignored"] is None

    def test_but_not_where_scores_are_on_another_scale_and_says_so(self, tmp_path: Path) -> None:
        pool = self.pool(tmp_path)
        strata = [{"name": "all", "members": sorted(set(pool.text("origin/sampler"))), "threshold": 0.4}]
        certificate = {"method": "ensemble", "strata": strata, "drift": None, "scoring_mode": "adaptive"}
        write_json(tmp_path / "metrics.json", {"certificate": certificate})
        plan = json.loads(
            self.run(tmp_path / "a", pool, np.arange(len(pool)), skip_accepted=True, metrics=tmp_path / "metrics.json")
        )
        assert "accepted" not in plan["rejected"]
        assert plan["window"]["accepted_up_to"] is None
        assert "these are full scores, which lie on another scale" in plan["window"]["certificate_ignored"]

    def test_an_empty_pool_after_the_gates_is_told(self, tmp_path: Path) -> None:
        known = toy_labels(rattled(6, seed=9, displacement=0.1, molecules="ammonia"))
        turned = transformed(known, random_orthogonal(0, proper=True))
        pool = Structures.build(turned.atomic_numbers.reshape(6, 4), turned.positions.reshape(6, 4, 3))
        plan = json.loads(self.run(tmp_path / "a", pool, np.arange(6)))
        assert plan["n_selected"] == 0
        assert plan["nothing_left"].startswith("None of the 6 candidates passed the gates (duplicate_labelled 6)")
        assert plan["pool_scores"] == {}

    def test_adaptive_scoring_is_passed_on(self, tmp_path: Path) -> None:
        pool = self.pool(tmp_path)
        self.run(tmp_path / "a", pool, np.arange(len(pool)))
        said = {"forces_uncertainty": np.full((len(pool.positions), 3), 0.1)}
        write_structures(
            tmp_path / "c.h5", pool, predictions={"ensemble": said}, attributes={"adaptive": {"n_escalated": 7}}
        )
        select_batch.run(
            candidates=tmp_path / "c.h5", dataset=None, selected=tmp_path / "s.h5", manifest=tmp_path / "m.json",
            rejected=tmp_path / "r.csv", selection=SelectionConfig(), sanity=LOOSE, method="ensemble",
            structures_per_shard=5, remaining_labels=None, seed=3, iteration=1,
        )  # fmt: skip
        assert json.loads((tmp_path / "m.json").read_text())["adaptive"] == {"n_escalated": 7}


def test_new_settings_at_their_default_are_not_recorded() -> None:
    recorded = section_settings(parse_config({}), "selection")
    assert set(recorded) == {
        "selector", "n_select", "control_fraction", "force_tolerance_ev_per_angstrom", "risk", "min_score",
        "skip_top_fraction", "duplicate_distance_angstrom",
    }  # fmt: skip
    assert set(section_settings(parse_config({}), "sampling")["sanity"]) == {
        "min_distance_factor", "max_bond_factor", "max_fragments", "max_energy_above_min_ev_per_atom",
        "max_force_ev_per_angstrom",
    }  # fmt: skip
    changed = parse_config({"selection": {"max_score": 2.0}, "sampling": {"sanity": {"bond_graph": "as_labelled"}}})
    assert section_settings(changed, "selection")["max_score"] == 2.0
    assert section_settings(changed, "sampling")["sanity"]["bond_graph"] == "as_labelled"
