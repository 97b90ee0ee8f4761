"""Clouds of points: what parity plots and plots of error against uncertainty share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.reporting import charts
from dubito.reporting.words import count

Array = NDArray[Any]
Pair = tuple[Array, Array]
"""Both coordinates of the points of one set, (n,) each."""


def finite(x: Array, y: Array) -> Pair:
    """Leave out points with a coordinate that is not a number."""
    keep = np.isfinite(x) & np.isfinite(y)
    return x[keep], y[keep]


def pooled(sets: Mapping[str, Pair]) -> Pair:
    """Return the points of all sets together."""
    return np.concatenate([x for x, _ in sets.values()]), np.concatenate([y for _, y in sets.values()])


def rows(sets: Mapping[str, Pair], x_name: str, y_name: str) -> list[dict[str, Any]]:
    """Return one row per point; four significant digits are finer than a screen and halve the page."""
    return [
        {x_name: float(f"{a:.4g}"), y_name: float(f"{b:.4g}"), "set": charts.SETS[name][0]}
        for name, (x, y) in sets.items()
        for a, b in zip(x, y, strict=True)
    ]


def how_many(sets: Mapping[str, Pair]) -> int:
    """Return the number of points of all sets."""
    return sum(len(x) for x, _ in sets.values())


def in_words(sets: Mapping[str, Sequence[Any]], word: str) -> str:
    """Say how many points each set has."""
    return ", ".join(f"{set_word(name)} {count(len(pair[0]), word)}" for name, pair in sets.items())


def set_word(name: str) -> str:
    """Return a set's name in one word, e.g. 'validation'."""
    return charts.SETS[name][0].split(",")[0]
