"""Section: the certificate, what can be accepted of what exploring finds, and at which risk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dubito.reporting import charts_certificate as charts
from dubito.reporting.blocks import Block, Chart, Figure, Section, Table, Text
from dubito.reporting.collect import Campaign, Iteration
from dubito.reporting.drift import drift_words, milder_words
from dubito.reporting.words import MISSING, count, milli, number, percent, setting

TITLE = "Certificate"
_RATE = ("value", "low", "high")
NOT_SAID = (
    "What this does not say. It speaks of the model that explored, not of the one trained since, which knows these "
    "labels and has not been judged yet; and of the pool that this campaign's samplers found, not of other "
    "temperatures, compositions or reactions. 'At most' is about the mean over repeated control slices, of which those "
    "that accept nothing count as not wrong; so is the 95 % of the interval. A slice that accepts much by luck can be "
    "wrong about more. "
    "Each iteration looks anew: with many looks one may pass by luck, which is why a campaign counts as certified only "
    "when the certificate is confirmed by one in the two iterations before or by the learning curve."
)


def certificate(campaign: Campaign) -> Section:
    """Return the section on the certificates of all iterations."""
    judged = [iteration for iteration in campaign.iterations if iteration.certificate]
    if not judged:
        return Section("certificate", TITLE, [Text(_why_none(campaign))])
    blocks: list[Block] = [_figure(campaign, judged)]
    blocks[:0] = [Text(words) for words in (drift_words(judged[-1]), milder_words(judged[-1])) if words]
    strata = _strata(judged)
    if strata is not None:
        blocks.append(strata)
    blocks.append(Text(NOT_SAID, plain=True))
    return Section("certificate", TITLE, blocks)


def finding(iteration: Iteration, least: float) -> str:
    """Return what a certificate says, in one sentence for somebody who never heard of conformal bounds.

    ``least`` is the share of the pool that has to be accepted for it to hold.
    """
    found = iteration.certificate or {}
    tolerance = f"a force error above {milli(found['tolerance_ev_per_angstrom'])} meV/Å"
    accepted, evidence = found["accepted_fraction"], _evidence(found)
    if found["holds"]:
        return (
            f"Of the structures that exploring finds, {percent(accepted)} can be accepted, chosen so that at most "
            f"{setting(found['risk'])} of these are expected to have {tolerance} ({evidence})."
        )
    if accepted:
        return (
            f"Of the structures that exploring finds, only {percent(accepted)} can be accepted instead of the "
            f"{setting(least)} asked for, chosen so that at most {setting(found['risk'])} of these are expected to "
            f"have {tolerance} ({evidence})."
        )
    return (
        f"Of the structures that exploring finds, none can be accepted yet at a risk of {setting(found['risk'])}: "
        f"{_bad_words(found)}."
    )


def _why_none(campaign: Campaign) -> str:
    """Say why there is no certificate."""
    if campaign.config.selection.control_fraction == 0:
        return (
            "No structure is drawn at random (selection.control_fraction is 0), so nothing can be said of what "
            "exploring finds. Set it to 0.1 to get a certificate."
        )
    if campaign.last.index == 0:
        return (
            "The first certificate comes with iteration 1: it takes structures that exploring found, drawn at random."
        )
    miss = campaign.last.metrics["miss_rate"]
    text = "These iterations have no certificate: their selection was made by a dubito that knew none."
    if miss.get("n_accepted"):
        text += (
            f" Of {count(miss['n_accepted'], 'accepted control structure')} of iteration {campaign.last.index}, "
            f"{percent(miss['value'])} had a force error above {milli(miss['tolerance_ev_per_angstrom'])} meV/Å (95 % "
            f"interval {percent(miss['low'])} to {percent(miss['high'])})."
        )
    return f"{text} Iterations to come will have one."


def controls(found: Mapping[str, Any]) -> str:
    """Return the size of the control slice; a structure that could not be labelled has no label."""
    return count(found["n_control"], "control structure" if found.get("n_control_failed") else "control label")


def _evidence(found: Mapping[str, Any]) -> str:
    """Say what the accepted control structures showed."""
    miss, bad = found["miss_rate"], found.get("n_accepted_bad")
    if miss["low"] is None or miss["high"] is None:
        return controls(found)
    interval = f"95 % interval {percent(miss['low'])} to {percent(miss['high'])}"
    if bad is None:
        return f"{interval}, {controls(found)}"
    accepted = count(miss["n_accepted"], "accepted control structure")
    return f"{bad:,} of {accepted} {'is' if bad == 1 else 'are'} wrong, {interval}"


def _bad_words(found: Mapping[str, Any]) -> str:
    """Say what the control labels showed, and how many of them it would take."""
    n, bad, needed = found["n_control"], found["n_bad"], found["labels_needed"]
    more = "" if needed is None or needed <= n else f"; it would take {needed:,}"
    if not bad:
        few = f"{controls(found)} {'is' if n == 1 else 'are'} too few"
        return f"{few}, though none is wrong by more than the tolerance{more}"
    return f"{bad} of {controls(found)} {'is' if bad == 1 else 'are'} wrong by more than the tolerance"


def _figure(campaign: Campaign, judged: Sequence[Iteration]) -> Figure:
    last = judged[-1].certificate or {}
    least, risk = campaign.config.selection.min_accepted_fraction, last["risk"]
    words = finding(judged[-1], least)
    shares = [
        {
            "iteration": iteration.index,
            "accepted": 100 * found["accepted_fraction"],
            "state": charts.HOLDS if found["holds"] else charts.HOLDS_NOT,
        }
        for iteration in judged
        if (found := iteration.certificate)
    ]
    rates = _rates(judged)
    drawn = [
        Chart(
            charts.accepted_shares(shares, 100 * least),
            "Accepted share of the pool by iteration: "
            + ", ".join(f"{row['iteration']}: {number(row['accepted'])} %, {row['state']}" for row in shares),
            "Accepted share",
            half=True,
        )
    ]
    if rates:
        drawn.append(
            Chart(
                charts.miss_rates(rates, 100 * risk),
                "Miss rate among accepted control structures by iteration with its 95 % interval: "
                + ", ".join(f"{row['iteration']}: {number(row['value'])} % ({row['threshold']})" for row in rates),
                "Miss rate among the accepted",
                half=True,
            )
        )
    return Figure(
        id="certificates",
        title="What may be accepted",
        finding=words,
        caption=f"Accepted: score at or below a threshold that is chosen so that the bound keeps the risk of "
        f"{setting(risk)}. Dashed: the least share that counts, {setting(least)}, and the risk. Miss rate: share of "
        "accepted control structures whose largest force error exceeds the tolerance of "
        f"{milli(last['tolerance_ev_per_angstrom'])} meV/Å, with its 95 % interval. The threshold of the iteration "
        "before is judged on labels it was not chosen on. Control structures are drawn at random from all candidates "
        "that passed the gates, and are trained on only from the next iteration on.",
        charts=drawn,
        table=_table(judged),
    )


def _rates(judged: Sequence[Iteration]) -> list[dict[str, Any]]:
    """Return the miss rates that can be drawn, in percent."""
    rows = []
    for iteration in judged:
        found = iteration.certificate or {}
        for said, name in ((found["miss_rate"], charts.CHOSEN), (found.get("audit") or {}, charts.OF_BEFORE)):
            values = {key: 100 * said[key] for key in _RATE if said.get(key) is not None}
            if len(values) == len(_RATE):
                rows.append({"iteration": iteration.index, "threshold": name} | values)
    return rows


def _table(judged: Sequence[Iteration]) -> Table:
    return Table(
        caption="The certificate of every iteration",
        headers=(
            "iteration", "holds", "accepted share", "asked risk", "estimate", "miss rate", "95 % interval",
            "accepted controls", "wrong of these", "controls", "wrong", "without label", "candidates", "threshold",
            "controls needed", "threshold of before", "error over doubt", "changed",
        ),
        rows=[_row(iteration) for iteration in judged],
        note="Asked risk: the guarantee, the expected share of accepted structures whose force error exceeds the "
        "tolerance is at most this. Estimate: (k + 1) / (n + 1) of the n controls, k of them wrong and accepted, over "
        "the accepted share; it is held against the risk, and is no bound of its own. Controls: structures drawn at "
        "random; those that got no label count as wrong. Controls needed: so "
        "many would suffice if no further one were wrong. Threshold: on the score of the driving method; a dash where "
        "it differs by sampler or nothing is accepted. Threshold of before: what that of the iteration before missed "
        "on these new labels. Error over doubt: a force error over the doubt claimed for it, in the iteration before "
        "and in this one. Changed: whether that ratio or the scores have grown by more than 15 % and more than chance; "
        "cautious: the ratio has fallen by as much, which is no harm.",
    )  # fmt: skip


def _row(iteration: Iteration) -> tuple[str, ...]:
    found = iteration.certificate or {}
    miss, needed = found["miss_rate"], found["labels_needed"]
    return (
        str(iteration.index),
        "yes" if found["holds"] else "no",
        percent(found["accepted_fraction"]),
        setting(found["risk"]),
        percent(found["bound"]) if found["accepted_fraction"] else MISSING,
        percent(miss["value"]),
        _interval(miss),
        f"{miss['n_accepted']:,}",
        MISSING if found.get("n_accepted_bad") is None else f"{found['n_accepted_bad']:,}",
        f"{found['n_control']:,}",
        f"{found['n_bad']:,}",
        f"{found.get('n_control_failed') or 0:,}",
        f"{found['n_pool']:,}",
        number(found["threshold"]),
        MISSING if needed is None else f"{needed:,}",
        *_audit_and_drift(found),
    )


def _audit_and_drift(found: Mapping[str, Any]) -> tuple[str, str, str]:
    audit, drift = found.get("audit"), found.get("drift")
    missed = MISSING
    if audit and audit.get("n_accepted"):
        missed = f"{audit['missed']} of {audit['n_accepted']} ({_interval(audit)})"
    if not drift:
        return missed, MISSING, MISSING
    changed = "yes" if drift["drifted"] else "cautious" if drift.get("cautious") else "no"
    return (
        missed,
        f"{number(drift.get('ratio_before'), 2)}, {number(drift.get('ratio_now'), 2)}",
        f"{changed} (p {number(drift.get('p_value'), 2)}, scores {number(drift.get('scores_p_value'), 2)})",
    )


def _interval(said: Mapping[str, Any]) -> str:
    if said.get("low") is None or said.get("high") is None:
        return MISSING
    return f"{percent(said['low'])} to {percent(said['high'])}"


def _strata(judged: Sequence[Iteration]) -> Table | None:
    """Return the certificates by sampler, where there is more than one."""
    rows = [
        (
            str(part["name"]),
            str(iteration.index),
            "yes" if part["holds"] else "no",
            percent(part["accepted_fraction"]),
            percent(part["bound"]) if part["accepted_fraction"] else MISSING,
            f"{part['n_control']:,}",
            f"{part['n_bad']:,}",
            f"{part['n_pool']:,}",
            number(part["threshold"]),
        )
        for iteration in reversed(judged)
        for part in (iteration.certificate or {}).get("strata", ())
        if len((iteration.certificate or {})["strata"]) > 1
    ]
    if not rows:
        return None
    return Table(
        caption="The same by sampler, latest first",
        headers=(
            "sampler", "iteration", "holds", "accepted share", "estimate", "controls", "wrong", "candidates",
            "threshold",
        ),
        rows=rows,
        note="Each sampler's candidates are judged by their own control structures where there are enough of them.",
    )  # fmt: skip
