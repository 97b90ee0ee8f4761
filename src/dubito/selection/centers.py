"""Which known structure each candidate is nearest to."""

from __future__ import annotations

import numpy as np

from dubito.data.structures import Array

# Candidates compared with all centers at a time, times their number: 32 MB.
_BLOCK = 4_000_000


def nearest_centers(points: Array, centers: Array) -> tuple[Array, Array]:
    """Return the squared distance (n,) of points (n, d) to the nearest of the centers (m, d), and which it is, (n,).

    Infinite and 0 where there is no center.
    """
    squares, which = np.full(len(points), np.inf), np.zeros(len(points), "i8")
    if not len(centers):
        return squares, which
    lengths = np.einsum("ij,ij->i", centers, centers)
    step = max(1, _BLOCK // len(centers))
    for start in range(0, len(points), step):
        block = points[start : start + step]
        nearest = np.argmin(lengths - 2 * (block @ centers.T), axis=1)
        which[start : start + step] = nearest
        # Differences, not the expanded square, which loses what is close.
        squares[start : start + step] = np.sum((block - centers[nearest]) ** 2, axis=1)
    return squares, which
