"""How often, and of how many atoms, structures are drawn again, so that comparing takes seconds; and drawn values kept.

A statistic of N atoms costs a sort of them. All methods are drawn the same structures (one seed), so that the interval
of a difference follows from the drawn values of both: see :func:`dubito.metrics.bootstrap.paired_difference`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.core.random import generator
from dubito.metrics.bootstrap import MIN_DEFINED, structure_interval
from dubito.reporting.evaluated import Evaluated

Array = NDArray[Any]
NAN = float("nan")
# Above, structures are drawn at random: thousands tell methods apart as well as all.
MOST_ATOMS = 20_000
# Atoms times resamples, of one statistic.
_WORK = 2_000_000


def thinned(part: Evaluated, seed: int, most_atoms: int = MOST_ATOMS) -> Evaluated:
    """Return structures drawn at random, in their order, with at most ``most_atoms`` atoms; all where they fit."""
    n_atoms = part.structures.n_atoms
    if int(n_atoms.sum()) <= most_atoms:
        return part
    order = generator(seed, "bakeoff-structures").permutation(len(part))
    within = np.cumsum(n_atoms[order]) <= most_atoms
    return part.take(np.sort(order[within]))


def n_resamples(n_atoms: int, most: int, least: int = 100) -> int:
    """Return how often to draw: ``most`` times, fewer of many atoms, never less than ``least``."""
    return int(np.clip(_WORK // max(1, n_atoms), least, most))


def drawn(
    measure: Callable[..., float], arrays: tuple[Array, ...], structure: Array, seed: int, most: int
) -> tuple[float, Array]:
    """Return a statistic of all atoms, and of each resample of structures."""
    values: list[float] = []

    def record(*rows: Array) -> float:
        values.append(measure(*rows))
        return values[-1]

    # Its first value is of the data themselves.
    structure_interval(record, *arrays, structure=structure, seed=seed, n_resamples=n_resamples(len(structure), most))
    return values[0], np.array(values[1:])


def interval(value: float, values: Array, level: float) -> dict[str, float]:
    """Return a value with its percentile interval; NaN where most resamples have none."""
    known = values[~np.isnan(values)]
    if len(known) < MIN_DEFINED * len(values):
        return {"value": value, "low": NAN, "high": NAN}
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return {"value": value, "low": float(low), "high": float(high)}
