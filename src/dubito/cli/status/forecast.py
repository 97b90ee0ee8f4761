"""What the rest of the campaign will cost, from what it has cost so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Any

from dubito.cli.status.jobs import LABEL, TRAIN
from dubito.cli.status.labels import Labels
from dubito.cli.status.timeline import StageCost, Timeline, is_over, running
from dubito.cli.status.values import amount, mapping, number, whole

# These grow with the number of labels; all others are taken as constant.
_GROWING = (TRAIN, "fit_uncertainty", "predict_structures")
# Without one of these a forecast lacks most of the cost, which has to be said.
_MAIN = ("explore_structures", LABEL, TRAIN)


@dataclass(frozen=True)
class Forecast:
    """The rest, at most: campaigns may be certified sooner.

    ``deviation`` is the largest relative error of this reckoning for the clock time of an iteration that is over;
    ``not_measured`` names stages that will cost something nobody knows yet.
    """

    iterations_left: int
    labels_left: int
    cpu_hours: float
    gpu_hours: float
    dft_cpu_hours: float
    wall_hours: float
    batch_wall_hours: float
    based_on_iterations: int
    deviation: float | None
    not_measured: list[str]


@dataclass(frozen=True)
class Line:
    """A straight line through measured points: ``value = intercept + slope * x``."""

    slope: float
    intercept: float

    def at(self, x: float) -> float:
        """Return its value, never below zero."""
        return max(0.0, self.intercept + self.slope * x)


def fit(points: Sequence[tuple[float, float]], *, grows: bool) -> Line | None:
    """Return a line through points that outliers don't move.

    What does not grow is the median. Else, from three different x on, the medians of slopes and intercepts
    (Theil-Sen, https://doi.org/10.1007/978-94-011-2546-8_20), with no slope below zero; of fewer, proportional to x.
    """
    if not points:
        return None
    if not grows:
        return Line(0.0, median(y for _, y in points))
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2) if a[0] != b[0]]
    if len({x for x, _ in points}) >= 3:
        slope = max(0.0, median(slopes))
        return Line(slope, median(y - slope * x for x, y in points))
    shares = [y / x for x, y in points if x > 0]
    return Line(median(shares), 0.0) if shares else Line(0.0, median(y for _, y in points))


class _Reckoning:
    """The measured medians of a campaign."""

    def __init__(self, timeline: Timeline, labels: Labels) -> None:
        self.timeline, self.labels = timeline, labels
        self.label_cpu_s = self._of_label(lambda row: row.cpu_s)
        self.label_gpu_s = self._of_label(lambda row: row.gpu_s)
        self.label_wall_s = self._of_label(lambda row: row.wall_s)
        self.places_now, self.places = self._places()
        self.stages = sorted({stage for by_stage in timeline.stages.values() for stage in by_stage} - {LABEL})
        self.cpu = {stage: self._stage(stage, lambda row: row.cpu_s) for stage in self.stages}
        self.gpu = {stage: self._stage(stage, lambda row: row.gpu_s) for stage in self.stages}
        self.phase = {name: self._phase(name) for name in ("before", "between", "training", "after")}

    def tried(self, k: int) -> int:
        """Return how many structures of a batch have a label or a failure."""
        batch = self.labels.batch
        if batch is not None and batch.iteration == k:
            return batch.done + batch.failed
        return self.labels.selected.get(k, 0)

    def dataset(self, k: int) -> float:
        """Return how many labels iteration ``k`` trains on."""
        batch = self.labels.batch
        if batch is not None and batch.iteration == k:
            return self.labels.total + batch.left
        return self.labels.dataset.get(k, self.labels.total)

    def _of_label(self, value: Callable[[StageCost], float]) -> float | None:
        rows = ((self.tried(k), stages.get(LABEL)) for k, stages in self.timeline.stages.items())
        rates = [value(row) / tried for tried, row in rows if tried and row is not None]
        return median(rates) if rates else None

    def _places(self) -> tuple[float, float]:
        """Return how many labelling jobs run side by side: now (as they did, when none runs), and in a whole batch."""
        now = max((len(running(stages.get(LABEL))) for stages in self.timeline.stages.values()), default=0)
        found = [
            stages[LABEL].wall_s / phase.seconds
            for k, stages in self.timeline.stages.items()
            if LABEL in stages and (phase := self.timeline.phases[k].get("labelling")) and phase.seconds > 0
        ]
        usual = max(1.0, median(found)) if found else 1.0
        # At the end of a batch fewer run than could.
        return now or usual, max(now, usual)

    def _stage(self, stage: str, value: Callable[[StageCost], float]) -> Line | None:
        rows = self.timeline.stages.items()
        points = [(self.dataset(k), value(s[stage])) for k, s in rows if stage in s and is_over(s, stage)]
        return fit(points, grows=stage in _GROWING)

    def _phase(self, name: str) -> Line | None:
        # The first iteration has nothing to explore: its first phase is another.
        points = [
            (self.dataset(k), phases[name].seconds)
            for k, phases in self.timeline.phases.items()
            if name in phases and phases[name].is_over and (k > 0 or name != "before")
        ]
        return fit(points, grows=name == "training")

    def wall_s(self, new: float, total: float) -> dict[str, float]:
        """Return the clock time of the phases of an iteration with ``new`` labels of ``total``."""
        lines = {name: line.at(total) for name, line in self.phase.items() if line is not None}
        return lines | {"labelling": new * (self.label_wall_s or 0.0) / self.places}

    def cpu_s(self, new: float, total: float) -> float:
        """Return the processor time of such an iteration."""
        return new * (self.label_cpu_s or 0.0) + _sum(self.cpu, total)

    def gpu_s(self, new: float, total: float) -> float:
        """Return the GPU time of such an iteration."""
        return new * (self.label_gpu_s or 0.0) + _sum(self.gpu, total)


def _sum(lines: Mapping[str, Line | None], x: float) -> float:
    return sum(line.at(x) for line in lines.values() if line is not None)


def forecast_of(
    timeline: Timeline, labels: Labels, config: Mapping[str, Any], epochs: tuple[int, int] | None = None
) -> Forecast | None:
    """Return the forecast, None when nothing is measured or nothing known of how far the campaign goes.

    Parameters
    ----------
    epochs : how far a running training is, and of how many
    """
    last = whole(mapping(config.get("campaign")).get("max_iterations"))
    measured = _Reckoning(timeline, labels)
    if last is None or (measured.label_wall_s is None and measured.phase["training"] is None):
        return None
    current = max(timeline.stages)
    cpu = gpu = wall = batch_wall = dft = 0.0
    left, total = 0, float(labels.total)
    budget = None if labels.max_labels is None else max(0, labels.max_labels - labels.spent)
    size, first = _batch_size(labels, config), current
    if current in timeline.decided:
        first += 1
    elif labels.batch is not None and labels.batch.iteration == current:
        left, first = labels.batch.left, first + 1
        total += left
        cpu, gpu, wall, batch_wall = _rest(measured, current, left, total, epochs)
    elif current in labels.selected:
        first += 1
        cpu, gpu, wall, batch_wall = _rest(measured, current, 0, total, epochs)
    dft = left * (measured.label_cpu_s or 0.0)
    iterations = int(current not in timeline.decided and first > current)
    for k in range(first, last + 1):
        new = size if budget is None else min(size, budget)
        if new <= 0:
            break
        budget = None if budget is None else budget - new
        left, total, iterations = left + new, total + new, iterations + 1
        row = timeline.stages.get(k, {})
        cpu += max(0.0, measured.cpu_s(new, total) - sum(stage.cpu_s for stage in row.values()))
        gpu += max(0.0, measured.gpu_s(new, total) - sum(stage.gpu_s for stage in row.values()))
        done = sum(phase.seconds for phase in timeline.phases.get(k, {}).values())
        wall += max(0.0, sum(measured.wall_s(new, total).values()) - done)
        dft += new * (measured.label_cpu_s or 0.0)
    over = [k for k in timeline.decided if measured.tried(k)]
    return Forecast(
        iterations, left, cpu / 3600, gpu / 3600, dft / 3600, wall / 3600, batch_wall / 3600, len(over),
        _deviation(measured, over), _not_measured(measured) if iterations else [],
    )  # fmt: skip


def _rest(
    measured: _Reckoning, k: int, left: int, total: float, epochs: tuple[int, int] | None
) -> tuple[float, float, float, float]:
    """Return processor, GPU and clock time left of an iteration whose batch is selected, and the clock time of that."""
    stages, phases = measured.timeline.stages[k], measured.timeline.phases[k]
    cpu = left * (measured.label_cpu_s or 0.0)
    gpu = left * (measured.label_gpu_s or 0.0)
    # A training that is the first is measured by its own epochs.
    more = (epochs[1] - epochs[0]) / epochs[0] if epochs is not None and 0 < epochs[0] <= epochs[1] else 0.0
    for stage in measured.stages:
        row = stages.get(stage, StageCost())
        if is_over(stages, stage):
            continue
        for lines, spent_s in ((measured.cpu, row.cpu_s), (measured.gpu, row.gpu_s)):
            line = lines[stage]
            rest = max(0.0, line.at(total) - spent_s) if line is not None else more * spent_s * (stage == TRAIN)
            cpu, gpu = (cpu + rest, gpu) if lines is measured.cpu else (cpu, gpu + rest)
    batch_wall = left * (measured.label_wall_s or 0.0) / measured.places_now
    wall = batch_wall
    for name, line in measured.phase.items():
        phase = phases.get(name)
        if name == "before" or (phase is not None and phase.is_over):
            continue
        done = 0.0 if phase is None else phase.seconds
        wall += max(0.0, line.at(total) - done) if line is not None else more * done * (name == "training")
    return cpu, gpu, wall, batch_wall


def _batch_size(labels: Labels, config: Mapping[str, Any]) -> int:
    """Return how many structures a batch has: as so far, else as the configuration asks."""
    found = [n for k, n in labels.selected.items() if k > 0]
    if found:
        return round(median(found))
    selection = mapping(config.get("selection"))
    n_select = amount(selection.get("n_select"))
    share = n_select * amount(selection.get("control_fraction"))
    least = amount(selection.get("min_control_labels"))
    return int(n_select + (max(1, least, round(share)) if share > 0 else 0))


def _deviation(measured: _Reckoning, over: Sequence[int]) -> float | None:
    """Return the largest relative error of the reckoning for an iteration that is over; None for fewer than two."""
    if len(over) < 2:
        return None
    errors = []
    for k in over:
        was = {name: phase.seconds for name, phase in measured.timeline.phases[k].items()}
        said = measured.wall_s(measured.tried(k), measured.dataset(k))
        names = [name for name in was if name in said and (k > 0 or name != "before")]
        actual = sum(was[name] for name in names)
        if actual > 0:
            errors.append(abs(sum(said[name] for name in names) - actual) / actual)
    return number(max(errors, default=None))


def _not_measured(measured: _Reckoning) -> list[str]:
    known = {LABEL} if measured.label_wall_s is not None else set()
    known |= {stage for stage, line in measured.cpu.items() if line is not None}
    return [stage for stage in _MAIN if stage not in known]
