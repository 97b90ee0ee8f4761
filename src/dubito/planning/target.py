"""The error at which the tolerance would be kept: the best estimate, and draws that say how sure it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.planning.curve import Curve
from dubito.planning.points import Point

Array = NDArray[Any]

_SLICES = 3
# The tail beyond the largest multiple is as steep as that above the largest fifth, of at least two structures.
_TAIL, _FEWEST = 0.2, 2
# Stands for an error that is no number: larger than any, and still finite, so that it can be interpolated.
_ENDLESS = 600.0


@dataclass(frozen=True)
class WorstErrors:
    """Worst force errors of the latest control structures, (n,), each with the model that was judged.

    Attributes
    ----------
    worst : eV/Å; infinite where it is no number
    error : force RMSE of the model, eV/Å
    labels : known to the model
    of_slice : number of the control slice, from 0
    """

    worst: Array
    error: Array
    labels: Array
    of_slice: Array

    def best(self, tolerance: float, risk: float) -> float | None:
        """Return the error at which all but ``risk`` of the structures would keep the tolerance; None: nothing tells.

        If errors shrink alike, the worst force error of structures stays the same multiple of the RMSE of their model;
        the ``1 - risk`` quantile of that multiple is taken over the control structures.

        Parameters
        ----------
        tolerance : largest force error of an atom that counts as right, eV/Å
        """
        n = len(self.worst)
        multiple = float(np.sort(self.worst / self.error)[min(n - 1, math.ceil((1 - risk) * n) - 1)])
        return tolerance / multiple if math.isfinite(multiple) and multiple > 0 else None

    def draws(self, curve: Curve, rng: np.random.Generator, tolerance: float, risk: float) -> Array:
        """Return what that error may be, (d,) eV/Å, one for each draw of the curve.

        A few dozen structures leave their ``1 - risk`` quantile open. Which share of all structures lies below each of
        them follows the law of uniform order statistics, whatever the law of the multiples (as in the Bayesian
        bootstrap of Rubin 1981, https://doi.org/10.1214/aos/1176345338); the quantile is interpolated between them,
        and beyond the largest of them follows a power-law tail (Hill 1975, https://doi.org/10.1214/aos/1176343247):
        with 20 structures it lies there in a third of all cases at a risk of 5 %. The multiples are of what each draw
        of the curve says of the models, not of their own noisy RMSE.
        """
        d, n = len(curve.level), len(self.worst)
        with np.errstate(divide="ignore"):
            logs = np.clip(np.log(self.worst), -_ENDLESS, _ENDLESS)
        models, which = np.unique(self.of_slice, return_inverse=True)
        labels = [float(self.labels[self.of_slice == model][0]) for model in models]
        # Single models lie off the curve, and all structures of a slice with theirs.
        own = curve.discrepancy[:, None] * rng.standard_normal((d, len(models)))
        of_model = np.stack([np.log(curve.error(known)) for known in labels], axis=1) + own
        rows = np.sort(logs - of_model[:, which], axis=1)
        # -log of the share above each structure: spacings of exponentials (Rényi 1953).
        steps = rng.standard_exponential((d, n)) / np.arange(n, 0, -1)
        depth, wanted = np.cumsum(steps, axis=1), -math.log(risk)
        above = np.clip((depth < wanted).sum(1), 1, n - 1) if n > 1 else np.zeros(d, int)
        i = np.arange(d)
        low, high = np.maximum(above - 1, 0), above
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(high > low, (wanted - depth[i, low]) / (depth[i, high] - depth[i, low]), 0.0)
        between = rows[i, low] + np.clip(share, 0, 1) * (rows[i, high] - rows[i, low])
        beyond = np.maximum(wanted - depth[:, -1], 0) * _steepness(rows)
        out: Array = tolerance * np.exp(-np.clip(between + beyond, -_ENDLESS, _ENDLESS))
        return out


def worst_errors(history: Sequence[Mapping[str, Any]], points: Sequence[Point]) -> WorstErrors | None:
    """Return the worst force errors of the three latest control slices whose model is a point; None: there are none."""
    point_of = {point.model: point for point in points}
    rows: list[tuple[float, float, int, int]] = []
    slices = 0
    for position in range(len(history) - 1, 0, -1):
        worst = history[position].get("errors", {}).get("control", {}).get("worst_force_errors")
        point = point_of.get(position - 1)
        if not worst or point is None:
            continue
        rows += [(math.inf if value is None else float(value), point.error, point.labels, slices) for value in worst]
        slices += 1
        if slices == _SLICES:
            break
    if not rows:
        return None
    worst_, error, labels, of_slice = (np.asarray(column) for column in zip(*rows, strict=True))
    return WorstErrors(worst_, error, labels, of_slice)


def _steepness(rows: Array) -> Array:
    """Return the mean excess of the largest logs of each row, (d,); zero where there are too few."""
    n = rows.shape[1]
    k = min(n - 1, max(_FEWEST, math.ceil(_TAIL * n)))
    if k < 1:
        return np.zeros(len(rows))
    out: Array = (rows[:, n - k :] - rows[:, n - k - 1, None]).mean(1)
    return out
