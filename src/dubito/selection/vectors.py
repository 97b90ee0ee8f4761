"""Candidates and known structures as points of one Euclidean space, whatever diversity is measured with.

Features are such points already. Fingerprints are not: structures of different formulas have no finite distance.
They become points through the Gaussian kernel ``k(x, y) = exp(-d(x, y)^2 / (2 l^2))`` of their rms difference ``d``,
which is 0 between formulas, and its Nyström features ``K(x, Z) K(Z, Z)^(-1/2)`` (Williams and Seeger 2001, NeurIPS 13,
"Using the Nyström method to speed up kernel machines") with at most 64 landmarks ``Z`` found by farthest-first
traversal. The length ``l`` is the median distance to the landmarks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dubito.data.fingerprints import Fingerprints
from dubito.data.structures import Array
from dubito.selection.base import Pool

N_LANDMARKS = 64
# Eigenvalues of the landmarks' kernel below this share of the largest are rounding.
_SMALLEST = 1e-8


def vectors(pool: Pool) -> tuple[Array, Array]:
    """Return the candidates (n, d) in the order of their ids, and the known structures (m, d), float64."""
    rows = pool.by_id()
    if pool.features is not None:
        points = np.asarray(pool.features, "f8")[rows]
        known = pool.known_features
        return points, np.zeros((0, points.shape[1])) if known is None else np.asarray(known, "f8")
    return _nystroem(pool.fingerprints.take(rows), pool.known_fingerprints)


def _nystroem(prints: Fingerprints, known: Fingerprints | None) -> tuple[Array, Array]:
    landmarks, columns = _landmarks(lambda i: prints.to_one(prints, i), len(prints))
    if not landmarks:
        return np.zeros((0, 1)), np.zeros((0 if known is None else len(known), 1))
    of_known = [np.zeros(0) if known is None else known.to_one(prints, i) for i in landmarks]
    distances, others = np.stack(columns, axis=1), np.stack(of_known, axis=1)
    finite = distances[np.isfinite(distances) & (distances > 0)]
    length = float(np.median(finite)) if len(finite) else 1.0
    kernel, of_others = _gaussian(distances, length), _gaussian(others, length)
    values, basis = np.linalg.eigh(kernel[landmarks])
    kept = values > _SMALLEST * values[-1]
    root = basis[:, kept] / np.sqrt(values[kept])
    return kernel @ root, of_others @ root


def _landmarks(distances_to: Callable[[int], Array], n: int) -> tuple[list[int], list[Array]]:
    """Return landmarks by farthest-first traversal, and the distances of all to each."""
    nearest, found, columns = np.full(n, np.inf), list[int](), list[Array]()
    for _ in range(min(n, N_LANDMARKS)):
        best = int(np.argmax(nearest))
        if nearest[best] <= 0:
            break
        found.append(best)
        columns.append(distances_to(best))
        # Rounding leaves a structure at some distance from itself.
        columns[-1][best] = 0.0
        np.minimum(nearest, columns[-1], out=nearest)
    return found, columns


def _gaussian(distances: Array, length: float) -> Array:
    out: Array = np.exp(-0.5 * (distances / length) ** 2)
    return out
