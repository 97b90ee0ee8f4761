"""Many points as counts in a grid: what is drawn where a scatter plot would be a blot."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def grid_counts(x: Array, y: Array, edges: Array) -> list[dict[str, float]]:
    """Count points in the squares of one grid used for both axes; empty squares are left out.

    Parameters
    ----------
    x, y : (n,)
    edges : (m + 1,) increasing

    Returns
    -------
    Rows ``x0, x1, y0, y1, n``.
    """
    counts, _, _ = np.histogram2d(x, y, bins=[edges, edges])
    return [
        {
            "x0": float(edges[i]),
            "x1": float(edges[i + 1]),
            "y0": float(edges[j]),
            "y1": float(edges[j + 1]),
            "n": float(counts[i, j]),
        }
        for i, j in np.argwhere(counts > 0)
    ]


def linear_edges(*values: Array, n: int = 60) -> Array:
    """Return ``n + 1`` evenly spaced edges around all values."""
    low, high = span(*values)
    return np.linspace(low, high, n + 1)


def decade_edges(*values: Array, per_decade: int = 12) -> Array:
    """Return logarithmically spaced edges over whole decades around all (positive) values."""
    low, high = decades(*values)
    return np.logspace(low, high, (high - low) * per_decade + 1)


def span(*values: Array) -> tuple[float, float]:
    """Return the range of all values with a margin of 4 % on either side."""
    joined = np.concatenate([np.ravel(v) for v in values])
    low, high = float(joined.min()), float(joined.max())
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin


def decades(*values: Array) -> tuple[int, int]:
    """Return the exponents of the powers of ten around all (positive) values."""
    joined = np.concatenate([np.ravel(v) for v in values])
    low, high = int(np.floor(np.log10(joined.min()))), int(np.ceil(np.log10(joined.max())))
    return low, max(high, low + 1)
