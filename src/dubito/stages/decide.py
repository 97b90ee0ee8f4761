"""Decide whether the campaign goes on, and say why in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dubito.config.campaign import CampaignConfig
from dubito.config.labelling import LabellingConfig
from dubito.config.planning import PlanningConfig
from dubito.config.selection import SelectionConfig
from dubito.core import progress
from dubito.core.errors import DataError
from dubito.core.files import read_json, write_json
from dubito.planning.stop import ITERATIONS, usual_error, why_stalled
from dubito.stages._certified import LOOKS, Looks, certified, certified_since, is_by_certificate, lacking
from dubito.stages._planning import Outlook, outlook, prices
from dubito.stages._way_on import RETRY

RUNNING = "running"


def run(
    *,
    metrics: list[Path],
    manifests: list[Path],
    output: Path,
    campaign: CampaignConfig,
    selection: SelectionConfig,
    labelling: LabellingConfig,
    method: str = "ensemble",
    driver: Path | None = None,
    planning: PlanningConfig | None = None,
    shard_reports: list[Path] | None = None,
) -> str:
    """Write ``decision.json`` of the latest iteration.

    The first rule that applies decides: paused, certified, budget spent, stalled, max_iterations, else running.
    ``acquire_with`` says which uncertainty method drives the next iteration, and why; ``plan`` what more labels
    would bring (null before three points), ``certified_since`` the first iteration of the run in which the
    certificate has held up to now.

    Parameters
    ----------
    method : ``uncertainty.acquire_with``
    driver : what ``choose_driver`` wrote; None: the configuration names the method
    shard_reports : of all iterations, for the price of a label; it changes no decision

    Raises
    ------
    DataError
        When metrics and manifests are not those of the same iterations.
    """
    history = sorted((read_json(path) for path in metrics), key=lambda m: int(m["iteration"]))
    plans = sorted((read_json(path) for path in manifests), key=lambda m: int(m["iteration"]))
    if not history or [m["iteration"] for m in history] != [m["iteration"] for m in plans]:
        raise DataError(
            f"Metrics are of iterations {[m['iteration'] for m in history]}, manifests of "
            f"{[m['iteration'] for m in plans]}; deciding needs both of every iteration so far."
        )
    planning = planning or PlanningConfig()
    # A campaign is the folder that the folder of the iteration lies in.
    events = progress.read(output.parent.parent / "progress.jsonl")
    costs = prices(history, [read_json(path) for path in shard_reports or []], events)
    ahead = outlook(history, plans, campaign, selection, planning, costs)
    state, reason = decide(history, plans, campaign, selection, labelling, planning, ahead)
    iteration = int(history[-1]["iteration"])
    decision = {"stop": state != RUNNING, "state": state, "reason": reason, "iteration": iteration}
    decision |= {"acquire_with": _acquire_with(method, driver, iteration)}
    write_json(output, decision | {"certified_since": certified_since(history), "plan": ahead.plan})
    return f"{state}: {reason}"


def _acquire_with(method: str, driver: Path | None, iteration: int) -> dict[str, Any]:
    """Return the method that drives next, the one before, the reason, and what the choice was made from.

    Raises
    ------
    DataError
        When the choice is that of another iteration.
    """
    if driver is None:
        return {"method": method, "previous": method, "reason": "uncertainty.acquire_with names it.", "table": []}
    chosen: dict[str, Any] = read_json(driver)
    if chosen.pop("iteration", None) != iteration:
        raise DataError(f"{driver} is not of iteration {iteration}. Delete it and start the campaign again.")
    return {key: value for key, value in chosen.items() if key != "chosen_at"}


def decide(
    history: Sequence[Mapping[str, Any]],
    plans: Sequence[Mapping[str, Any]],
    campaign: CampaignConfig,
    selection: SelectionConfig,
    labelling: LabellingConfig,
    planning: PlanningConfig | None = None,
    ahead: Outlook | None = None,
    looks: Looks = LOOKS,
) -> tuple[str, str]:
    """Return the state after the last iteration and the reason for it.

    Campaigns of before, whose metrics know no certificate, are decided as they were: by the miss rate alone.

    Parameters
    ----------
    history, plans : metrics and manifests of all iterations, in order
    ahead : what more labels would bring; None: nothing is known
    looks : what confirms a certificate
    """
    metrics, manifest = history[-1], plans[-1]
    planning, ahead = planning or PlanningConfig(), ahead or Outlook([], None)
    iteration, total = int(metrics["iteration"]), int(metrics["labels"]["total"])
    spent, last = _budget(history, plans, campaign), _last(iteration, total, campaign)
    # A certificate that holds is to be confirmed or outlived; campaigns of before never stopped for a flat curve.
    may_be_flat = "certificate" in metrics and certified_since(history) is None
    missing = ""
    if is_by_certificate(metrics):
        yes = certified(history, ahead.plan, planning, selection, end=spent or last, looks=looks)
        missing = lacking(history, ahead.plan, planning, selection, looks)
    else:
        # A campaign of before whose budget is spent has always ended as that.
        yes = None if spent else _certified(metrics["miss_rate"], selection)
    for state, reason in (
        ("paused", _paused(metrics, labelling)),
        ("certified", yes),
        ("budget_spent", spent),
        ("stalled", _stalled(iteration, manifest) or (_flat(ahead) if may_be_flat else None)),
        ("max_iterations", last),
    ):
        if reason is not None:
            says_more = missing and state in ("budget_spent", "max_iterations")
            return state, f"{reason} {missing}" if says_more else reason
    done = f"Iteration {iteration} of {campaign.max_iterations} is done with {total} labels"
    if missing:
        return RUNNING, f"{done}. {missing}"
    return RUNNING, f"{done}, and the miss rate {_bound(metrics['miss_rate'])}, so another batch is worth its labels."


def _paused(metrics: Mapping[str, Any], labelling: LabellingConfig) -> str | None:
    labels, iteration = metrics["labels"], metrics["iteration"]
    failed, tried = labels["failed"], labels["failed"] + labels["new"]
    if labels["total"] == 0 or (tried and labels["new"] == 0):
        return (
            f"None of the {tried} structures of iteration {iteration} could be labelled; the report says why. {RETRY}."
        )
    if tried and failed / tried > labelling.max_failed_fraction:
        return (
            f"{failed} of the {tried} structures of iteration {iteration} ({failed / tried:.0%}) could not be "
            f"labelled, more than the {labelling.max_failed_fraction:.0%} that labelling.max_failed_fraction "
            f"allows; the report says why. {RETRY}. To go on without them, raise labelling.max_failed_fraction and "
            "start again."
        )
    return None


def _budget(
    history: Sequence[Mapping[str, Any]], plans: Sequence[Mapping[str, Any]], campaign: CampaignConfig
) -> str | None:
    """Count as the selection does: what was selected was paid for, whether it could be labelled or not."""
    spent = sum(int(plan["n_selected"]) for plan in plans)
    if campaign.max_labels is None or spent < campaign.max_labels:
        return None
    failed = sum(int(metrics["labels"]["failed"]) for metrics in history)
    return f"{spent} of {campaign.max_labels} labels of the budget are spent ({failed} failed)."


def _certified(miss: Mapping[str, Any], selection: SelectionConfig) -> str | None:
    if not miss["n_accepted"] or miss["high"] is None or miss["high"] > selection.risk:
        return None
    return (
        f"With 95 % confidence at most {miss['high']:.1%} of the accepted structures have a force error above "
        f"{selection.force_tolerance_ev_per_angstrom:g} eV/Å ({miss['n_accepted']} random control structures), "
        f"within the stated risk of {selection.risk:.1%}."
    )


def _stalled(iteration: int, manifest: Mapping[str, Any]) -> str | None:
    if iteration == 0 or manifest["n_selected"] > 0:
        return None
    pool, rejected = manifest["n_candidates"], dict(manifest["rejected"])
    if not pool:
        return f"Exploring in iteration {iteration} found no candidate, so there is nothing new to label."
    text = f"None of the {pool} candidates of iteration {iteration} was selected"
    if rejected:
        cause = max(sorted(rejected), key=lambda name: rejected[name])
        text += f"; {sum(rejected.values())} were rejected, most often as '{cause}' ({rejected[cause]})"
    return text + ". Widen the sampling or the sane region to go on."


def _flat(ahead: Outlook) -> str | None:
    """Say that labels no longer lower the error, and what limits it."""
    plan, why = ahead.plan, why_stalled(ahead.points, ahead.plan)
    if plan is None or why is None:
        return None
    before, since = ahead.points[-1 - ITERATIONS], ahead.points[-ITERATIONS:]
    text = (
        f"Over the last {ITERATIONS} iterations the force error has not fallen by more than its sampling error "
        f"({1000 * before.error:.0f} meV/Å with {before.labels} labels before them, "
        f"{1000 * usual_error(since):.0f} in the mean of the {ITERATIONS}, up to {since[-1].labels} labels)"
    )
    if why == "training":
        return (
            f"{text}, and structures trained on are hardly better known than others (error ratio "
            f"{plan['train_test_ratio']:.2f}): training is the limit, not labels. Train longer "
            "(training.max_epochs) or a larger network (model), and start again."
        )
    return (
        f"{text}, and the chance that the next batch lowers it by 5 % is {plan['probability_of_5_percent']:.0%}: more "
        "labels of this kind hardly help. Another sampling, a longer training or a larger network may; to go on all "
        "the same, raise selection.n_select and start again."
    )


def _last(iteration: int, total: int, campaign: CampaignConfig) -> str | None:
    if iteration < campaign.max_iterations:
        return None
    return (
        f"All {campaign.max_iterations} iterations of campaign.max_iterations are done with {total} labels; "
        "raise that key and start again to go on."
    )


def _bound(miss: Mapping[str, Any]) -> str:
    if not miss["n_accepted"]:
        return "is not measured yet"
    return f"is only bounded by {miss['high']:.0%} ({miss['n_accepted']} control structures accepted)"
