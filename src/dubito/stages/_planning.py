"""From the measurements of a campaign to its plan: error, target, what is left to spend, what that costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from dubito.config.campaign import CampaignConfig
from dubito.config.planning import PlanningConfig
from dubito.config.selection import SelectionConfig
from dubito.planning.plan import Ahead, make_plan, training_ratio
from dubito.planning.points import Point, error_kind, known_labels, points_of, relative_sd
from dubito.planning.target import worst_errors
from dubito.reporting.cost import labelling_cpu_s, stage_costs

Json = Mapping[str, Any]
LABEL, TRAIN = "label_structures", "train_ensemble"


@dataclass(frozen=True)
class Outlook:
    """The points of the learning curve and the plan made from them (None: too few)."""

    points: list[Point]
    plan: dict[str, Any] | None


@dataclass(frozen=True)
class Prices:
    """Measured processor time, s: of a label, of a training per label it trains on, of all else in an iteration."""

    label: float | None = None
    training_per_label: float = 0.0
    other: float = 0.0

    def core_hours(self, now: int, batch: int) -> Callable[[float], float] | None:
        """Return the function from labels to the core-hours to get there, trainings on the way included."""
        if self.label is None:
            return None
        label_s = self.label

        def to(labels: float) -> float:
            missing = max(0.0, labels - now)
            rounds = math.ceil(missing / max(1, batch) - 1e-9)
            trained_on = sum(min(now + k * batch, now + missing) for k in range(1, rounds + 1))
            seconds = missing * label_s + trained_on * self.training_per_label + rounds * self.other
            return seconds / 3600

        return to


def prices(history: Sequence[Json], shard_reports: Sequence[Json], events: Sequence[Json]) -> Prices:
    """Return what labels and iterations have cost: labels by the reports of their shards, all else by finished jobs.

    Failed labels are paid for too, so they make those that were made dearer.
    """
    done = sum(int(report.get("done") or 0) for report in shard_reports)
    label = labelling_cpu_s(shard_reports) / done if done else None
    known = {int(metrics["iteration"]): known_labels(metrics) for metrics in history}
    training, other = [], dict.fromkeys(known, 0.0)
    for cost in stage_costs(events, max(known)):
        if cost.iteration is None or cost.iteration not in known or cost.stage == LABEL:
            continue
        if cost.stage != TRAIN:
            other[cost.iteration] += cost.cpu_s
        elif known[cost.iteration]:
            training.append(cost.cpu_s / known[cost.iteration])
    # The first iteration has nothing to explore or score.
    usual = [seconds for k, seconds in other.items() if k > 0] or list(other.values())
    return Prices(label, median(training) if training else 0.0, median(usual))


def outlook(
    history: Sequence[Json],
    manifests: Sequence[Json],
    campaign: CampaignConfig,
    selection: SelectionConfig,
    planning: PlanningConfig,
    costs: Prices | None = None,
) -> Outlook:
    """Return the plan after the latest iteration.

    Parameters
    ----------
    history, manifests : metrics and selections of all iterations, in order
    """
    kind = error_kind(history)
    points = points_of(history, kind)
    last, costs = history[-1], costs or Prices()
    now, batch = known_labels(last), _batch(manifests, selection)
    target, source = planning.target_force_rmse_ev_per_angstrom, "config"
    worst, limits = worst_errors(history, points), (selection.force_tolerance_ev_per_angstrom, selection.risk)
    tolerable = None if worst is None else worst.best(*limits)
    draw_target = None
    if target is None:
        target, source = tolerable, "certificate"
        if worst is not None:
            draw_target = partial(worst.draws, tolerance=limits[0], risk=limits[1])
    ahead = Ahead(
        labels=now,
        batch=batch,
        most=_most(last, manifests, campaign, batch),
        target=target,
        target_from=source,
        tolerable=tolerable,
        core_hours=costs.core_hours(now, batch),
        core_hours_per_label=None if costs.label is None else costs.label / 3600,
        draw_target=draw_target,
    )
    ratio = training_ratio(last.get("errors", {}), relative_sd)
    price = planning.worth_percent_per_100_labels
    return Outlook(points, make_plan(points, kind, ahead, ratio, price, campaign.seed))


def _batch(manifests: Sequence[Json], selection: SelectionConfig) -> int:
    """Return the labels of an iteration: as in the latest batch, else as the configuration asks."""
    later = [int(plan["n_selected"]) for plan in manifests[1:] if plan["n_selected"]]
    if later:
        return later[-1]
    return selection.batch_size


def _most(last: Json, manifests: Sequence[Json], campaign: CampaignConfig, batch: int) -> int:
    """Return the labels there would be at the end, budget and iterations used up and no label failing."""
    left = max(0, campaign.max_iterations - int(last["iteration"])) * batch
    if campaign.max_labels is not None:
        left = min(left, max(0, campaign.max_labels - sum(int(plan["n_selected"]) for plan in manifests)))
    return int(last["labels"]["total"]) + left
