"""The box on top: what the campaign has reached, in words, and how far that may be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from dubito.reporting.blocks import Verdict
from dubito.reporting.certificate_limits import certificate_limits
from dubito.reporting.collect import Campaign
from dubito.reporting.drift import drift_words
from dubito.reporting.summary import force_rmse
from dubito.reporting.words import MISSING, count, milli, percent, setting

HEADLINES = {
    "running": "Running",
    "certified": "Certified",
    "budget_spent": "Budget spent",
    "stalled": "Stalled",
    "max_iterations": "All iterations done",
    "paused": "Paused",
}


def verdict(campaign: Campaign) -> Verdict:
    """Compose the verdict of a campaign as it stands."""
    decision = campaign.last.decision
    state = str(decision.get("state", "running"))
    reason = str(decision.get("reason") or f"Iteration {campaign.last.index} is measured; no decision is written yet.")
    return Verdict(
        state=state if state in HEADLINES else "running",
        headline=HEADLINES.get(state, state),
        reason=reason,
        figures=[_labels(campaign), _force(campaign), *_barriers(campaign), *_certificate(campaign)],
        limits=_limits(campaign),
        warnings=[words for words in (drift_words(campaign.last),) if words],
    )


def _labels(campaign: Campaign) -> tuple[str, str, str]:
    failed = sum(iteration.metrics["labels"]["failed"] for iteration in campaign.iterations)
    reused = sum(iteration.metrics["labels"]["reused"] for iteration in campaign.iterations)
    budget = campaign.config.campaign.max_labels
    notes = [f"{failed} failed", f"{reused} reused", f"in {count(len(campaign.iterations), 'iteration')}"]
    value = str(campaign.last.metrics["labels"]["total"])
    return "Labels", value if budget is None else f"{value} of {budget}", ", ".join(notes)


def _force(campaign: Campaign) -> tuple[str, str, str]:
    name, value = force_rmse(campaign)
    if name is None:
        return "Force error", MISSING, "not measured"
    n = campaign.last.metrics["errors"][name]["n_structures"]
    words = {"test": "test", "valid": "validation", "new": "new", "train": "training"}[name]
    return "Force error (RMSE)", f"{milli(value)} meV/Å", f"on {count(n, f'{words} structure')}"


def _barriers(campaign: Campaign) -> list[tuple[str, str, str]]:
    return [
        (
            f"Barrier error, {profile.name}",
            f"{milli(profile.barrier_error, sign=True)} meV",
            f"reference {milli(profile.barrier_reference)} meV"
            + ("" if profile.barrier_uncertainty is None else f", 1σ {milli(profile.barrier_uncertainty)} meV"),
        )
        for profile in campaign.last.profiles
    ]


def _certificate(campaign: Campaign) -> list[tuple[str, str, str]]:
    """Return the share that may be accepted, where there is a certificate, and the miss rate."""
    metrics, found = campaign.last.metrics, campaign.last.certificate
    if found is None:
        return [_miss(metrics["miss_rate"])]
    tolerance = f"force error above {milli(found['tolerance_ev_per_angstrom'])} meV/Å"
    note = f"chosen so that at most {setting(found['risk'])} of them are expected to have a {tolerance}"
    if not found["accepted_fraction"]:
        note = f"no threshold keeps the risk of {setting(found['risk'])} of a {tolerance}"
    return [("Accepted of the pool", percent(found["accepted_fraction"]), note), _miss(metrics["miss_rate"])]


def _miss(miss: Mapping[str, Any]) -> tuple[str, str, str]:
    tolerance = f"force error above {milli(miss['tolerance_ev_per_angstrom'])} meV/Å"
    if not miss["n_accepted"]:
        return "Miss rate", MISSING, f"{tolerance}: no accepted control structure yet"
    interval = f"{percent(miss['low'])} to {percent(miss['high'])}"
    return "Miss rate", percent(miss["value"]), f"{tolerance}; 95 % interval {interval}, n = {miss['n_accepted']}"


def _limits(campaign: Campaign) -> list[str]:
    """Say what the numbers do not show."""
    metrics, config = campaign.last.metrics, campaign.config
    limits = [*certificate_limits(campaign), *_blind(campaign)]
    limits.append(
        f"All of this holds for structures like those that exploring visits ({config.sampling.words}), not for other "
        "compositions or reactions."
    )
    if "test" not in metrics["errors"]:
        limits.append(
            f"There is no independent test set; validation ({count(metrics['labels']['valid'], 'structure')}) was used "
            "to stop training and to scale the uncertainty."
        )
    if config.labelling.labeller.kind == "teacher":
        limits.append(
            "Labels come from an analytic teacher, not from a calculation of electronic structure: a rehearsal."
        )
    return limits


def _blind(campaign: Campaign) -> list[str]:
    """Say where a driver had nothing to rank by, and which methods are missing."""
    limits = []
    drove = {after.index: (after.driver, before) for before, after in pairwise(campaign.iterations)}
    if not campaign.last.decision.get("stop"):
        drove[campaign.last.index + 1] = (campaign.drives, campaign.last)
    for index, (name, fitted) in list(drove.items())[-2:]:
        if fitted.fits.get(name, {}).get("flat"):
            limits.append(
                f"Iteration {index} is driven blind: fitted to the model of iteration {fitted.index}, {name} doubts "
                "all atoms alike, as errors did not rise with its doubt, so selection by it is as good as at random."
            )
    missing = campaign.last.unfitted
    if missing:
        limits.append(f"Could not be fitted in iteration {campaign.last.index}: {', '.join(missing)}; see the reasons.")
    return limits
