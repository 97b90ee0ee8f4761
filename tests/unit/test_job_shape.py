"""Threads of rules, shards of a batch, and the time a shard asks for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubito.config import parse_config
from dubito.config.sanity import SanityConfig
from dubito.config.selection import SelectionConfig
from dubito.data.store import write_structures
from dubito.data.structures import Structures
from dubito.stages import _shards, select_batch
from dubito.stages._shards import n_jobs, plan_shards, seconds_per_label, smallest_job
from dubito.testing.structures import rattled, toy_labels
from dubito.workflow.resources import NETWORK_RULES, labelling_device, network_device, threads_of
from dubito.workflow.work import labelling_minutes

RULES = Path(__file__).parents[2] / "workflow" / "rules"


# --- threads ------------------------------------------------------------------------------------------------


def test_rules_without_network_get_one_thread() -> None:
    for rule in ("select_batch", "label_structures", "prepare_reference", "evaluate", "publish_report"):
        assert threads_of(rule, parse_config({})) == 1


def test_threads_follow_the_work() -> None:
    demo = parse_config({})
    assert {rule: threads_of(rule, demo) for rule in NETWORK_RULES} == {
        "train_ensemble": 2,
        "explore_structures": 2,
        "fit_uncertainty": 1,
        "score_candidates": 1,
        "predict_structures": 1,
        "predict_batch": 1,
    }
    large = parse_config({"sampling": {"sampler": {"kind": "langevin", "n_walkers": 100}}})
    assert threads_of("score_candidates", large) == 2
    alone = parse_config({"training": {"members_per_job": 1}})
    assert threads_of("train_ensemble", alone) == 1
    short = parse_config({"training": {"max_epochs": 2}})
    assert threads_of("train_ensemble", short) == 1


def test_every_rule_takes_its_threads_from_one_place() -> None:
    for path in campaign_rules():
        for name, threads in re.findall(
            r"(?:rule|checkpoint) (\w+):.*?\n    threads: ([^\n]+)", path.read_text(), re.S
        ):
            assert threads == f'threads_of("{name}", CONFIG)', name


def campaign_rules() -> list[Path]:
    """Return the files of a campaign's rules; studies are no campaigns and have no configuration of one."""
    return [path for path in RULES.glob("*.smk") if path.stem != "studies"]


def rules() -> dict[str, str]:
    """Return the text of each rule."""
    blocks = {}
    for path in campaign_rules():
        for block in re.split(r"\n(?=rule |checkpoint )", path.read_text()):
            if match := re.search(r"(?:rule|checkpoint) (\w+):", block):
                blocks[match.group(1)] = block
    return blocks


def test_every_rule_that_labels_asks_for_its_gpu_and_is_not_rerun_for_the_device() -> None:
    for name, block in rules().items():
        labels = name in ("label_structures", "prepare_reference")
        assert ("gpu=label_gpus" in block) == labels, name
        assert ("rerun_for=LABELLER" in block) == labels, name
        assert ('labelling=untracked(section("labelling", "labeller"' in block) == labels, name
        assert 'section("labelling")' not in block, name


@pytest.mark.parametrize(
    ("model", "device", "expected"),
    [("fused", "auto", "cpu"), ("fused", "cuda", "cuda"), ("auto", "auto", "auto"), ("fused", "cpu", "cpu")],
)
def test_a_network_for_the_cpu_goes_to_no_gpu_that_auto_finds(model: str, device: str, expected: str) -> None:
    config = parse_config({"model": {"kernel": model}, "resources": {"device": device}})
    assert network_device(config) == expected


def test_labels_ask_for_a_gpu_in_the_words_of_the_resources() -> None:
    found = [
        labelling_device(parse_config({"labelling": {"labeller": {"kind": "pyscf", "device": device}}}))
        for device in ("cpu", "gpu", "auto")
    ]
    assert found == ["cpu", "cuda", "auto"]
    assert labelling_device(parse_config({"labelling": {"labeller": {"kind": "teacher"}}})) == "cpu"


def test_every_rule_with_network_asks_for_its_gpu_and_passes_the_device() -> None:
    for name, block in rules().items():
        assert ("gpu=gpus" in block) == ("device=DEVICE" in block) == (name in NETWORK_RULES), name


# --- shards -------------------------------------------------------------------------------------------------


def test_the_fixed_share_is_what_was_asked_for() -> None:
    for seconds in (0.01, 0.7, 3.0, 224.0):
        for share in (0.05, 0.2):
            s = smallest_job(seconds, 2.0, share)
            assert 2.0 / (2.0 + s * seconds) <= share + 1e-9
            if s > 1:
                assert 2.0 / (2.0 + (s - 1) * seconds) > share
    # In closed form: 19 times the fixed cost at 5 %, 4 times at 20 %.
    assert smallest_job(1.0, 2.0, 0.05) == 38
    assert smallest_job(1.0, 2.0, 0.2) == 8


@pytest.mark.parametrize(
    ("n", "seconds", "places", "expected"),
    [
        (18, 0.001, 2, 1),  # labels cost nothing: one job
        (18, 1.0, 2, 2),  # both places are filled: 8 structures are worth a start
        (18, 1.0, 50, 2),  # fifty places are not
        (18, 224.0, 2, 8),  # labels are long: four rounds even out the load
        (18, 224.0, 50, 18),
        (1, 1.0, 50, 1),
        (100, 1.0, 1, 2),  # 38 of them make a job
        (10, 40000.0, 1, 10),  # longer than a job may be: one each
        (4000, 36.0, 2, 11),  # 399 fit into four hours
    ],
)
def test_number_of_jobs(n: int, seconds: float, places: int, expected: int) -> None:
    assert n_jobs(n, seconds, places=places, fixed_s=2.0) == expected


def test_no_job_is_longer_than_allowed() -> None:
    for n in (1, 7, 300, 5000):
        for seconds in (0.5, 30.0, 900.0):
            jobs = n_jobs(n, seconds, places=4, fixed_s=6.0)
            assert 6.0 + -(-n // jobs) * seconds <= _shards.LONGEST_S or jobs == n


def labelled(times: list[float], kinds: list[str] | None = None) -> Structures:
    found = toy_labels(rattled(len(times)))
    return found.with_columns(provenance__wall_time=times, provenance__kind=kinds or ["reference"] * len(times))


def test_only_computed_labels_are_measured() -> None:
    assert seconds_per_label(labelled([1.0, 3.0, np.nan, 0.0, 50.0], ["reference"] * 4 + ["model"])) == 2.0
    assert seconds_per_label(Structures.empty()) is None
    assert seconds_per_label(labelled([np.nan])) is None


def test_plan() -> None:
    data = labelled([1.0, 3.0])
    fixed = plan_shards(18, 4, labelled=data, places=2, fixed_s=2.0)
    assert (fixed.n_shards(18), fixed.record()) == (5, {"structures_per_shard": 4, "chosen_by": "configuration"})
    unknown = plan_shards(18, "auto", labelled=Structures.empty(), places=2, fixed_s=2.0)
    assert unknown.record() == {"structures_per_shard": 8, "chosen_by": "default"}
    known = plan_shards(18, "auto", labelled=data, places=2, fixed_s=2.0)
    assert known.record() == {
        "structures_per_shard": 9, "chosen_by": "measured", "seconds_per_structure": 2.0, "fixed_s": 2.0, "places": 2,
    }  # fmt: skip
    assert known.n_shards(18) == 2
    assert plan_shards(0, "auto", labelled=data, places=2, fixed_s=2.0).n_shards(0) == 0


def select(folder: Path, **changes: Any) -> dict[str, Any]:
    pool = rattled(40, displacement=0.2, molecules="ammonia")
    write_structures(folder / "c.h5", pool, predictions={"toy": {"forces_score": np.arange(len(pool.positions)) * 1.0}})
    times = np.full(6, 1.0)
    write_structures(folder / "d.h5", labelled(times.tolist()))
    options: dict[str, Any] = {"structures_per_shard": "auto", "places": 2, "fixed_s": 1.0}
    select_batch.run(
        candidates=folder / "c.h5", dataset=folder / "d.h5", selected=folder / "s.h5", manifest=folder / "m.json",
        rejected=folder / "r.csv", selection=SelectionConfig(n_select=20, control_fraction=0.0), method="toy",
        sanity=SanityConfig(max_bond_factor=4, max_fragments=4, min_distance_factor=0.05), remaining_labels=None,
        seed=1, iteration=1, **(options | changes),
    )  # fmt: skip
    found: dict[str, Any] = json.loads((folder / "m.json").read_text())
    return found


def test_the_manifest_keeps_the_plan(tmp_path: Path) -> None:
    plan = select(tmp_path)
    assert (plan["n_selected"], plan["n_shards"]) == (20, 2)
    assert plan["sharding"]["chosen_by"] == "measured"
    again = select(tmp_path)
    assert again == plan, "equal files give equal plans"
    fixed = select(tmp_path, structures_per_shard=6)
    assert (fixed["n_shards"], fixed["sharding"]["chosen_by"]) == (4, "configuration")
    assert fixed["ids"] == plan["ids"], "how a batch is cut changes nothing in it"


def test_auto_is_a_value_of_the_configuration() -> None:
    assert parse_config({"labelling": {"structures_per_shard": "auto"}}).labelling.structures_per_shard == "auto"


def test_time_asked_for() -> None:
    assert labelling_minutes({"n_selected": 18, "n_shards": 3}) == 15 + 6 * 15
    measured = {"n_selected": 18, "n_shards": 2, "sharding": {"seconds_per_structure": 60.0}}
    assert labelling_minutes(measured) == 15 + 9 * 3
    long = {"n_selected": 18, "n_shards": 9, "sharding": {"seconds_per_structure": 1800.0}}
    assert labelling_minutes(long) == 15 + 2 * 90, "three times what was measured, however long that is"
    assert labelling_minutes({"n_selected": 0, "n_shards": 0}) == 30


def test_every_rule_asks_for_memory_and_time_under_its_own_name() -> None:
    asking = {name: " ".join(block.split()) for name, block in rules().items() if "script:" in block}
    assert len(asking) > 15
    for name, block in asking.items():
        assert re.search(rf'mem_mb=REQUESTS\.memory\( ?"{name}", ', block), name
        assert re.search(rf'runtime=REQUESTS\.minutes\( ?"{name}", ', block), name
        assert "retries:" not in block, "retries of a rule are nested in its too small allocation"
