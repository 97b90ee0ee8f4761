"""Section: where the learning curve leads, what that would cost, and whether it is worth it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dubito.reporting import charts_planning as charts
from dubito.reporting.blocks import Block, Chart, Figure, Section, Table, Text
from dubito.reporting.collect import Campaign
from dubito.reporting.words import MISSING, count, milli, number, percent

TITLE = "Labels to come"
_KINDS = {"test": "test", "control": "control", "valid": "validation"}
_Z95 = 1.96
_HOURS = 1.0
# Probabilities that a posterior of a few points can't tell from 0 and 1.
_SURE = 0.01


def planning(campaign: Campaign) -> Section:
    """Return the section on the forecast of labels, and why the campaign stopped or goes on."""
    plan = campaign.last.plan
    if plan is None:
        return Section("planning", TITLE, [Text(_why_none(campaign)), Text(_decided(campaign), plain=True)])
    blocks: list[Block] = [
        _figure(plan, finding(plan, campaign.last.known_labels)),
        _table(campaign, plan),
        Text(_limited(plan)),
    ]
    return Section("planning", TITLE, [*blocks, Text(_decided(campaign), plain=True)])


def finding(plan: Mapping[str, Any], at_hand: int) -> str:
    """Say in one sentence how many labels the target takes.

    Parameters
    ----------
    at_hand : labels known to the present model, which may not be judged yet
    """
    target = plan["target_ev_per_angstrom"]
    if target is None:
        return f"No target error is known yet. {_gain(plan)}"
    words = f"a force error of {milli(target)} meV/Å{_doubt(plan)}"
    needed, last = plan["labels_to_target"] or {}, plan["points"][-1]["labels"]
    middle, unreachable = needed.get("q50"), plan["probability_unreachable"]
    if middle is not None and middle <= last:
        return f"The target, {words}, is reached with the {last:,} labels of the last point. {_gain(plan)}"
    if unreachable is not None and unreachable > 0.5:
        return (
            f"The target, {words}, is out of reach of more labels with a probability of {_chance(unreachable)}: the "
            "learning curve flattens above it."
        )
    if middle is None:
        return (
            f"The target, {words}, takes more than twice the {last:,} labels of the last point, farther than this "
            f"curve can be trusted (probability that no number of labels reaches it: {_chance(unreachable)})."
        )
    already = (
        f" The {at_hand:,} labels at hand already exceed that; the model trained on them is not judged yet."
        if last < middle <= at_hand
        else ""
    )
    return (
        f"The target, {words}, is expected at {middle:,.0f} labels (80 % interval {_range(needed)}; "
        f"probability that no number of labels reaches it: {_chance(unreachable)}).{already}"
    )


def _doubt(plan: Mapping[str, Any]) -> str:
    """Return the interval of a target that is only estimated."""
    between = plan.get("target_interval_ev_per_angstrom")
    return "" if between is None else f" ({milli(between['q10'])} to {milli(between['q90'])})"


def _why_none(campaign: Campaign) -> str:
    if not campaign.last.decision:
        return "No decision is written yet."
    if "plan" not in campaign.last.decision:
        return "These iterations have no forecast: the decision was made by a dubito that knew none."
    return f"A forecast takes three points of the learning curve; there {_are(len(campaign.iterations))}."


def _are(n: int) -> str:
    return f"{'is' if n == 1 else 'are'} {count(n, 'iteration')} so far"


def _decided(campaign: Campaign) -> str:
    """Say why the campaign stopped or goes on, and since when it is certified."""
    decision = campaign.last.decision
    if not decision:
        return "Whether to go on is not decided yet."
    text = f"{'Why it stopped' if decision.get('stop') else 'Why it goes on'}: {decision.get('reason') or MISSING}"
    since = decision.get("certified_since")
    return text if since is None else f"{text} The certificate has held since iteration {since}."


def _figure(plan: Mapping[str, Any], words: str) -> Figure:
    points = [
        {
            "labels": point["labels"],
            "iteration": point["iteration"],
            "error": 1000 * point["error_ev_per_angstrom"],
            "low": 1000 * point["error_ev_per_angstrom"] * math.exp(-_Z95 * (point["relative_sd"] or 0.0)),
            "high": 1000 * point["error_ev_per_angstrom"] * math.exp(_Z95 * (point["relative_sd"] or 0.0)),
        }
        for point in plan["points"]
        if point["error_ev_per_angstrom"] and point["labels"]
    ]
    most = 2 * max((point["labels"] for point in points), default=1)
    fan = [_interval(row) for row in plan["forecast"] if row["labels"] <= most]
    ghosts = [_interval(row) | {"made": row["made_at_iteration"]} for row in plan.get("past_forecasts") or ()]
    target = None if plan["target_ev_per_angstrom"] is None else 1000 * plan["target_ev_per_angstrom"]
    kind = _KINDS.get(plan["error_kind"], plan["error_kind"])
    return Figure(
        id="forecast",
        title="Error against labels, and where it leads",
        finding=words,
        caption=f"Force RMSE on {kind} structures, meV/Å, both axes logarithmic; n = {len(points)} iterations. Black: "
        "measured, with the 95 % interval that the number of structures leaves. Blue: forecast of a power law with a "
        "floor, its median dashed, in the shade 80 % of what fits the points; it ends at twice the labels of the last "
        "point, beyond which such a curve is a guess. Grey: what earlier iterations forecast for labels that have come "
        f"since.{_about_target(plan)}",
        charts=[Chart(charts.forecast(points, fan, ghosts, target, *_domains(points, fan, ghosts, target)), words)],
        table=_points_table(plan, kind),
    )


def _about_target(plan: Mapping[str, Any]) -> str:
    if plan["target_from"] == "config":
        return " Target: planning.target_force_rmse_ev_per_angstrom."
    if plan["target_from"] == "certificate":
        return (
            " Target: where the certificate's tolerance would hold, as the latest control slices tell; what they leave "
            "open (in brackets: 80 %) is part of the interval of the labels to it."
        )
    return ""


def _interval(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"labels": row["labels"], "low": 1000 * row["q10"], "middle": 1000 * row["q50"], "high": 1000 * row["q90"]}


def _domains(
    points: Sequence[Mapping[str, Any]],
    fan: Sequence[Mapping[str, Any]],
    ghosts: Sequence[Mapping[str, Any]],
    target: float | None,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ranges of both axes, around all that is drawn; wild intervals are cut at thrice the points."""
    labels = [row["labels"] for row in (*points, *fan)] or [1, 2]
    errors = [row["error"] for row in points] or [1.0]
    lowest, highest = min(errors) / 3, max(errors) * 3
    around = [row[key] for row in (*points, *fan, *ghosts) for key in ("low", "high") if row[key] > 0]
    inside = [min(max(value, lowest), highest) for value in around] + errors
    if target is not None:
        inside.append(target)
    return (min(labels) / 1.1, max(labels) * 1.1), (min(inside) / 1.15, max(inside) * 1.15)


def _points_table(plan: Mapping[str, Any], kind: str) -> Table:
    said = {row["labels"]: row for row in plan.get("past_forecasts") or ()}
    rows = []
    for point in plan["points"]:
        earlier = said.get(point["labels"])
        rows.append(
            (
                str(point["iteration"]),
                f"{point['labels']:,}",
                milli(point["error_ev_per_angstrom"]),
                MISSING if point["relative_sd"] is None else f"± {percent(point['relative_sd'])}",
                MISSING if earlier is None else f"{milli(earlier['q10'])} to {milli(earlier['q90'])}",
                MISSING if earlier is None else str(earlier["made_at_iteration"]),
            )
        )
    return Table(
        caption=f"Points of the learning curve, force RMSE on {kind} structures",
        headers=("iteration", "labels known", "meV/Å", "1σ of the measurement", "forecast meV/Å", "made in iteration"),
        rows=rows,
        note=_backtest(plan),
    )


def _backtest(plan: Mapping[str, Any]) -> str:
    """Say how many of the earlier forecasts came true."""
    judged = [row for row in plan.get("past_forecasts") or () if row.get("realised") is not None]
    if not judged:
        return "No earlier forecast has been put to the test yet."
    inside = sum(row["q10"] <= row["realised"] <= row["q90"] for row in judged)
    return f"{inside} of {count(len(judged), 'earlier forecast')} held what came within the 80 % interval."


def _table(campaign: Campaign, plan: Mapping[str, Any]) -> Table:
    needed, hours = plan["labels_to_target"] or {}, plan["core_hours_to_target"]
    gain, price = plan["gain_percent_per_100_labels"] or {}, plan["price_percent_per_100_labels"]
    quantiles = ("q10", "q50", "q90")
    rows = [("labels to the target", *(_labels(needed.get(q)) for q in quantiles))]
    if hours is not None:
        rows.append(("core-hours to the target", *(number(hours.get(q)) for q in quantiles)))
    rows.append(("error lowered by 100 more labels, %", *(number(gain.get(q), 2) for q in quantiles)))
    about = [
        f"Probability that no number of labels reaches the target: {_chance(plan['probability_unreachable'])}.",
        f"A certified campaign goes on as long as 100 more labels are worth {price:g} % "
        "(planning.worth_percent_per_100_labels).",
    ]
    if plan["probability_by_budget"] is not None:
        budget = campaign.config.campaign.max_labels
        left = "the iterations left"
        within = left if budget is None else f"the budget of {budget:,} labels and {left}"
        about.append(f"Probability of reaching it within {within}: {_chance(plan['probability_by_budget'])}.")
    if plan["core_hours_per_label"] is not None:
        about.append(f"A label has cost {_core_time(plan['core_hours_per_label'])} so far.")
    return Table(
        caption="What it would take",
        headers=("", "lower (10 %)", "median", "upper (90 %)"),
        rows=rows,
        note=" ".join(about) + " A dash: beyond twice the labels of the last point, where nothing is forecast.",
    )


def _core_time(hours: float) -> str:
    return f"{number(hours)} core-hours" if hours >= _HOURS else f"{number(3600 * hours)} core-seconds"


def _labels(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}"


def _range(needed: Mapping[str, Any]) -> str:
    low, high = needed.get("q10"), needed.get("q90")
    if high is None:
        return f"from {_labels(low)} to more than twice the labels of the last point"
    return f"{_labels(low)} to {_labels(high)}"


def _chance(value: float | None) -> str:
    if value is None:
        return MISSING
    if value < _SURE:
        return f"below {percent(_SURE)}"
    return f"above {percent(1 - _SURE)}" if value > 1 - _SURE else percent(value)


def _gain(plan: Mapping[str, Any]) -> str:
    middle = (plan["gain_percent_per_100_labels"] or {}).get("q50")
    if middle is None:
        return "What more labels would bring is not known."
    return f"100 more labels would lower the error by {number(middle, 2)} %."


def _limited(plan: Mapping[str, Any]) -> str:
    """Say whether data or training limits the error."""
    ratio = plan["train_test_ratio"]
    measured = "" if ratio is None else f" (training over validation error: {number(ratio, 2)})"
    if plan["limited_by"] == "data":
        return f"Data-limited: structures trained on are known far better than others{measured}, so labels help."
    if plan["limited_by"] == "training":
        return (
            f"Training-limited: structures trained on are known hardly better than others{measured}, so a larger "
            "network or a longer training should help (model, training.max_epochs). The learning curve is that of the "
            "network and training as they are: labels help these as forecast above, all the same."
        )
    return f"Whether data or training limits the error can't be told yet{measured}."
