"""What refusing the most doubtful predictions is worth: risk against coverage, and the area to the oracle.

Entries are refused from the highest score down, and the RMSE of those kept is compared with two references: the
*oracle*, which refuses the largest errors first, and *random* refusal. Ilg et al. 2018 (arXiv:1802.07095) for the
area under the sparsification error; Geifman and El-Yaniv 2017 (arXiv:1705.08500) for risk and coverage.

**Ties** are refused in random order, and the *expected* mean square is what enters: between the borders of a group of
equal scores the sum of squares kept grows linearly. So a constant score gives the random line, whatever the order of
the entries, and so do scores that saturate (a Gaussian process far from its data) over the part where they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubito.core.errors import DataError

Array = NDArray[Any]
NAN = float("nan")


@dataclass(frozen=True)
class RiskCoverage:
    """RMSE of what is kept against the share kept, all (n,).

    Attributes
    ----------
    coverage : share kept, falling from 1
    rmse : kept by the score, in the unit of the error
    oracle : kept by the size of the error itself
    random : kept at random, constant
    """

    coverage: Array
    rmse: Array
    oracle: Array
    random: Array


@dataclass(frozen=True)
class Sparsification:
    """A score's worth for refusing.

    Attributes
    ----------
    ause : area between the score's and the oracle's RMSE over all refused shares, over the RMSE of all; 0 is perfect
    aurg : area between the random and the score's RMSE, same unit; negative is worse than chance
    relative : ``ause`` over that of random refusal: 0 the oracle, 1 chance; comparable between sets of errors
    gain_share : share refused to the share of the oracle's fall of the RMSE that the score achieves
    """

    ause: float
    aurg: float
    relative: float
    gain_share: dict[float, float]


def retained_rmse(score: ArrayLike, error: ArrayLike, refused: ArrayLike) -> Array:
    """Return the RMSE of what is kept after refusing shares of the entries with the highest scores.

    Parameters
    ----------
    score, error : (N,), finite; of vectors the length
    refused : shares in [0, 1), any shape; a part of an entry counts in proportion

    Raises
    ------
    DataError
        When lengths differ, values are not finite, or a share is out of range.
    """
    values, size = _checked(score, error)
    shares = np.asarray(refused, "f8")
    if not np.all((shares >= 0) & (shares < 1)):
        raise DataError("The refused shares must be at least 0 and below 1: something has to be kept.")
    if not size.size:
        return np.full(shares.shape, NAN)
    return _kept_rmse(values, size**2, size.size * (1 - shares))


def risk_coverage(score: ArrayLike, error: ArrayLike, n_points: int = 100) -> RiskCoverage:
    """Return the risk-coverage curve at ``n_points`` evenly spaced coverages from 1 down to ``1 / n_points``."""
    refused = np.arange(n_points) / n_points
    kept, oracle = retained_rmse(score, error, refused), retained_rmse(np.abs(np.asarray(error, "f8")), error, refused)
    return RiskCoverage(1 - refused, kept, oracle, np.full(n_points, kept[0]))


def ause(score: ArrayLike, error: ArrayLike) -> float:
    """Return the normalised area under the sparsification error; see :class:`Sparsification`.

    The mean over refusing 0, 1, ..., N - 1 entries. NaN if empty or without any error.
    """
    values, size = _checked(score, error)
    total = _rms(size)
    if not total > 0:
        return NAN
    curve, oracle = _curves(values, size)
    return float(np.mean(curve - oracle)) / total


def gain_share(score: ArrayLike, error: ArrayLike, refused: float) -> float:
    """Return the share of the oracle's fall of the RMSE achieved at one refused share.

    1 is the oracle, 0 random refusal, below 0 worse than chance. NaN where the oracle gains nothing.
    """
    kept, oracle = (float(retained_rmse(s, error, refused)) for s in (score, np.abs(np.asarray(error, "f8"))))
    total = _rms(np.asarray(error, "f8"))
    # A gain within rounding is none.
    return (total - kept) / (total - oracle) if total - oracle > 1e-12 * total else NAN


def sparsification(score: ArrayLike, error: ArrayLike, refused: Sequence[float] = (0.1, 0.3)) -> Sparsification:
    """Return everything of :class:`Sparsification`; score and error are (N,)."""
    values, size = _checked(score, error)
    total = _rms(size)
    shares = {share: gain_share(values, size, share) for share in refused}
    if not total > 0:
        return Sparsification(NAN, NAN, NAN, shares)
    curve, oracle = _curves(values, size)
    area, chance = float(np.mean(curve - oracle)) / total, 1 - float(np.mean(oracle)) / total
    return Sparsification(area, 1 - float(np.mean(curve)) / total, area / chance if chance > 1e-12 else NAN, shares)


def _curves(values: Array, size: Array) -> tuple[Array, Array]:
    """Return the RMSE of the N, N - 1, ..., 1 kept by the score and by the oracle."""
    kept, squared = np.arange(size.size, 0, -1, dtype="f8"), size**2
    return _kept_rmse(values, squared, kept), _kept_rmse(size, squared, kept)


def _kept_rmse(values: Array, squared: Array, kept: Array) -> Array:
    """Return the root of the expected mean square of the ``kept`` entries (not only whole numbers) of lowest score."""
    order = np.argsort(values)
    ordered, total = values[order], np.cumsum(squared[order])
    # Last entry of each group of equal scores.
    last = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), values.size - 1)
    sums = np.interp(kept, np.append(0, last + 1), np.append(0.0, total[last]))
    out: Array = np.sqrt(sums / kept)
    return out


def _rms(size: Array) -> float:
    return float(np.sqrt(np.mean(size**2))) if size.size else NAN


def _checked(score: ArrayLike, error: ArrayLike) -> tuple[Array, Array]:
    values, size = np.asarray(score, "f8").ravel(), np.abs(np.asarray(error, "f8").ravel())
    if values.size != size.size:
        raise DataError(f"{values.size} scores can't be compared with {size.size} errors; give as many of both.")
    if not (np.all(np.isfinite(values)) and np.all(np.isfinite(size))):
        raise DataError(
            "A score or an error is not a finite number, so there is no order to refuse in; look for the structure "
            "whose prediction failed, and leave it out of both."
        )
    return values, size
