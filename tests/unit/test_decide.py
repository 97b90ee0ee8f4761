"""When a campaign stops, and what it says then."""

from __future__ import annotations

import json

import pytest

from dubito.config import parse_config
from dubito.core.errors import DataError
from dubito.metrics.binomial import clopper_pearson
from dubito.stages import decide
from dubito.stages._planning import outlook

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


# --- with certificates ---------------------------------------------------------------------------------


def campaign(
    errors,
    holds,
    *,
    drifted=False,
    train=0.02,
    batch=100,
    price=5.0,
    target=None,
    worst=None,
    looks="agreed",
    methods=None,
    is_drift_tested=True,
    **settings,
):
    """Decide after iterations with these test errors and certificates (None: of before).

    ``drifted``: in the last iteration; ``worst``: worst force error of all control structures over the RMSE;
    ``methods``: of the certificates.
    """
    raw = {"campaign": {"max_iterations": 20, **settings}, "planning": {"worth_percent_per_100_labels": price}}
    raw["planning"]["target_force_rmse_ev_per_angstrom"] = target
    config = parse_config(raw)
    history, plans = [], []
    for k, (error, held) in enumerate(zip(errors, holds, strict=True)):
        drift = {"drifted": drifted and k == len(errors) - 1}
        found = {"holds": held, "accepted_fraction": 0.95, "bound": 0.04, "n_control": 30, "drift": drift}
        found["method"] = methods[k] if methods else "ensemble"
        if not is_drift_tested:
            found |= {"drift": None, "drift_note": "There were too few control labels to tell."}
        sets = {"test": error, "valid": 0.1, "train": train}
        measured = {n: {"force_rmse_ev_per_angstrom": e, "n_structures": 400} for n, e in sets.items()}
        if worst is not None and k:
            measured["control"] = {"worst_force_errors": [worst * errors[k - 1]] * 30}
        history.append(
            {
                "iteration": k,
                "labels": {"total": batch * (k + 1), "new": 20, "failed": 0, "control": 0},
                "miss_rate": MISS,
                "errors": measured,
                "certificate": None if held is None else found | {"reason": "Too few control labels."},
            }
        )
        plans.append({"iteration": k, "n_selected": batch, "n_candidates": 200, "rejected": {}})
    ahead = outlook(history, plans, config.campaign, config.selection, config.planning)
    sections = config.campaign, config.selection, config.labelling, config.planning
    decided = decide.decide(history, plans, *sections, ahead, looks)
    return *decided, decide.certified_since(history), ahead.plan


FALLING = [0.2 * (k + 1) ** -0.5 for k in range(6)]
FLAT = [0.12, 0.1, 0.1, 0.1, 0.1, 0.1]


def test_certified_is_confirmed_and_no_longer_worth_its_price():
    assert campaign(FLAT, [None, False, False, False, True, True])[0] == "certified"
    state, reason, since, _ = campaign(FLAT, [None, True, True, True, True, False])
    assert (state, since) != ("certified", 1)
    state, reason, since, _ = campaign(FLAT, [None, False, False, False, False, True])
    assert (state, since) == ("running", 5)
    assert "first time in iteration 5" in reason
    state, reason, since, _ = campaign(FALLING, [None, False, False, True, True, True])
    assert (state, since) == ("running", 3)
    assert "held since iteration 3, but 100 more labels are expected to lower" in reason
    assert campaign(FALLING, [None, False, False, True, True, True], price=50)[0] == "certified"


ONCE, TWICE, WITH_A_GAP = (
    [None, False, False, *last] for last in ([False, False, True], [False, True, True], [True, False, True])
)


@pytest.mark.parametrize(
    ("looks", "holds", "states"),
    [  # the tolerance of 0.3 eV/Å is kept by far, or out of reach by far
        ("once", ONCE, ("certified", "certified")),
        ("twice", ONCE, ("running", "running")),
        ("twice", WITH_A_GAP, ("running", "running")),
        ("twice", TWICE, ("certified", "certified")),
        ("two_of_three", ONCE, ("running", "running")),
        ("two_of_three", WITH_A_GAP, ("certified", "certified")),
        ("agreed", ONCE, ("certified", "running")),
        ("agreed", WITH_A_GAP, ("certified", "certified")),
        ("agreed", TWICE, ("certified", "certified")),
    ],
)
def test_what_confirms_a_certificate(looks, holds, states):
    assert tuple(campaign(FLAT, holds, worst=worst, looks=looks)[0] for worst in (2.0, 12.0)) == states


def test_the_learning_curve_confirms_no_certificate_that_does_not_hold_or_has_drifted():
    assert campaign(FLAT, [None, *[False] * 5], worst=2.0)[0] == "running"
    assert campaign(FLAT, ONCE, worst=2.0, drifted=True)[0] == "running"
    _, reason, *_ = campaign(FLAT, ONCE, worst=12.0)
    assert "the learning curve does not confirm it" in reason
    # The user's own target is another matter: reached or not, it confirms nothing.
    assert campaign(FLAT, ONCE, worst=12.0, target=0.2)[0] == "running"
    assert campaign(FLAT, ONCE, worst=2.0, target=0.01)[0] == "certified"


def test_the_reason_says_that_the_curve_confirms():
    reason = campaign(FLAT, ONCE, worst=2.0)[1]
    for words in ("In iteration 5 the certificate held", "a chance of 100% that the 150 meV/Å", "within 1.5 times"):
        assert words in reason


def test_drift_between_two_certificates_undoes_the_first():
    state, reason, *_ = campaign(FLAT, [None, False, False, False, True, True], drifted=True)
    assert (state, "drifted" in reason) == ("running", True)


def test_the_reason_of_a_certificate_names_the_risk_and_the_price():
    _, reason, *_ = campaign(FLAT, [None, False, False, False, True, True])
    for words in ("iterations 4 and 5", "95% of the pool", "at most 5 % of these", "0.3 eV/Å", "less than the 5 %"):
        assert words in reason


def test_without_a_plan_a_certificate_ends_only_what_ends_anyway():
    two = ([0.2, 0.19], [True, True])
    assert campaign(*two)[0] == "running"
    assert campaign(*two, max_iterations=1)[0] == "certified"
    assert campaign(*two, price=100)[0] == "certified"
    assert campaign(*two, max_labels=200)[0] == "certified"
    assert campaign([0.2, 0.19], [None, True], max_labels=200)[0] == "budget_spent"
    assert campaign([0.2, 0.19], [None, True], max_iterations=1)[0] == "max_iterations"


@pytest.mark.parametrize("end", [{"max_labels": 600}, {"max_iterations": 5}])
def test_a_confirmed_certificate_at_the_end_is_certified_whatever_is_known_of_more_labels(end):
    """To know what more labels bring must not make the verdict worse than not to know it."""
    holds = [None, False, False, False, True, True]
    state, reason, *_ = campaign(FALLING, holds, **end)
    assert state == "certified"
    assert "at least the 5 % that they should" in reason
    assert ("of the budget are spent" if "max_labels" in end else "raise that key and start again") in reason
    # Without price there is nothing to add, and nothing contradicts the certificate.
    state, reason, *_ = campaign(FLAT, holds, **end)
    assert state == "certified"
    assert reason.endswith("(planning.worth_percent_per_100_labels).")
    assert " but " not in reason
    assert campaign(FALLING, ONCE, worst=12.0, **end)[0] in ("budget_spent", "max_iterations")


def test_a_certificate_of_another_method_confirms_nothing():
    holds, other = [None, False, False, False, True, True], ["ensemble"] * 5 + ["svgp"]
    assert campaign(FLAT, holds, worst=12.0)[0] == "certified"
    state, reason, *_ = campaign(FLAT, holds, worst=12.0, methods=other, is_drift_tested=False)
    assert state == "running"
    assert "holds again in iteration 5, before it held with another uncertainty method" in reason
    assert campaign(FLAT, holds, worst=2.0, methods=other, is_drift_tested=False)[0] == "certified"


def test_no_drift_is_only_said_where_it_was_tested():
    holds = [None, False, False, False, True, True]
    assert "without drift between them" in campaign(FLAT, holds)[1]
    reason = campaign(FLAT, holds, is_drift_tested=False)[1]
    assert "without drift" not in reason
    assert "whether they drifted between them is not tested: There were too few control labels to tell)" in reason


def test_the_end_of_the_budget_says_what_the_certificate_lacks():
    state, reason, *_ = campaign(FALLING, [None, *[False] * 5], max_labels=600)
    assert state == "budget_spent"
    assert "does not hold yet. Too few control labels." in reason


@pytest.mark.parametrize(("train", "word"), [(0.02, "chance that the next batch"), (0.095, "training is the limit")])
def test_stalls_when_labels_no_longer_help(train, word):
    state, reason, *_ = campaign(FLAT, [None, *[False] * 5], train=train, target=0.01)
    assert (state, word in reason) == ("stalled", True)
    assert (
        "Over the last 3 iterations the force error has not fallen by more than its sampling error (100 meV/Å with 300 "
        "labels before them, 100 in the mean of the 3, up to 600 labels)" in reason
    )
    assert campaign(FALLING, [None, *[False] * 5], train=train, target=0.01)[0] == "running"


def test_a_flat_curve_is_told_by_the_numbers_that_were_compared():
    reason = campaign([0.2, 0.1, 0.104, 0.102, 0.094], [None, *[False] * 4], train=0.095, target=0.01)[1]
    assert "(100 meV/Å with 200 labels before them, 100 in the mean of the 3, up to 500 labels)" in reason


def test_does_not_stall_while_a_certificate_holds_or_the_target_is_reached():
    assert campaign(FLAT, [None, *[False] * 4, True], target=0.01)[0] == "running"
    assert campaign(FLAT, [None, *[False] * 5], target=0.2)[0] == "running"


def test_does_not_stall_while_the_tolerance_may_be_kept_one_day():
    never = [None, *[False] * 5]
    # Kept at 86 of 100 meV/Å: the posterior of a curve flat for three iterations leaves that a chance.
    assert campaign(FLAT, never, worst=3.5, target=0.01)[0] == "running"
    assert campaign(FLAT, never, worst=30.0, target=0.01)[0] == "stalled"
    assert campaign(FLAT, never, worst=3.5, target=0.01, train=0.095)[0] == "running"
    assert campaign(FLAT, never, worst=30.0, target=0.01, train=0.095)[0] == "stalled"
    # A campaign that stays flat gets there: no tolerance keeps it going for ever.
    assert campaign(FLAT[:1] + [0.1] * 12, [None, *[False] * 12], worst=4.5, target=0.01)[0] == "stalled"


def test_only_a_target_of_the_configuration_is_exact():
    plan = campaign(FALLING, ONCE, worst=2.0)[3]
    between = plan["target_interval_ev_per_angstrom"]
    assert between["q10"] < plan["target_ev_per_angstrom"] < between["q90"]
    assert (plan["target_from"], plan["target_ev_per_angstrom"]) == ("certificate", pytest.approx(0.15))
    plan = campaign(FALLING, ONCE, worst=2.0, target=0.05)[3]
    assert (plan["target_from"], plan["target_interval_ev_per_angstrom"]) == ("config", None)


def test_an_error_that_is_no_number_is_survived():
    state, _, _, plan = campaign([0.2, float("nan"), 0.15, 0.12], [None, False, False, False])
    assert state == "running"
    assert [point["iteration"] for point in plan["points"]] == [0, 2, 3]


def test_the_plan_prices_labels_by_what_they_cost(tmp_path):
    for k, error in enumerate(FALLING[:4]):
        metrics, _ = write(tmp_path, k)
        found = json.loads(metrics.read_text()) | {"certificate": None}
        found["labels"] |= {"total": 100 * (k + 1), "control": 0}
        found["errors"] = {"test": {"force_rmse_ev_per_angstrom": error, "n_structures": 900}}
        metrics.write_text(json.dumps(found))
        (tmp_path / f"shard_{k}.json").write_text(json.dumps({"done": 90, "failed": [{}] * 10, "cpu_s": 3600.0 * 90}))
    folder = tmp_path / "iter_003"
    folder.mkdir()
    event = {"event": "finished", "time": 1.0, "stage": "train_ensemble"}
    lines = [json.dumps(event | {"iteration": k, "cpu_s": 360.0 * (k + 1)}) for k in range(4)]
    (tmp_path / "progress.jsonl").write_text("\n".join(lines))
    config = parse_config({"campaign": {"max_iterations": 9}, "planning": {"target_force_rmse_ev_per_angstrom": 0.09}})
    decide.run(
        metrics=[tmp_path / f"metrics_{k}.json" for k in range(4)],
        manifests=[tmp_path / f"manifest_{k}.json" for k in range(4)],
        shard_reports=[tmp_path / f"shard_{k}.json" for k in range(4)],
        output=folder / "decision.json",
        **{name: getattr(config, name) for name in ("campaign", "selection", "labelling", "planning")},
    )
    plan = json.loads((folder / "decision.json").read_text())["plan"]
    assert plan["core_hours_per_label"] == pytest.approx(1.0)
    middle = plan["labels_to_target"]["q50"]
    # Batches of 5 (manifests): trainings on 405, 410, ... labels at 3.6 s per label.
    rounds = -(-(middle - 400) // 5)
    trained = sum(min(400 + 5 * j, middle) for j in range(1, rounds + 1)) * 3.6 / 3600
    assert plan["core_hours_to_target"]["q50"] == pytest.approx(middle - 400 + trained, abs=1.2)


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
    fixed = {"stop": True, "state": "max_iterations", "iteration": 4, "plan": None, "certified_since": None}
    assert decision == fixed | {"reason": decision["reason"]}
    assert (driver["method"], driver["reason"]) == ("ensemble", "uncertainty.acquire_with names it.")
    assert line == f"max_iterations: {decision['reason']}"


def test_a_running_campaign_does_not_stop(tmp_path):
    run(tmp_path, [write(tmp_path, 0)])
    assert json.loads((tmp_path / "decision.json").read_text())["stop"] is False


def test_metrics_and_manifests_of_different_iterations_are_refused(tmp_path):
    with pytest.raises(DataError, match="needs both of every iteration"):
        run(tmp_path, [write(tmp_path, 0), write(tmp_path, 1, manifest_iteration=2)])
