"""Learning curves with a known truth, and the straight line in logs that the planner has to beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

FAMILIES = ("power", "floor", "broken")
# Of one training: between seeds, and of the structures it is measured on. The planner is told the latter alone.
SEED_SD, SAMPLING_SD = 0.03, 0.04
NOISE = float(np.hypot(SEED_SD, SAMPLING_SD))


@dataclass(frozen=True)
class Truth:
    """A true curve: from labels to the error, eV/Å."""

    family: str
    error: Callable[[Any], Any]

    def labels_to(self, target: float) -> float:
        """Return where the curve is at ``target``, infinite where it never is."""
        grid = np.geomspace(1, 1e7, 40001)
        below = np.flatnonzero(self.error(grid) <= target)
        return float(grid[below[0]]) if below.size else float("inf")

    def gain(self, labels: float) -> float:
        """Return by how much (percent) 100 more labels lower the error."""
        return float(100 * (1 - self.error(labels + 100.0) / self.error(labels)))


def draw_truth(family: str, rng: np.random.Generator, around: float = 300.0) -> Truth:
    """Return a curve of a family; ``around``: labels near which floors and bends lie."""
    scale, b = rng.uniform(0.05, 0.3), rng.uniform(0.2, 1.0)
    if family == "power":
        return Truth(family, lambda n: scale * (np.asarray(n) / around) ** -b)
    if family == "floor":
        share = rng.uniform(0.1, 0.7)
        return Truth(family, lambda n: scale * ((1 - share) * (np.asarray(n) / around) ** -b + share))
    bend, later = around * np.exp(rng.uniform(np.log(0.3), np.log(1.7))), b * rng.uniform(0.3, 0.9)
    # A smoothly broken power law (Caballero et al. 2022, https://arxiv.org/abs/2210.14891): b before, later after.
    smooth = 0.2

    def broken(n: Any) -> Any:
        x = np.asarray(n) / bend
        return scale * x**-b * (1 + x ** (1 / smooth)) ** ((b - later) * smooth)

    return Truth(family, broken)


def measure(truth: Truth, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return measured errors."""
    return truth.error(labels) * np.exp(NOISE * rng.standard_normal(len(labels)))


@dataclass(frozen=True)
class Line:
    """Least squares of log error on log labels, with the usual normal theory: draws of intercept, slope and noise."""

    intercept: np.ndarray
    slope: np.ndarray
    sd: np.ndarray

    def measured(self, labels: float, rng: np.random.Generator) -> np.ndarray:
        """Return what would be measured, in draws."""
        noise = self.sd * rng.standard_normal(len(self.sd))
        return np.exp(self.intercept + self.slope * np.log(labels) + noise)

    def labels_to(self, target: float) -> np.ndarray:
        """Return the labels at the target, in draws."""
        with np.errstate(over="ignore", divide="ignore"):
            labels = np.exp(np.clip((np.log(target) - self.intercept) / self.slope, -50, 50))
        return np.where(self.slope < 0, labels, np.inf)


def fit_line(labels: np.ndarray, errors: np.ndarray, rng: np.random.Generator, draws: int = 4000) -> Line:
    """Return the law of a straight line through the points."""
    x = np.stack([np.ones(len(labels)), np.log(labels)], axis=1)
    inverse = np.linalg.inv(x.T @ x)
    best = inverse @ x.T @ np.log(errors)
    freedom = len(labels) - 2
    square = np.sum((np.log(errors) - x @ best) ** 2)
    sd = np.sqrt(square / rng.chisquare(freedom, draws))
    moves = rng.standard_normal((draws, 2)) @ np.linalg.cholesky(inverse).T
    found = best + sd[:, None] * moves
    return Line(found[:, 0], found[:, 1], sd)
