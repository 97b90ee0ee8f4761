"""The points of a learning curve: the error of each model, and how many labels it knew."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

FORCE_RMSE = "force_rmse_ev_per_angstrom"
# Squared errors of structures vary about as much as their mean where nothing was measured, and few structures
# measure their own variation badly: the guess counts like so many structures.
_USUAL_VARIATION, _GUESS_COUNTS = 1.0, 5
_MODEL_BEFORE: Final = frozenset({"control"})


@dataclass(frozen=True)
class Point:
    """The force error (RMSE by component, eV/Å) of a model that knew ``labels``; ``model`` is its iteration."""

    iteration: int
    labels: int
    error: float
    relative_sd: float
    model: int

    def to_json(self) -> dict[str, float | int]:
        """Return what ``decision.json`` holds of it."""
        return {
            "iteration": self.iteration,
            "labels": self.labels,
            "error_ev_per_angstrom": self.error,
            "relative_sd": self.relative_sd,
        }


def known_labels(metrics: Mapping[str, Any]) -> int:
    """Return the labels that the model of an iteration knew: its control slice is learnt in the next one."""
    labels = metrics["labels"]
    return int(labels["total"]) - int(labels.get("control") or 0)


def error_kind(history: Sequence[Mapping[str, Any]]) -> str:
    """Return which error is followed: of a fixed test set, else of the control slices, else of validation.

    A test set is the same for all models. Control slices are fresh and random, of the pool of their iteration.
    Validation structures were selected for their doubt and stop the training: the last resort.
    """
    errors = [metrics.get("errors", {}) for metrics in history]
    if errors and "test" in errors[-1]:
        return "test"
    return "control" if any("control" in of for of in errors) else "valid"


def points_of(history: Sequence[Mapping[str, Any]], kind: str) -> list[Point]:
    """Return the points of one kind of error, by iteration; errors that are no positive numbers are left out.

    A control slice is judged by the model of the iteration before, which chose it.
    """
    found = []
    for position, metrics in enumerate(history):
        model = position - 1 if kind in _MODEL_BEFORE else position
        errors = metrics.get("errors", {}).get(kind)
        if model < 0 or errors is None:
            continue
        labels, value = known_labels(history[model]), _positive(errors.get(FORCE_RMSE))
        if value is not None and labels > 0:
            found.append(Point(int(metrics["iteration"]), labels, value, relative_sd(errors), model))
    return found


def relative_sd(errors: Mapping[str, Any]) -> float:
    """Return the relative sampling error of a force RMSE over ``n`` structures.

    Of a mean square ``m`` of structures whose squares have the coefficient of variation ``v``,
    ``sd(log sqrt m) = v / (2 sqrt n)``. The measured ``v`` is drawn towards a usual one, the more the fewer structures.
    """
    n = max(1, int(errors.get("n_structures") or 1))
    measured = errors.get("force_rmse_relative_sd")
    square = _USUAL_VARIATION**2
    if isinstance(measured, int | float) and math.isfinite(measured) and n > 1:
        square = (n * (2 * measured) ** 2 * n + _GUESS_COUNTS * square) / (n + _GUESS_COUNTS)
    return math.sqrt(square / n) / 2


def _positive(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
        return None
    return float(value)
