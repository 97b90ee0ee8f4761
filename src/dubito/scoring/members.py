"""The prediction of all members from that of the first and that of the others, so that none is evaluated twice."""

from __future__ import annotations

import numpy as np

from dubito.data.prediction import Array


def joined(first: Array, others: Array, deviation: Array, n_members: int) -> tuple[Array, Array]:
    """Return mean and sum of squared deviations of all members.

    Parameters
    ----------
    first : of the first member; others, deviation : mean and standard deviation (ddof = 1) of the ``n_members - 1``
        others

    Notes
    -----
    Chan, Golub & LeVeque 1983, https://doi.org/10.1080/00031305.1983.10483115.
    """
    m = n_members
    mean: Array = (first + (m - 1) * others) / m
    squares: Array = max(0, m - 2) * deviation**2 + (m - 1) / m * (first - others) ** 2
    return mean, squares


def joined_forces(first: Array, others: Array, deviation: Array, n_members: int) -> tuple[Array, Array]:
    """Return the mean force (N, 3) and the standard deviation of a component (N,), pooled over the three.

    ``deviation`` (N,) is that of the others, pooled likewise.
    """
    mean, squares = joined(first, others, deviation[:, None], n_members)
    return mean, np.sqrt(squares.mean(axis=1) / (n_members - 1))
