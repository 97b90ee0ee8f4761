"""Largest-cluster maximum distance: representative and diverse at once.

Holzmüller, Zaverkin, Kästner and Steinwart 2023 (JMLR 24:164, https://arxiv.org/abs/2203.09410), in the
mode "TP": known structures and the batch so far are centres; every candidate belongs to its nearest centre; the size of
a cluster is the sum of the squared distances to its centre; the next one is the farthest candidate of the largest
cluster. Where there is no centre yet, the candidate of the longest feature vector comes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from dubito.selection.base import Pool
from dubito.selection.centers import nearest_centers
from dubito.selection.vectors import vectors


class LargestClusterMaximumDistance:
    """The farthest candidate of the largest cluster around what is known (LCMD-TP)."""

    name: ClassVar[str] = "lcmd"
    reason: ClassVar[str] = "representative"

    def order(self, pool: Pool, rng: np.random.Generator) -> Iterator[int]:
        """See :class:`dubito.selection.base.Selector`."""
        if not len(pool):
            return
        rows = pool.by_id()
        points, known = vectors(pool)
        n_centers, left = len(known), np.ones(len(points), bool)
        squares, center = nearest_centers(points, known)
        for _ in range(len(points)):
            if n_centers:
                sizes = np.bincount(center[left], weights=squares[left], minlength=n_centers)
                # A cluster whose members coincide with its centre has no size, but may be all that is left.
                occupied = np.bincount(center[left], minlength=n_centers) > 0
                largest = int(np.argmax(np.where(occupied, sizes, -1.0)))
                best = int(np.argmax(np.where(left & (center == largest), squares, -1.0)))
            else:
                best = int(np.argmax(np.einsum("ij,ij->i", points, points)))
            left[best] = False
            yield int(rows[best])
            to_new = np.sum((points - points[best]) ** 2, axis=1)
            closer = to_new < squares
            squares[closer], center[closer] = to_new[closer], n_centers
            n_centers += 1
