"""The learning curve as a posterior: how the force error falls with labels, and how sure that is.

``log E(n) = log(A (n/n0)^-b + c) + noise``: a power law with a floor. A least-squares fit of it gives intervals that
are too narrow, and believes in no floor before it is reached (Besiroglu et al. 2024, https://arxiv.org/abs/2404.10102,
on Hoffmann et al. 2022, https://arxiv.org/abs/2203.15556). Here all curves of a grid are weighed by how well they
explain the points, so that nothing depends on start values, and a floor that nobody has seen keeps its share.

With ``x = n / n_last`` the curve is ``log E = level + log((1 - f) x^-b + f)``: ``f`` is the share of the present error
that is floor, and ``level``, the log error at ``n_last``, enters linearly and is integrated in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubito.core.errors import DataError

Array = NDArray[Any]

MIN_POINTS = 3
"""Two points lie on every power law."""

# Exponents of interatomic potentials lie between .14 and 1.5: Frey et al. 2023, https://doi.org/10.1038/
# s42256-023-00740-3, and others; a log-normal law with 95 % of its mass there.
_EXPONENT, _EXPONENT_SPREAD = np.log(0.45), 0.6
_EXPONENTS = np.log(0.03), np.log(4.0)
# Half the prior mass is "no floor at all", the other half a floor between 5 % and all of the present error, its
# logarithm uniform. The grid is even in log(f / (1 - f)): near f = 1 it is 1 - f that the points tell of.
_FLOORS = np.log(0.05 / 0.95), np.log(0.995 / 0.005)
_NO_FLOOR = 0.5
# What no curve explains (seeds of the training, a bend), as relative error: half-normal.
_DISCREPANCY, _DISCREPANCIES = 0.1, np.geomspace(0.001, 0.4, 12)
# Curves bend, mostly where nobody has been yet: beyond the last point the exponent is another one. Its relative spread
# was chosen on curves other than those of benchmarks/results/planner.json.
_BEND = 0.2
# No such law holds for ever: what it leaves unexplained grows with the distance from the present, by this share for
# each halving of the labels, so that where it fails the latest points count most.
_LOCAL = 1.0
_SIZE = 60, 40
# The grid is laid closer and closer around what explains the points with so much noise more than they have: on a
# coarse grid no cell would explain exact points, and the best of them may lie far off.
_ZOOMS = 0.1, 0.03, 0.01, 0.003
_NEGLIGIBLE = 1e-6


@dataclass(frozen=True)
class Curve:
    """Draws from the posterior of a learning curve, each (d,).

    Attributes
    ----------
    last : labels at the last point
    level : log of the error there, error in eV/Å
    exponent : b, up to the last point
    exponent_ahead : b beyond it
    floor : share of the error at ``last`` that no number of labels removes
    discrepancy : relative deviation of single measurements from the curve, apart from their own sampling error
    """

    last: float
    level: Array
    exponent: Array
    exponent_ahead: Array
    floor: Array
    discrepancy: Array

    def error(self, labels: float) -> Array:
        """Return the error at a number of labels, (d,) eV/Å."""
        b = self.exponent_ahead if labels > self.last else self.exponent
        share = (1 - self.floor) * (labels / self.last) ** -b + self.floor
        out: Array = np.exp(self.level) * share
        return out

    def measured(self, labels: float, relative_sd: float, rng: np.random.Generator) -> Array:
        """Return what would be measured there, (d,) eV/Å: the curve with its discrepancy and a sampling error."""
        spread = np.sqrt(self.discrepancy**2 + relative_sd**2)
        out: Array = self.error(labels) * np.exp(spread * rng.standard_normal(len(spread)))
        return out

    def labels_to(self, target: float | Array) -> Array:
        """Return the labels at which the curve is at ``target`` (eV/Å), (d,); infinite where its floor is above.

        Parameters
        ----------
        target : one for all draws, or (d,) one for each
        """
        excess = (target / np.exp(self.level) - self.floor) / (1 - self.floor)
        labels = np.full(len(excess), np.inf)
        ok = excess > 0
        logs = -np.log(excess[ok])
        # An exponent near zero needs more labels than a float can count: as good as never.
        logs /= np.where(logs > 0, self.exponent_ahead[ok], self.exponent[ok])
        labels[ok] = self.last * np.exp(np.clip(logs, -50, 50))
        return labels


def fit_curve(
    labels: ArrayLike, errors: ArrayLike, relative_sd: ArrayLike, rng: np.random.Generator, *, draws: int = 4000
) -> Curve:
    """Return the posterior of the curve through points.

    Parameters
    ----------
    labels, errors : (m,) labels known to each model, and its error, eV/Å
    relative_sd : (m,) or a number; relative sampling error of each error

    Raises
    ------
    DataError
        When there are fewer than three points, or one is not a positive number.
    """
    n, e = np.asarray(labels, "f8"), np.asarray(errors, "f8")
    s = np.broadcast_to(np.asarray(relative_sd, "f8"), n.shape)
    if len(n) < MIN_POINTS or n.shape != e.shape:
        raise DataError(f"A learning curve needs {MIN_POINTS} points with an error each, found {len(n)} and {len(e)}.")
    usable = np.isfinite(n) & np.isfinite(e) & np.isfinite(s) & (n > 0) & (e > 0) & (s >= 0)
    if not usable.all():
        raise DataError(f"Point {int(np.argmin(usable)) + 1} of the learning curve is not a positive number.")
    last = float(n.max())
    x, y = np.log(n / last), np.log(e)
    b_range, f_range = _EXPONENTS, _FLOORS
    for extra in _ZOOMS:
        cells = _Grid(x, y, np.hypot(s, extra)).weigh(b_range, f_range)
        b_range = _where(cells.b_edges, cells.weight.sum((1, 2)))
        f_range = _where(cells.f_edges, cells.weight[:, 1:].sum((0, 2)))
    return _draw(_Grid(x, y, s).weigh(b_range, f_range), last, rng, draws)


@dataclass(frozen=True)
class _Cells:
    """Weights (b, 1 + f, delta), the first along f without floor; edges in logs; the level's law in each cell."""

    weight: Array
    b_edges: Array
    f_edges: Array
    level: Array
    level_sd: Array


@dataclass(frozen=True)
class _Grid:
    """The points: log of labels relative to the last, log errors, relative sampling errors; (m,)."""

    x: Array
    y: Array
    s: Array

    def weigh(self, b_range: tuple[float, float], f_range: tuple[float, float]) -> _Cells:
        """Weigh all cells of a part of the grid by prior and likelihood."""
        b_edges, f_edges = (np.linspace(*r, k + 1) for r, k in zip((b_range, f_range), _SIZE, strict=True))
        log_b = _middles(b_edges)
        f = np.concatenate([[0.0], _share(_middles(f_edges))])
        power = np.exp(-np.exp(log_b)[:, None, None] * self.x)
        rest = self.y - np.log((1 - f)[None, :, None] * power + f[None, :, None])
        own = _DISCREPANCIES[:, None] * (1 + _LOCAL * np.abs(self.x) / np.log(2))
        precision = 1 / (own**2 + self.s**2)
        total = precision.sum(1)
        level = np.einsum("bfm,dm->bfd", rest, precision) / total
        # Sum of squares about the mean: as a difference of two large sums it would lose its digits.
        square = np.einsum("bfdm,dm->bfd", (rest[:, :, None] - level[..., None]) ** 2, precision)
        likelihood = 0.5 * (np.log(precision).sum(1) - np.log(total) - square)
        with np.errstate(divide="ignore"):
            prior_b = np.log(np.diff(b_edges)) - 0.5 * ((log_b - _EXPONENT) / _EXPONENT_SPREAD) ** 2
            slab = (1 - _NO_FLOOR) * np.diff(np.log(_share(f_edges))) / np.log(0.995 / 0.05)
            prior_f = np.log(np.concatenate([[_NO_FLOOR], slab]))
        # Density times width; the widths of geometric steps grow with the value.
        prior_d = np.log(_DISCREPANCIES) - 0.5 * (_DISCREPANCIES / _DISCREPANCY) ** 2
        logs = likelihood + prior_b[:, None, None] + prior_f[None, :, None] + prior_d
        weight = np.exp(logs - logs.max())
        return _Cells(weight / weight.sum(), b_edges, f_edges, level, 1 / np.sqrt(total))


def _draw(cells: _Cells, last: float, rng: np.random.Generator, draws: int) -> Curve:
    """Draw cells evenly along their cumulative weight, and a place at random in each."""
    steps = np.cumsum(cells.weight.ravel())
    # One offset for all: the draws follow the weights more closely than independent ones.
    places = (np.arange(draws) + rng.random()) / draws * steps[-1]
    row = np.minimum(np.searchsorted(steps, places, side="right"), steps.size - 1)
    # Shuffled, since neighbouring draws are alike.
    i, j, k = np.unravel_index(rng.permutation(row), cells.weight.shape)
    b_width, f_width = cells.b_edges[1] - cells.b_edges[0], cells.f_edges[1] - cells.f_edges[0]
    log_b = cells.b_edges[i] + b_width * rng.random(draws)
    logit_f = cells.f_edges[np.maximum(j - 1, 0)] + f_width * rng.random(draws)
    level = cells.level[i, j, k] + cells.level_sd[k] * rng.standard_normal(draws)
    floor, exponent = np.where(j == 0, 0.0, _share(logit_f)), np.exp(log_b)
    ahead = exponent * np.clip(1 + _BEND * rng.standard_normal(draws), 0.05, None)
    return Curve(last, level, exponent, ahead, floor, _DISCREPANCIES[k])


def _share(logit: Array) -> Array:
    out: Array = 1 / (1 + np.exp(-logit))
    return out


def _middles(edges: Array) -> Array:
    out: Array = (edges[1:] + edges[:-1]) / 2
    return out


def _where(edges: Array, weight: Array) -> tuple[float, float]:
    """Return the range of the cells with any weight, one more on each side."""
    rows = np.flatnonzero(weight > _NEGLIGIBLE * weight.max())
    first, last = max(0, int(rows[0]) - 1), min(len(weight) - 1, int(rows[-1]) + 1)
    return float(edges[first]), float(edges[last + 1])


def quantiles(values: Array, levels: Sequence[float] = (0.1, 0.5, 0.9)) -> list[float]:
    """Return quantiles that are values themselves, so that infinite ones do no harm."""
    ordered = np.sort(values)
    return [float(ordered[min(len(ordered) - 1, int(level * len(ordered)))]) for level in levels]
