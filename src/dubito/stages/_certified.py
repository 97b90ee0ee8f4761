"""Whether the certificate lets the campaign end, and what it lacks otherwise; in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from dubito.config.planning import PlanningConfig
from dubito.config.selection import SelectionConfig
from dubito.planning.plan import SOON
from dubito.planning.stop import is_below_price, may_be_tolerable
from dubito.reporting.words import setting

Json = Mapping[str, Any]
Looks = Literal["once", "twice", "two_of_three", "agreed"]
# What confirms a certificate, since of many looks one is lucky: nothing; that it held in the iteration before; in one
# of the two before; in one of these or else a learning curve that agrees. Compared in docs/planning.md.
LOOKS: Final[Looks] = "agreed"


def is_by_certificate(metrics: Json) -> bool:
    """Return whether an iteration has a certificate; without control slices, and of old, the miss rate decides."""
    return metrics.get("certificate") is not None


def certified_since(history: Sequence[Json]) -> int | None:
    """Return the first iteration of the run, up to now, in which the certificate has held; None: it does not hold."""
    since = None
    for metrics in reversed(history):
        if not (metrics.get("certificate") or {}).get("holds"):
            break
        since = int(metrics["iteration"])
    return since


def certified(
    history: Sequence[Json],
    plan: Json | None,
    planning: PlanningConfig,
    selection: SelectionConfig,
    *,
    end: str | None = None,
    looks: Looks = LOOKS,
) -> str | None:
    """Return why the campaign may end with its certificate; None: it may not.

    The certificate holds and is confirmed, and more labels are not worth their price, or the campaign ends anyway.

    Parameters
    ----------
    plan : what more labels would bring; None: nothing tells (fewer than three points of the learning curve)
    end : why the campaign ends anyway, in a sentence; None: it does not
    looks : what confirms a certificate
    """
    below = is_below_price(plan, planning.worth_percent_per_100_labels)
    held = _confirmed(history, plan, looks)
    if held is None or not (below or end):
        return None
    found, tolerance = history[-1]["certificate"], selection.force_tolerance_ev_per_angstrom
    return (
        f"{held}: {found['accepted_fraction']:.0%} of the pool are accepted, by a threshold chosen so that at most "
        f"{setting(selection.risk)} of these are expected to have a force error above {tolerance:g} eV/Å "
        f"({found['n_control']} random control structures); "
        f"{_worth(plan, planning)}.{f' {end}' if end and not below else ''}"
    )


def lacking(
    history: Sequence[Json],
    plan: Json | None,
    planning: PlanningConfig,
    selection: SelectionConfig,
    looks: Looks = LOOKS,
) -> str:
    """Say what keeps the campaign from being certified, or that nothing does but its price."""
    found, now = history[-1]["certificate"], history[-1]["iteration"]
    if not found.get("holds"):
        because = str(found.get("reason") or "").strip()
        return f"The certificate does not hold yet. {because}".strip()
    if _has_drifted(found):
        return "The certificate holds, but the errors have drifted since the iteration before, so it has to hold again."
    if _confirmed(history, plan, looks) is None:
        earlier = [(metrics.get("certificate") or {}) for metrics in history[:-1]]
        another = earlier and earlier[-1].get("holds") and not _is_alike(earlier[-1], found)
        first = not any(certificate.get("holds") for certificate in earlier)
        return (
            f"The certificate holds {'for the first time' if first else 'again'} in iteration {now}, "
            f"{'before it held with another uncertainty method, ' if another else ''}"
            "and the learning curve does not confirm it; it has to hold on a fresh slice again."
        )
    return f"The certificate has held since iteration {certified_since(history)}, but {_worth(plan, planning)}."


def _confirmed(history: Sequence[Json], plan: Json | None, looks: Looks) -> str | None:
    """Say in which iterations the certificate held, and what confirms it; None: it does not hold, or nothing does."""
    last, now = history[-1]["certificate"], history[-1]["iteration"]
    if not last.get("holds") or _has_drifted(last):
        return None
    once = f"In iteration {now} the certificate held on a fresh control slice"
    if looks == "once":
        return once
    tested = last.get("drift") is not None
    for metrics in reversed(history[-2 if looks == "twice" else -3 : -1]):
        found = metrics.get("certificate") or {}
        if found.get("holds") and _is_alike(found, last):
            without = ", without drift between them" if tested else f" ({_untested(last)})"
            return (
                f"In iterations {metrics['iteration']} and {now} the certificate held on fresh control slices{without}"
            )
        if _has_drifted(found):
            break
        tested = tested and found.get("drift") is not None
    if plan is None or looks != "agreed" or not may_be_tolerable(plan):
        return None
    error = 1000 * plan["tolerable_error_ev_per_angstrom"]
    return (
        f"{once}, and the learning curve confirms it (a chance of {plan['probability_tolerable_soon']:.0%} that the "
        f"{error:.0f} meV/Å at which the tolerance would be kept are reached within {SOON:g} times the labels)"
    )


def _is_alike(found: Json, other: Json) -> bool:
    """Return whether two certificates are of the same uncertainty method: else the one says nothing of the other."""
    return bool(found.get("method") == other.get("method"))


def _untested(found: Json) -> str:
    """Say that nothing tells whether errors drifted, and why where it is known."""
    text = "whether they drifted between them is not tested"
    note = str(found.get("drift_note") or "").strip().rstrip(".")
    return f"{text}: {note}" if note and found.get("drift") is None else text


def _has_drifted(found: Json) -> bool:
    return bool((found.get("drift") or {}).get("drifted"))


def _worth(plan: Json | None, planning: PlanningConfig) -> str:
    price = planning.worth_percent_per_100_labels
    if plan is None:
        return "what more labels would bring is not known before three points of the learning curve"
    gain = plan["gain_percent_per_100_labels"]["q50"]
    return (
        f"100 more labels are expected to lower the force error by {gain:.1f} %, "
        f"{'less than' if gain < price else 'at least'} the {price:g} % that they should "
        "(planning.worth_percent_per_100_labels)"
    )
