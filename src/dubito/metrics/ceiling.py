"""How well a perfect uncertainty can rank: far below 1, since an error drawn from a wide distribution may be small.

Given the true standard deviations, errors are drawn and the ranking measures recomputed. A measured Spearman of 0.45
may be close to the best there is, and only the ceiling tells. A finite ensemble is held against its own: it estimates
each standard deviation from few numbers, and ranks worse even if its members are perfect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubito.core.errors import DataError
from dubito.core.random import generator
from dubito.metrics.ranking import auroc, spearman

Array = NDArray[Any]


@dataclass(frozen=True)
class Ceiling:
    """The best to expect.

    Attributes
    ----------
    spearman, auroc : means over the repeats; NaN where undefined (a constant standard deviation ranks nothing)
    spearman_deviation, auroc_deviation : standard deviations of a single set of errors about them (ddof 1)
    n_repeats : sets of errors drawn
    """

    spearman: float
    auroc: float
    spearman_deviation: float
    auroc_deviation: float
    n_repeats: int


def ranking_ceiling(
    sigma: ArrayLike,
    *,
    seed: int,
    dimension: int = 3,
    n_members: int | None = None,
    tolerance: float | None = None,
    event_share: float = 0.05,
    n_repeats: int = 20,
) -> Ceiling:
    """Return Spearman and AUROC of a perfect standard deviation, by simulation.

    Errors are ``e ~ N(0, sigma^2 I)`` of ``dimension`` components, compared by their length. ``sigma`` is taken for
    the truth: if it is itself an estimate, its noise adds to its spread, and the ceiling comes out a little too high.

    Parameters
    ----------
    sigma : (N,) standard deviation of one component
    dimension : 3 for forces, 1 for energies
    n_members : the score is not ``sigma`` but the deviation of that many perfect members, variance pooled over the
        components (``dimension * (n_members - 1)`` degrees of freedom); None: the score is ``sigma``
    tolerance : the event of AUROC is an error longer than this, in the unit of sigma
    event_share : without a tolerance, the event is to be among this share of the largest errors
    n_repeats : sets of errors drawn

    Raises
    ------
    DataError
        When there are fewer than two standard deviations, one is negative or not finite, or a setting is impossible.
    """
    s = np.asarray(sigma, "f8").ravel()
    if s.size < 2 or not np.all(np.isfinite(s) & (s >= 0)):
        raise DataError(f"The ceiling needs two or more finite standard deviations, none negative; found {s.size}.")
    if n_members is not None and n_members < 2:
        raise DataError(f"{n_members} member has no deviation to rank by; an ensemble needs two or more.")
    if dimension < 1 or n_repeats < 1 or not 0 < event_share < 1:
        raise DataError(
            f"The ceiling needs a dimension and a number of repeats from 1, and an event share between 0 and 1; found "
            f"{dimension}, {n_repeats} and {event_share}."
        )
    rng = generator(seed, "ranking-ceiling")
    found = np.empty((n_repeats, 2))
    for k in range(n_repeats):
        # The length of a Gaussian vector is a chi variable; so is the members' pooled deviation.
        error = s * np.sqrt(rng.chisquare(dimension, s.size))
        dof = dimension * ((n_members or 2) - 1)
        score = s if n_members is None else s * np.sqrt(rng.chisquare(dof, s.size) / dof)
        edge = np.quantile(error, 1 - event_share) if tolerance is None else tolerance
        found[k] = spearman(score, error), auroc(score, error > edge)
    (rho, rho_sd), (area, area_sd) = (_mean_and_deviation(column) for column in found.T)
    return Ceiling(rho, area, rho_sd, area_sd, n_repeats)


def ensemble_mean_squared_z(n_members: int, dimension: int = 3) -> float:
    """Return the mean z^2 of errors under the pooled variance of a perfect ensemble, ``nu / (nu - 2)``.

    nu = ``dimension * (n_members - 1)``; infinite up to nu = 2. The error here is drawn with the very variance that
    the members estimate. If it is that of the members' *mean*, against a truth distributed as they are, multiply by
    ``1 + 1 / n_members``. Three members look overconfident by a fifth in sigma with nothing wrong about them.

    Raises
    ------
    DataError
        When there are fewer than two members.
    """
    if n_members < 2 or dimension < 1:
        raise DataError(f"{n_members} members in {dimension} dimensions have no variance; two or more are needed.")
    nu = dimension * (n_members - 1)
    return nu / (nu - 2) if nu > 2 else math.inf


def _mean_and_deviation(values: Array) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    mean = float(np.mean(known)) if known.size else float("nan")
    return mean, float(np.std(known, ddof=1)) if known.size > 1 else float("nan")
