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
# So many candidates say what the median distance is.
_SAMPLE = 1000


def vectors(pool: Pool) -> tuple[Array, Array]:
    """Return the candidates (n, d) in the order of their ids, and the known structures (m, d), float64."""
    rows = pool.by_id()
    if pool.features is not None:
        points = np.asarray(pool.features, "f8")[rows]
        known = pool.known_features
        return points, np.zeros((0, points.shape[1])) if known is None else np.asarray(known, "f8")
    return _nystroem(pool.fingerprints, rows, pool.known_fingerprints)


def _nystroem(prints: Fingerprints, rows: Array, known: Fingerprints | None) -> tuple[Array, Array]:
    """Return the points of fingerprints, taken in the order ``rows``, and of known ones."""
    # A pool's fingerprints may be large: they are looked at in place, one column of distances at a time.
    landmarks, distances = _landmarks(lambda i: prints.to_one(prints, int(rows[i]))[rows], len(rows))
    if not landmarks:
        return np.zeros((0, 1)), np.zeros((0 if known is None else len(known), 1))
    others = np.zeros((0 if known is None else len(known), len(landmarks)))
    if known is not None:
        for column, i in enumerate(landmarks):
            others[:, column] = known.to_one(prints, int(rows[i]))
    some = distances[:: max(1, len(rows) // _SAMPLE)]
    finite = some[np.isfinite(some) & (some > 0)]
    length = float(np.median(finite)) if len(finite) else 1.0
    kernel, of_others = _gaussian(distances, length), _gaussian(others, length)
    values, basis = np.linalg.eigh(kernel[landmarks])
    kept = values > _SMALLEST * values[-1]
    root = basis[:, kept] / np.sqrt(values[kept])
    return kernel @ root, of_others @ root


def _landmarks(distances_to: Callable[[int], Array], n: int) -> tuple[list[int], Array]:
    """Return r landmarks by farthest-first traversal, and the distances (n, r) of all to each."""
    nearest, found, columns = np.full(n, np.inf), list[int](), np.zeros((n, min(n, N_LANDMARKS)))
    for column in range(columns.shape[1]):
        best = int(np.argmax(nearest))
        if nearest[best] <= 0:
            break
        columns[:, column] = distances_to(best)
        # Rounding leaves a structure at some distance from itself.
        columns[best, column] = 0.0
        np.minimum(nearest, columns[:, column], out=nearest)
        found.append(best)
    return found, columns[:, : len(found)]


def _gaussian(distances: Array, length: float) -> Array:
    """Return the kernel in the place of the distances."""
    distances /= length
    np.square(distances, out=distances)
    distances *= -0.5
    return np.exp(distances, out=distances)
