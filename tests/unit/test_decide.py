"""When a campaign stops, and what it says then."""

from __future__ import annotations

import json

import pytest

from dubito.config import parse_config
from dubito.core.errors import DataError
from dubito.metrics.binomial import clopper_pearson
from dubito.stages import decide

MISS = {"value": None, "low": 0.0, "high": 1.0, "n_accepted": 0, "n_control": 0}


def accepted(n, missed=0):
    """Return the miss rate of ``n`` accepted control structures."""
    low, high = clopper_pearson(missed, n)
    return {"value": missed / n, "low": low, "high": high, "n_accepted": n, "n_control": n}


def judge(*, iteration=1, total=40, new=16, failed=0, miss=None, manifest=None, earlier=(), **campaign):
    """Decide after one iteration; ``earlier``: what those before it selected and how much of that failed."""
    config = parse_config({"campaign": {"max_iterations": 4, **campaign}})
    metrics = {
        "iteration": iteration,
        "labels": {"total": total, "new": new, "failed": failed},
        "miss_rate": miss or MISS,
    }
    plan = {"iteration": iteration, "n_selected": 16, "n_shards": 1, "n_candidates": 200, "rejected": {}} | (
        manifest or {}
    )
    history = [{"labels": {"failed": lost}} for _, lost in earlier] + [metrics]
    plans = [{"n_selected": count} for count, _ in earlier] + [plan]
    return decide.decide(history, plans, config.campaign, config.selection, config.labelling)


def test_goes_on_while_nothing_stops_it():
    state, reason = judge()
    assert state == "running"
    assert "40 labels" in reason
    assert "not measured yet" in reason


def test_pauses_when_too_many_labels_fail():
    state, reason = judge(new=7, failed=9)
    assert state == "paused"
    assert "9 of the 16 structures" in reason
    assert "max_failed_fraction" in reason
    assert judge(new=8, failed=8)[0] == "running"  # half is allowed


def test_pauses_when_not_one_label_was_made():
    assert judge(total=0, new=0, failed=10, iteration=0)[0] == "paused"
    assert judge(total=40, new=0, failed=10)[0] == "paused"


def test_the_budget_is_spent_by_what_was_selected_failures_included():
    """As the selection counts; otherwise one failure costs an iteration that may select nothing."""
    spent = {"earlier": [(8, 1)], "new": 2, "total": 9, "manifest": {"n_selected": 2}}
    state, reason = judge(max_labels=10, **spent)
    assert state == "budget_spent"
    assert "10 of 10 labels of the budget are spent (1 failed)" in reason
    assert judge(max_labels=11, **spent)[0] == "running"


@pytest.mark.parametrize(("new", "failed"), [(7, 9), (0, 10)])
def test_a_paused_campaign_says_what_to_type(new, failed):
    _, reason = judge(new=new, failed=failed, iteration=2)
    assert "type `dubito retry`" in reason
    assert "start the same snakemake command again" in reason
    assert "labels already made are kept" in reason


def test_a_pause_comes_before_the_budget():
    assert judge(max_labels=16, new=1, failed=9)[0] == "paused"


@pytest.mark.parametrize(("n", "state"), [(2, "running"), (71, "running"), (72, "certified"), (500, "certified")])
def test_certifies_only_with_enough_control_structures(n, state):
    assert judge(miss=accepted(n))[0] == state


def test_misses_cost_the_certificate():
    assert judge(miss=accepted(100, missed=3))[0] == "running"
    assert judge(miss=accepted(300, missed=3))[0] == "certified"


def test_the_certificate_states_what_it_certifies():
    _, reason = judge(miss=accepted(100))
    assert "95 % confidence" in reason
    assert "0.3 eV/Å" in reason
    assert "100 random control structures" in reason


def test_no_accepted_structure_certifies_nothing():
    assert judge(miss=MISS | {"high": 0.0})[0] == "running"


def test_stalls_when_nothing_is_selected():
    state, reason = judge(new=0, manifest={"n_selected": 0, "rejected": {"duplicate": 150, "too_close": 50}})
    assert state == "stalled"
    assert "'duplicate' (150)" in reason


def test_stalls_when_exploring_finds_nothing():
    state, reason = judge(new=0, manifest={"n_selected": 0, "n_candidates": 0})
    assert (state, "found no candidate" in reason) == ("stalled", True)


def test_stops_after_the_last_iteration():
    assert judge(iteration=3)[0] == "running"
    state, reason = judge(iteration=4)
    assert (state, "campaign.max_iterations" in reason) == ("max_iterations", True)
    assert judge(iteration=0, max_iterations=0)[0] == "max_iterations"


def write(folder, k, *, manifest_iteration=None):
    metrics, manifest = folder / f"metrics_{k}.json", folder / f"manifest_{k}.json"
    metrics.write_text(json.dumps({"iteration": k, "labels": {"total": 10, "new": 5, "failed": 0}, "miss_rate": MISS}))
    number = k if manifest_iteration is None else manifest_iteration
    manifest.write_text(
        json.dumps({"iteration": number, "n_selected": 5, "n_shards": 1, "n_candidates": 9, "rejected": {}})
    )
    return metrics, manifest


def run(folder, pairs):
    config = parse_config({})
    return decide.run(
        metrics=[m for m, _ in pairs],
        manifests=[m for _, m in pairs],
        output=folder / "decision.json",
        campaign=config.campaign,
        selection=config.selection,
        labelling=config.labelling,
    )


def test_the_latest_iteration_decides_whatever_the_order_of_files(tmp_path):
    line = run(tmp_path, [write(tmp_path, k) for k in (4, 0, 1, 3, 2)])
    decision = json.loads((tmp_path / "decision.json").read_text())
    driver = decision.pop("acquire_with")
    assert decision == {"stop": True, "state": "max_iterations", "iteration": 4, "reason": decision["reason"]}
    assert (driver["method"], driver["reason"]) == ("ensemble", "uncertainty.acquire_with names it.")
    assert line == f"max_iterations: {decision['reason']}"


def test_a_running_campaign_does_not_stop(tmp_path):
    run(tmp_path, [write(tmp_path, 0)])
    assert json.loads((tmp_path / "decision.json").read_text())["stop"] is False


def test_metrics_and_manifests_of_different_iterations_are_refused(tmp_path):
    with pytest.raises(DataError, match="needs both of every iteration"):
        run(tmp_path, [write(tmp_path, 0), write(tmp_path, 1, manifest_iteration=2)])
