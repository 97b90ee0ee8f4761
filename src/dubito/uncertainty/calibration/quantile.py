"""Conformalised quantile regression: a bound that rises with the doubt and holds with a stated probability.

The quantile of the error's size given the doubt is a rising, piecewise linear function, fitted by the pinball loss
(Koenker & Bassett 1978, https://doi.org/10.2307/1913643) as a linear program, on half of the structures; the other half
shifts it by the conformal quantile of what it misses by (Romano, Patterson & Candès 2019, arXiv:1905.03222), grouped by
structure as in :mod:`dubito.uncertainty.calibration.conformal`. The first half may be anything: the guarantee comes
from the second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import eye_array, hstack

from dubito.core.errors import DataError, ModelError
from dubito.core.random import generator
from dubito.uncertainty.calibration.conformal import Per, checked_level, conformal_quantile, structures_needed
from dubito.uncertainty.calibration.sample import checked_raw

Array = NDArray[Any]
# Pieces end at these quantiles of the doubt; the last one goes on.
BREAKS = (0.5, 0.8, 0.95)
# A linear program of so many atoms takes about a second.
MAX_ATOMS = 5000
# Stands for an infinite doubt: no slope turns it into NaN.
FAR = 1e300


@dataclass(frozen=True)
class RisingLine:
    """A rising, piecewise linear function.

    Attributes
    ----------
    breaks : (K,) where pieces begin, rising; the first begins at the first
    level : the value at the first break
    slopes : (K,) of the pieces, none negative; the first and last go on without end
    """

    breaks: Array
    level: float
    slopes: Array

    def __call__(self, x: Array) -> Array:
        """Return the values at x (N,)."""
        out: Array = self.level + _ramps(np.clip(x, -FAR, FAR), self.breaks) @ self.slopes
        return out


def _ramps(x: Array, breaks: Array) -> Array:
    """Return (N, K): how much of each piece lies below x."""
    ends = np.append(breaks[1:], np.inf)
    parts = np.clip(x[:, None], breaks, ends) - breaks
    parts[:, 0] += np.minimum(x - breaks[0], 0)
    out: Array = parts
    return out


def fit_quantile(x: Array, y: Array, level: float) -> RisingLine:
    """Fit the rising line below which ``y`` (N,) lies with probability ``level`` given ``x`` (N,): pinball loss.

    Raises
    ------
    DataError
        When there is nothing to fit to.
    ModelError
        When the linear program finds no optimum.
    """
    checked_level(level)
    x, y = np.asarray(x, "f8"), np.asarray(y, "f8")
    finite = np.isfinite(x)
    x, y = x[finite], y[finite]
    if not len(x):
        raise DataError("A quantile can't be fitted without atoms of finite doubt; give more calibration structures.")
    breaks = np.unique(np.concatenate([[x.min()], np.quantile(x, BREAKS)]))
    # Units that make the program well conditioned whatever those of doubt and error.
    width, unit = float(np.ptp(x)) or 1.0, float(np.mean(np.abs(y))) or 1.0
    design = _ramps((x - breaks[0]) / width, (breaks - breaks[0]) / width)
    n, k = design.shape
    both = hstack([np.column_stack([np.ones(n), design]), eye_array(n), -eye_array(n)], format="csr")
    cost = np.concatenate([np.zeros(k + 1), np.full(n, level), np.full(n, 1 - level)])
    bounds = [(None, None)] + [(0, None)] * (k + 2 * n)
    found = linprog(cost, A_eq=both, b_eq=y / unit, bounds=bounds, method="highs")
    if found.status != 0:
        raise ModelError(f"Quantile regression of {n} errors failed ({found.message}). Look for extreme errors.")
    return RisingLine(breaks, unit * float(found.x[0]), unit / width * found.x[1 : k + 1])


@dataclass(frozen=True)
class ConformalQuantile:
    """A bound of the size of errors, rising with the doubt; holds with probability at least ``level``.

    Attributes
    ----------
    line : the quantile fitted on the first part of the structures
    shift : added to it, in the unit of the errors; infinite where the second part has too few structures
    n_structures, n_needed : in the second part, and the fewest for a finite bound
    """

    line: RisingLine
    shift: float
    level: float
    per: Per
    n_structures: int
    n_needed: int

    def __call__(self, doubt: Array) -> Array:
        """Return bounds (N,) in the unit of the errors, none negative; infinite for infinite doubt.

        Raises
        ------
        ModelError
            When doubt is NaN.
        """
        x = checked_raw(doubt, is_sigma=False)
        out: Array = np.maximum(self.line(x) + self.shift, 0.0)
        return np.where(x == np.inf, np.inf, out)


def fit_conformal_quantile(
    doubt: Array, sizes: Array, ptr: Array | None, level: float, *, seed: int, per: Per = "structure"
) -> ConformalQuantile:
    """Fit the line on half of the structures, drawn at random, and conformalise it on the other half.

    Parameters
    ----------
    doubt : (N,) standard deviations or scores
    sizes : (N,) sizes of errors; the unit of the bound
    ptr : (n + 1,) bounds of structures; None where each value is a structure of its own
    level : probability of the bound, such as 0.95
    seed : of the division

    Raises
    ------
    DataError
        When shapes don't match, there are fewer than two structures, or the level is no probability.
    ModelError
        When doubt is NaN.
    """
    x, y = checked_raw(doubt, is_sigma=False), np.asarray(sizes, "f8")
    bounds = np.arange(len(x) + 1) if ptr is None else np.asarray(ptr)
    n = len(bounds) - 1
    if x.shape != y.shape or n < 2 or bounds[-1] != len(x):
        raise DataError(
            f"Doubt of shape {x.shape} and errors of shape {y.shape} in {n} structures can't be used, expected (N,) "
            "both, in two structures or more that hold all atoms."
        )
    random = generator(seed, "conformal quantile")
    order = random.permutation(n)
    parts = [_atoms(np.sort(some), bounds) for some in (order[: n // 2], order[n // 2 :])]
    fit, rest = parts[0][0], parts[1][0]
    fit = fit if len(fit) <= MAX_ATOMS else np.sort(random.choice(fit, MAX_ATOMS, replace=False))
    line = fit_quantile(x[fit], y[fit], level)
    missed = y[rest] - line(x[rest])
    # Infinite doubt bounds anything.
    missed[x[rest] == np.inf] = -math.inf
    shift = conformal_quantile(missed, parts[1][1], level, per)
    return ConformalQuantile(line, shift, level, per, n - n // 2, structures_needed(level))


def _atoms(structures: Array, ptr: Array) -> tuple[Array, Array]:
    """Return the atoms of some structures, and their bounds."""
    sizes = np.diff(ptr)[structures]
    atoms = np.concatenate([np.arange(ptr[i], ptr[i + 1]) for i in structures]) if len(structures) else np.zeros(0, int)
    return atoms, np.concatenate([[0], np.cumsum(sizes)])
