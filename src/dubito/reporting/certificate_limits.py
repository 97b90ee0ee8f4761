"""What keeps a campaign from being certified, for the box on top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dubito.metrics.binomial import trials_to_bound
from dubito.reporting.certificate import controls
from dubito.reporting.collect import Campaign
from dubito.reporting.words import count, percent, setting


def certificate_limits(campaign: Campaign) -> list[str]:
    """Return what the certificate does not show, and what it would take; empty where all is shown."""
    is_certified = campaign.last.decision.get("state") == "certified"
    found, miss = campaign.last.certificate, campaign.last.metrics["miss_rate"]
    if found is not None:
        limits = [] if is_certified else _of_certificate(campaign, found)
        return limits + _failed(int(found.get("n_control_failed") or 0), "count as wrong")
    if is_certified:
        limits = []
    elif campaign.config.selection.control_fraction == 0:
        limits = ["Not certified: no structure is drawn at random (selection.control_fraction is 0)."]
    elif miss["n_accepted"]:
        limits = [_of_miss_rate(miss)]
    else:
        limits = [_of_nothing(campaign)]
    return limits + _failed(int(miss.get("n_control_failed") or 0), "can't be judged")


def _of_certificate(campaign: Campaign, found: Mapping[str, Any]) -> list[str]:
    least, risk = campaign.config.selection.min_accepted_fraction, setting(found["risk"])
    if found["holds"]:
        if (found.get("drift") or {}).get("drifted"):
            return ["Not certified: the certificate holds, but errors or scores have grown since the iteration before."]
        since = campaign.last.decision.get("certified_since")
        if since is None or since == campaign.last.index:
            return [
                "Not certified yet: the certificate holds, but has to be confirmed by one in the two iterations before "
                "or by the learning curve, and more labels must not be worth their price."
            ]
        return []
    accepted, n, needed = found["accepted_fraction"], found["n_control"], found["labels_needed"]
    share = f"only {percent(accepted)} of what exploring finds" if accepted else "nothing that exploring finds"
    text = f"Not certified: {share} can be accepted at a risk of {risk}, and {setting(least)} are asked for."
    if needed is None or needed <= n:
        return [text]
    labels = count(needed, "control label")
    if not found["n_bad"]:
        there = f"there {'is' if n == 1 else 'are'} {n:,} (selection.min_control_labels)"
        return [f"{text} It would take {labels} without a single wrong one; {there}."]
    return [
        f"{text} Of {controls(found)} {found['n_bad']:,} {'is' if found['n_bad'] == 1 else 'are'} wrong: it "
        f"takes a better model, or {labels} in which no further one is wrong."
    ]


def _of_miss_rate(miss: Mapping[str, Any]) -> str:
    """Judge the control structures of a dubito that knew no certificate."""
    needed, n = trials_to_bound(miss["risk"]), miss["n_accepted"]
    judged = count(n, "accepted control structure")
    if n < needed:
        return (
            f"Not certified: {judged} {'is' if n == 1 else 'are'} too few to bound the miss rate by "
            f"{percent(miss['risk'])} with 95 % confidence; that takes at least {needed} without a single miss."
        )
    return (
        f"Not certified: {judged} bound the miss rate only by {percent(miss['high'])}, "
        f"above the stated risk of {percent(miss['risk'])}."
    )


def _of_nothing(campaign: Campaign) -> str:
    earlier = [iteration.index for iteration in campaign.iterations if iteration.certificate]
    if earlier:
        return (
            f"Not certified: iteration {campaign.last.index} has no control labels; the latest certificate is that of "
            f"iteration {earlier[-1]}."
        )
    if campaign.last.index == 0:
        return "Not certified: the first control structures are labelled in iteration 1."
    return f"Not certified: no control structure of iteration {campaign.last.index} could be accepted."


def _failed(n: int, fate: str) -> list[str]:
    if not n:
        return []
    fate = fate.replace("count", "counts") if n == 1 and fate.startswith("count") else fate
    return [f"{count(n, 'control structure')} could not be labelled and {fate}."]
