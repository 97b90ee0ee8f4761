"""Whether the certificate lets the campaign end, and what it lacks otherwise; in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dubito.config.planning import PlanningConfig
from dubito.config.selection import SelectionConfig
from dubito.planning.stop import is_below_price

Json = Mapping[str, Any]


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
    is_last: bool,
) -> str | None:
    """Return why the campaign may end with its certificate; None: it may not.

    The certificate held in two iterations in a row, each on a fresh control slice, without drift between them, and
    more labels are not worth their price. Where nothing tells what they are worth (fewer than three points of the
    learning curve), it ends so only where it would end anyway.
    """
    below = is_below_price(plan, planning.worth_percent_per_100_labels)
    if not (_has_held_twice(history) and (below or (below is None and is_last))):
        return None
    found, before, now = history[-1]["certificate"], history[-2]["iteration"], history[-1]["iteration"]
    return (
        f"In iterations {before} and {now} the certificate held on fresh control slices, without drift between them: "
        f"{found['accepted_fraction']:.0%} of the pool are accepted, and of these at most {found['bound']:.1%} are "
        f"expected to have a force error above {selection.force_tolerance_ev_per_angstrom:g} eV/Å "
        f"({found['n_control']} random control structures), within the stated risk of {selection.risk:.1%}; "
        f"{_worth(plan, planning)}."
    )


def lacking(history: Sequence[Json], plan: Json | None, planning: PlanningConfig, selection: SelectionConfig) -> str:
    """Say what keeps the campaign from being certified, or that nothing does but its price."""
    found, now = history[-1]["certificate"], history[-1]["iteration"]
    if not found.get("holds"):
        because = str(found.get("reason") or "").strip()
        return f"The certificate does not hold yet. {because}".strip()
    if _has_drifted(found):
        return "The certificate holds, but the errors have drifted since the iteration before, so it has to hold again."
    if not _has_held_twice(history):
        return f"The certificate holds for the first time in iteration {now}; it has to hold on a fresh slice again."
    return f"The certificate has held since iteration {certified_since(history)}, but {_worth(plan, planning)}."


def _has_held_twice(history: Sequence[Json]) -> bool:
    """Return whether the certificate held in the last two iterations, without drift between them."""
    last = [metrics.get("certificate") or {} for metrics in history[-2:]]
    return len(last) == 2 and all(found.get("holds") for found in last) and not _has_drifted(last[1])


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
