"""What more labels are worth: forecast, labels and core-hours to the target, gain per label, what limits the error.

Forecasts reach to twice the labels of the last point: a floor is invisible before it is reached, and beyond that any
number is a scenario (measured in docs/planning.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.core.random import generator
from dubito.planning.curve import MIN_POINTS, Curve, fit_curve, quantiles
from dubito.planning.points import Point

Array = NDArray[Any]
Json = dict[str, Any]

REACH = 2.0
_NAMES = "q10", "q50", "q90"
_STEPS = 9
# Train error above this share of the error on held-out structures of the same kind: labels are not what is missing.
TRAINING_LIMITED = 0.6
# Within so many times the labels the tolerance may be kept soon, or at all: what confirms a certificate that held once,
# and what a campaign lacks that is called stalled. Chosen on other simulated campaigns than those published.
SOON, AT_ALL = 1.5, 4.0
# One-sided 90 % of a normal law.
_SURE = 1.2816


@dataclass(frozen=True)
class Ahead:
    """What lies before the campaign.

    Attributes
    ----------
    labels : known to the present model
    batch : labels of an iteration
    most : labels known at the end of the campaign, if budget and iterations are used up; None: no end is set
    target : error to reach, eV/Å; None: nothing tells
    tolerable : error at which the tolerance would be kept, eV/Å; None: nothing tells
    core_hours : from the labels at the target to core-hours; None: nothing is measured
    draw_target : what the target may be, for each draw of a curve, eV/Å; None: it is known
    """

    labels: int
    batch: int
    most: int | None = None
    target: float | None = None
    target_from: str | None = None
    tolerable: float | None = None
    core_hours: Callable[[float], float] | None = None
    core_hours_per_label: float | None = None
    draw_target: Callable[[Curve, np.random.Generator], Array] | None = None


def fit_points(points: Sequence[Point], seed: int) -> Curve | None:
    """Return the posterior of the curve through points, None where they are too few; seeded by the last of them."""
    if len(points) < MIN_POINTS:
        return None
    rng = generator(seed, "learning_curve", points[-1].iteration)
    return fit_curve([p.labels for p in points], [p.error for p in points], [p.relative_sd for p in points], rng)


def make_plan(points: Sequence[Point], kind: str, ahead: Ahead, ratio: tuple[float, float] | None, price: float,
              seed: int) -> Json | None:  # fmt: skip
    """Return the plan after the last point as ``decision.json`` holds it, None where there are fewer than three.

    Parameters
    ----------
    kind : which error the points are of
    ratio : train error over that of held-out structures of the same kind, and the standard deviation of its logarithm
    price : gain per 100 labels (percent) below which they are not worth it
    """
    curve = fit_points(points, seed)
    if curve is None:
        return None
    rng, reach = generator(seed, "forecast", points[-1].iteration), REACH * curve.last
    sd = usual_sd(points)
    places = np.unique(np.geomspace(curve.last, reach, _STEPS).round().astype(int))
    gain = gain_percent(curve, ahead)
    targets = _targets(curve, ahead, generator(seed, "target", points[-1].iteration))
    to_target = None if targets is None else curve.labels_to(targets)
    return {
        "error_kind": kind,
        "points": [point.to_json() for point in points],
        "target_ev_per_angstrom": ahead.target,
        "target_from": ahead.target_from if ahead.target is not None else None,
        "target_interval_ev_per_angstrom": _named(targets) if isinstance(targets, np.ndarray) else None,
        "forecast": [{"labels": int(n), **_named(curve.measured(n, sd, rng))} for n in places],
        **_target(to_target, reach, ahead),
        "tolerable_error_ev_per_angstrom": ahead.tolerable,
        "probability_tolerable_soon": _chance_within(curve, ahead.tolerable, SOON),
        "probability_tolerable_at_all": _chance_within(curve, ahead.tolerable, AT_ALL),
        "core_hours_per_label": ahead.core_hours_per_label,
        "gain_percent_per_100_labels": _named(gain),
        "price_percent_per_100_labels": price,
        "probability_of_5_percent": chance_of(curve, ahead, 0.05),
        "exponent": _named(curve.exponent),
        "limited_by": limited_by(ratio),
        "train_test_ratio": None if ratio is None else ratio[0],
        "past_forecasts": past_forecasts(points, seed),
    }


def _targets(curve: Curve, ahead: Ahead, rng: np.random.Generator) -> float | Array | None:
    """Return the target, draws of it where it is only estimated, or None."""
    if ahead.target is None or ahead.draw_target is None:
        return ahead.target
    return ahead.draw_target(curve, rng)


def gain_percent(curve: Curve, ahead: Ahead) -> Array:
    """Return by how much (percent) 100 more labels lower the error, (d,): at the rate of those within reach."""
    step = max(1.0, min(100.0, REACH * curve.last - ahead.labels))
    left = curve.error(ahead.labels + step) / curve.error(ahead.labels)
    out: Array = 100 * (1 - left ** (100 / step))
    return out


def chance_of(curve: Curve, ahead: Ahead, share: float) -> float:
    """Return the probability that the next batch lowers the error by at least ``share``."""
    left = curve.error(ahead.labels + ahead.batch) / curve.error(ahead.labels)
    return float(np.mean(left <= 1 - share))


def _chance_within(curve: Curve, error: float | None, times: float) -> float | None:
    """Return the probability that an error is reached within so many times the labels of the last point.

    The tolerable error is taken as its best estimate: so the limits of the stop rule were chosen.
    """
    return None if error is None else float(np.mean(curve.labels_to(error) <= times * curve.last))


def limited_by(ratio: tuple[float, float] | None) -> str:
    """Say whether labels are what the model lacks.

    A model that errs as much on what it was trained on as elsewhere has learnt all that its labels teach: it lacks
    training or size ("training"). ``unknown`` while the sampling error of the ratio leaves it open.
    """
    if ratio is None or ratio[0] <= 0:
        return "unknown"
    distance, doubt = math.log(ratio[0] / TRAINING_LIMITED), _SURE * ratio[1]
    if distance - doubt > 0:
        return "training"
    return "data" if distance + doubt < 0 else "unknown"


def past_forecasts(points: Sequence[Point], seed: int) -> list[Json]:
    """Return what would have been forecast at each earlier point for the later ones within reach, and what came."""
    found = []
    for made in range(MIN_POINTS, len(points)):
        known = points[:made]
        curve = fit_points(known, seed)
        if curve is None:
            continue
        rng = generator(seed, "backtest", known[-1].iteration)
        for later in points[made:]:
            if later.labels > REACH * curve.last:
                continue
            said = _named(curve.measured(later.labels, usual_sd(known), rng))
            inside = said["q10"] <= later.error <= said["q90"]
            where = {"made_at_iteration": known[-1].iteration, "labels": later.labels}
            found.append(where | said | {"realised": later.error, "inside": inside})
    return found


def usual_sd(points: Sequence[Point]) -> float:
    """Return the relative sampling error to expect of the next point: the median of those so far."""
    return float(np.median([point.relative_sd for point in points]))


def _target(labels: Array | None, reach: float, ahead: Ahead) -> Json:
    """Return the keys about the target; a number beyond reach is None."""
    nothing: Json = {
        "labels_to_target": dict.fromkeys(_NAMES),
        "probability_unreachable": None,
        "probability_by_budget": None,
        "core_hours_to_target": None,
    }
    if labels is None:
        return nothing
    found = [value if value <= reach else None for value in quantiles(labels)]
    by_budget = None
    if ahead.most is not None and ahead.most <= reach:
        by_budget = float(np.mean(labels <= ahead.most))
    hours = None
    if ahead.core_hours is not None:
        cost = ahead.core_hours
        hours = dict(zip(_NAMES, (None if n is None else cost(n) for n in found), strict=True))
    return {
        "labels_to_target": dict(zip(_NAMES, (None if n is None else math.ceil(n) for n in found), strict=True)),
        "probability_unreachable": float(np.mean(np.isinf(labels))),
        "probability_by_budget": by_budget,
        "core_hours_to_target": hours,
    }


def _named(values: Array) -> dict[str, float]:
    return dict(zip(_NAMES, quantiles(values), strict=True))


def training_ratio(
    errors: Mapping[str, Any], value: Callable[[Mapping[str, Any]], float]
) -> tuple[float, float] | None:
    """Return train over validation error of one model, and the standard deviation of its logarithm.

    Validation structures are a random share of what was selected, so that both are of the same kind; a test set or the
    pool may be easier or harder than what was selected, whatever limits the model.

    Parameters
    ----------
    errors : of the sets of one iteration
    value : from the errors of a set to their relative sampling error
    """
    train, valid = errors.get("train"), errors.get("valid")
    if not train or not valid:
        return None
    name = "force_rmse_ev_per_angstrom"
    sizes = [of.get(name) for of in (train, valid)]
    if not all(isinstance(size, int | float) and math.isfinite(size) and size > 0 for size in sizes):
        return None
    return float(sizes[0]) / float(sizes[1]), math.hypot(value(train), value(valid))
