"""When labels are no longer worth their price, and when they no longer help at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dubito.planning.points import Point

ITERATIONS = 3
CHANCE = 0.1
EVERYTHING = 100.0


def is_below_price(plan: Mapping[str, Any] | None, price: float) -> bool | None:
    """Return whether 100 more labels are expected to lower the error by less than they should; None: nothing tells.

    Parameters
    ----------
    price : ``planning.worth_percent_per_100_labels``; no gain reaches 100 percent, so that 100 needs no plan
    """
    if price >= EVERYTHING:
        return True
    return None if plan is None else bool(plan["gain_percent_per_100_labels"]["q50"] < price)


def may_be_tolerable(plan: Mapping[str, Any] | None) -> bool:
    """Return whether the learning curve gives the tolerance a chance of 10 % to be kept soon, if not already."""
    return plan is not None and (plan.get("probability_tolerable_soon") or 0.0) >= CHANCE


def has_not_fallen(points: Sequence[Point]) -> bool:
    """Return whether the error of the last three points is no lower than that before them, beyond its sampling error.

    Errors are compared as the mean of their logarithms; fewer than four points tell nothing.
    """
    if len(points) <= ITERATIONS:
        return False
    before, last = points[-1 - ITERATIONS], points[-ITERATIONS:]
    fall = math.log(before.error / usual_error(last))
    sd = math.hypot(before.relative_sd, math.sqrt(sum(point.relative_sd**2 for point in last)) / ITERATIONS)
    return fall <= sd


def usual_error(points: Sequence[Point]) -> float:
    """Return the geometric mean of the errors, eV/Å."""
    return math.exp(sum(math.log(point.error) for point in points) / len(points))


def why_stalled(points: Sequence[Point], plan: Mapping[str, Any] | None) -> str | None:
    """Return what stalls the campaign: "training", "data", or None where it goes on or nothing tells.

    Stalled: the error has not fallen for three iterations, and either training is the limit or there is hardly a
    chance that the next batch lowers it by 5 %. Not where the user's target is reached, or has a chance of 10 % within
    reach of the forecast, nor where the tolerance has one to be kept within four times the labels: noisy points hide a
    slow fall, and a certificate may only want another control slice.
    """
    if plan is None or not has_not_fallen(points):
        return None
    # A target taken from the tolerance is asked for next: by its best estimate, and farther.
    if plan["target_from"] == "config" and plan["labels_to_target"]["q10"] is not None:
        return None
    if (plan["probability_tolerable_at_all"] or 0.0) >= CHANCE:
        return None
    if plan["limited_by"] == "training":
        return "training"
    return "data" if plan["probability_of_5_percent"] < CHANCE else None
