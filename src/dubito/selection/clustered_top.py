"""The most doubtful of each cluster: top-k without neighbours of what is taken already.

The doubtful half is cut into as many clusters as the batch has places (k-means, Lloyd 1982,
https://doi.org/10.1109/TIT.1982.1056489), begun at points found by farthest-first traversal, so that the same pool
gives the same clusters. For interatomic potentials: Zaverkin et al. 2022, https://doi.org/10.1039/D2DD00034B.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from dubito.data.structures import Array
from dubito.selection.base import Pool
from dubito.selection.vectors import vectors

_ITERATIONS = 20


class ClusteredTop:
    """The most doubtful of each cluster, then the second of each, and so on."""

    name: ClassVar[str] = "clustered_top"
    reason: ClassVar[str] = "doubtful_in_cluster"

    def order(self, pool: Pool, rng: np.random.Generator) -> Iterator[int]:
        """See :class:`dubito.selection.base.Selector`."""
        ranked, doubtful = pool.by_score(), pool.doubtful_half()
        if not doubtful:
            return
        place = np.empty(len(pool), "i8")
        place[pool.by_id()] = np.arange(len(pool))
        inside = np.array(doubtful)
        rows = inside[np.argsort(place[inside])]
        points = vectors(pool)[0][place[rows]]
        cluster = np.zeros(len(pool), "i8")
        cluster[rows] = k_means(points, max(1, pool.n_select))
        # Rank within its cluster first; of equal rank the most doubtful first.
        seen: Counter[int] = Counter()
        rank: dict[int, int] = {}
        for i in doubtful:
            rank[i] = seen[int(cluster[i])]
            seen[int(cluster[i])] += 1
        yield from sorted(doubtful, key=lambda i: rank[i])
        yield from ranked[len(doubtful) :]


def k_means(points: Array, n_clusters: int) -> Array:
    """Return the cluster (n,) of each of the points (n, d)."""
    from scipy.cluster.vq import kmeans2

    centers = _spread(points, min(n_clusters, len(points)))
    if len(centers) == len(points):
        return np.arange(len(points))
    with warnings.catch_warnings():
        # An empty cluster keeps its centre, which is no fault here.
        warnings.simplefilter("ignore", UserWarning)
        labels: Array = kmeans2(points, points[centers], iter=_ITERATIONS, minit="matrix", missing="warn")[1]
    return labels


def _spread(points: Array, n: int) -> list[int]:
    """Return n points far from each other, from the one nearest the mean on; fewer where points coincide."""
    found = [int(np.argmin(np.sum((points - points.mean(axis=0)) ** 2, axis=1)))]
    nearest = np.sum((points - points[found[0]]) ** 2, axis=1)
    while len(found) < n:
        best = int(np.argmax(nearest))
        if nearest[best] <= 0:
            break
        found.append(best)
        np.minimum(nearest, np.sum((points - points[best]) ** 2, axis=1), out=nearest)
    return found
