"""What has moved between two control slices, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dubito.reporting.collect import Iteration
from dubito.reporting.words import count, number


def drift_words(iteration: Iteration) -> str:
    """Warn of a threshold that must not be carried over; empty where nothing has grown.

    That a bound no longer holds is said only where fresh labels show it: where more than the risk is wrong with 95 %
    confidence of what the threshold before accepts.
    """
    found = iteration.certificate or {}
    drift = found.get("drift")
    if not drift or not drift["drifted"]:
        return ""
    by_ratio, by_scores = (drift[key] for key in ("p_value", "scores_p_value"))
    if by_ratio is None or (by_scores is not None and by_scores < by_ratio):
        change = f"exploring finds what is doubted more than anything then (p = {number(by_scores, 2)})"
    elif drift["ratio_now"] > drift["ratio_before"]:
        change = f"{_ratios(drift)} (p = {number(by_ratio, 2)})"
    else:
        return ""  # an older dubito called it drift that errors had become smaller
    earlier, audit = _earlier(iteration), found.get("audit") or {}
    new = f"iteration {iteration.index} has a bound of its own, made anew"
    if (audit.get("low") or 0.0) > found["risk"]:
        return f"The bound of iteration {earlier} no longer holds: {change}; {_missed(audit)}. Do not use it; {new}."
    seen = f" So far fresh labels don't show it: {_missed(audit)}." if audit.get("n_accepted") else ""
    return f"Do not carry the threshold of iteration {earlier} over: {change}.{seen} {new[0].upper()}{new[1:]}."


def milder_words(iteration: Iteration) -> str:
    """Say that errors have fallen against the doubt claimed for them, or what of drift was not tested."""
    found = iteration.certificate or {}
    drift = found.get("drift") or {}
    said = []
    has_fallen = bool(drift.get("drifted")) and not drift_words(iteration)
    if drift.get("cautious") or has_fallen:
        said.append(
            f"The model has become more cautious: {_ratios(drift)}. The threshold of iteration {_earlier(iteration)} "
            "accepts less than it could; that is no harm."
        )
    return " ".join([*said, found.get("drift_note") or ""]).strip()


def _ratios(drift: Mapping[str, Any]) -> str:
    return (
        f"a force error was {number(drift['ratio_before'], 2)} times the doubt claimed for it then, and is "
        f"{number(drift['ratio_now'], 2)} times now"
    )


def _missed(audit: Mapping[str, Any]) -> str:
    judged = count(audit["n_accepted"], "fresh control structure")
    return f"of {judged} that it accepts {audit['missed']:,} {'is' if audit['missed'] == 1 else 'are'} wrong"


def _earlier(iteration: Iteration) -> int:
    audit = (iteration.certificate or {}).get("audit") or {}
    return int(audit.get("threshold_of_iteration", iteration.index - 1))
