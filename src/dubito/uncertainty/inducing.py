"""Where sparse Gaussian processes look: inducing points, and a first lengthscale.

Drawing inducing points at random over all atoms gives nearly all of them to the commonest environments; here every
element gets its share and is covered by k-means, and the atom nearest to each center is taken, so that each inducing
point is an environment that occurs. The first lengthscale is the mean distance of atoms *within* an environment, not
across environments (Wollschläger et al. 2023, https://arxiv.org/abs/2306.14916).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.core.random import generator
from dubito.uncertainty.standardiser import checked_features

Array = NDArray[Any]
# Atoms that k-means and distances look at; more are drawn from at random.
MAX_ATOMS = 20000
MAX_PAIRS = 500
ATOMS_PER_CLUSTER = 8
LLOYD_STEPS = 30


def choose_inducing(features: Array, species: Array, n: int, seed: int) -> Array:
    """Choose inducing points spread over elements and environments.

    Each element's share grows with the square root of its number of atoms: rare elements are not left out, common
    ones, which have more environments, get more. Within an element: k-means, then the atoms nearest to the centers.

    Parameters
    ----------
    features : (N, d), standardised
    species : (N,) element of each atom, any integers
    n : points wanted; fewer come back where there are fewer distinct atoms

    Returns
    -------
    (m, d) float64 distinct rows of ``features``, m <= n, grouped by element.

    Raises
    ------
    DataError
        When there is no atom, or features are not finite.
    """
    features, species = checked_features(features), np.asarray(species)
    rng = generator(seed, "inducing")
    clouds = [np.unique(_at_most(features[species == z], MAX_ATOMS, rng), axis=0) for z in np.unique(species)]
    quota = _shares(np.array([len(cloud) for cloud in clouds]), n)
    chosen = [cloud[_representatives(cloud, k, rng)] for cloud, k in zip(clouds, quota, strict=True)]
    # Two elements may share a row exactly, as in a model that has not learnt to tell them apart.
    out = np.concatenate(chosen)
    _, first = np.unique(out, axis=0, return_index=True)
    return out[np.sort(first)]


def random_inducing(features: Array, n: int, seed: int) -> Array:
    """Draw inducing points (m, d) from all atoms alike: what :func:`choose_inducing` is compared with."""
    distinct = np.unique(checked_features(features), axis=0)
    return _at_most(distinct, n, generator(seed, "inducing", "random"))


def initial_lengthscale(features: Array, species: Array, inducing: Array) -> float:
    """Return the mean distance between two atoms of one environment.

    An environment is a cluster of an element's atoms about an inducing point. Where there are hardly fewer points than
    atoms only some of the points count, or each cluster would be a single atom.

    Parameters
    ----------
    features : (N, d), standardised
    species : (N,) element of each atom
    inducing : (m, d)
    """
    features, species = checked_features(features), np.asarray(species)
    rng = generator(0, "lengthscale")
    inducing = inducing[:: max(1, -(-len(inducing) * ATOMS_PER_CLUSTER // len(features)))]
    means, weights = [], []
    for z in np.unique(species):
        cloud = _at_most(features[species == z], MAX_ATOMS, rng)
        nearest = _squared_distances(cloud, inducing).argmin(axis=1)
        for cluster in np.unique(nearest):
            some = _at_most(cloud[nearest == cluster], MAX_PAIRS, rng)
            if len(some) > 1:
                distance = np.sqrt(_squared_distances(some, some))
                means.append(distance.sum() / (len(some) * (len(some) - 1)))
                weights.append(float(np.sum(nearest == cluster)))
    mean = float(np.average(means, weights=weights)) if means else 0.0
    return mean if mean > 0 else float(np.sqrt(features.shape[1]))


def _at_most(rows: Array, n: int, rng: np.random.Generator) -> Array:
    return rows if len(rows) <= n else rows[np.sort(rng.choice(len(rows), n, replace=False))]


def _squared_distances(a: Array, b: Array) -> Array:
    out: Array = np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T, 0.0)
    return out


def _shares(counts: Array, n: int) -> Array:
    """Return how many of ``n`` points each element gets: by the square root of its count, never more than it has."""
    share = np.minimum(1, counts)
    while share.sum() < min(n, counts.sum()):
        # The next point goes where the share is furthest behind; elements that are used up are out of the running.
        behind = np.where(share < counts, np.sqrt(counts) / share, -np.inf)
        share[int(behind.argmax())] += 1
    return share


def _representatives(cloud: Array, k: int, rng: np.random.Generator) -> Array:
    """Return indices of ``k`` distinct rows nearest to the centers of k-means (k-means++ start, Lloyd's steps)."""
    if k >= len(cloud):
        return np.arange(len(cloud))
    chosen = [int(rng.integers(len(cloud)))]
    nearest = _squared_distances(cloud, cloud[chosen])[:, 0]
    while len(chosen) < k:
        # Rows are distinct, but rounding may leave no distance: then any row that was not chosen.
        nearest[chosen] = 0.0
        weight = nearest if nearest.sum() > 0 else np.isin(np.arange(len(cloud)), chosen, invert=True).astype(float)
        chosen.append(int(rng.choice(len(cloud), p=weight / weight.sum())))
        nearest = np.minimum(nearest, _squared_distances(cloud, cloud[chosen[-1:]])[:, 0])
    centers, before = cloud[chosen], None
    for _ in range(LLOYD_STEPS):
        owner = _squared_distances(cloud, centers).argmin(axis=1)
        if before is not None and np.array_equal(owner, before):
            break
        before, count = owner, np.bincount(owner, minlength=k)
        total = np.zeros_like(centers)
        np.add.at(total, owner, cloud)
        centers = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], centers)
    out = []
    distance = _squared_distances(cloud, centers)
    for center in range(k):
        row = int(distance[:, center].argmin())
        out.append(row)
        distance[row] = np.inf
    return np.sort(out)
