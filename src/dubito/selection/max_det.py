"""Greedy determinant of the posterior kernel: the batch whose labels would tell the most.

With a linear model on features ``phi`` and noise of variance ``s^2``, what the known structures leave open has the
covariance ``S = (Phi^T Phi / s^2 + I)^(-1)``; the candidate with the largest posterior variance ``phi^T S phi`` raises
the determinant of the batch's kernel the most, and is taken for known from then on (rank-one update of Sherman and
Morrison). This is greedy D-optimal design, pivoted Cholesky, greedy BatchBALD and MaxDet of Holzmüller et al. 2023
(https://arxiv.org/abs/2203.09410, section 5.2.2); for interatomic potentials: Zaverkin et al. 2022,
https://doi.org/10.1039/D2DD00034B.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from dubito.data.structures import Array
from dubito.selection.base import Pool
from dubito.selection.vectors import vectors

NOISE = 1e-3
"""Variance of the noise, in units of the mean squared length of the features."""


class MaxDet:
    """The candidate of the largest posterior variance, given all labelled and chosen ones."""

    name: ClassVar[str] = "max_det"
    reason: ClassVar[str] = "informative"

    def order(self, pool: Pool, rng: np.random.Generator) -> Iterator[int]:
        """See :class:`dubito.selection.base.Selector`."""
        if not len(pool):
            return
        rows = pool.by_id()
        points, known = vectors(pool)
        scale = np.sqrt(np.mean(np.einsum("ij,ij->i", points, points))) or 1.0
        points, covariance = points / scale, posterior(known / scale)
        variance = np.einsum("ij,ij->i", points @ covariance, points)
        left = np.ones(len(points), bool)
        for _ in range(len(points)):
            best = int(np.argmax(np.where(left, variance, -np.inf)))
            left[best] = False
            yield int(rows[best])
            gain = covariance @ points[best]
            total = NOISE + float(points[best] @ gain)
            covariance = covariance - np.outer(gain, gain) / total
            variance = variance - (points @ gain) ** 2 / total


def posterior(known: Array) -> Array:
    """Return the covariance (d, d) of the weights after the known features (m, d), with a unit prior."""
    width = known.shape[1]
    out: Array = np.linalg.inv(known.T @ known / NOISE + np.eye(width))
    return out
