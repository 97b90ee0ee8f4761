"""A rising map from doubt to standard deviations (Zadrozny & Elkan 2002, https://doi.org/10.1145/775047.775151).

Isotonic regression of the squared error on the doubt (pool adjacent violators, least squares; Barlow et al. 1972), on
groups of neighbouring atoms rather than on single ones, lest it follow the noise. It gives a staircase, in which atoms
of different doubt would tie; so the map runs straight from centre to centre of its steps, in the logarithm of the
standard deviation, and keeps the ranking.

Beyond the last centres nothing was measured, yet candidates explored lie there: it goes on with the slope of the half
of the atoms on that side. Upwards a score's standard deviation ``(1 + t / 2)^2`` grows as a power of the excess t, not
exponentially: a mixture's negative log density is quadratic in the distance, and the exponential of it explodes (3BPA
at 1200 K). Errors that don't rise *within* the calibration set (few atoms, or atoms much alike) say nothing of far
outside: beyond the largest doubt in it t is at least the excess in widths of the set, so that what lies far off is
doubted however few atoms calibrate. A method's own standard deviations are continued at least in proportion. Both bend
towards at most ``CEILING`` times the last step, which infinite doubt gets; downwards not below half of the first step,
since less was never verified.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from dubito.uncertainty.calibration.sample import Sample, checked_raw
from dubito.uncertainty.calibration.scale import scale_factor

Array = NDArray[Any]
# Atoms in a group: at least MIN_BLOCK (for sets too small for three such groups, at least SMALL_BLOCK).
MIN_BLOCK = 30
SMALL_BLOCK = 10
MAX_GROUPS = 40
CEILING = 1e3
FLOOR = 0.5
# Rise of ln sigma over the width of the calibration set that keeps the ranking where errors show none.
SMALLEST_RISE = 1e-3
# The same beyond the calibration set, for scores: by the power law sigma doubles 0.83 widths outside.
SMALLEST_RISE_OUTSIDE = 1.0
# A method's own standard deviations are continued at least in proportion: slope of ln sigma by ln raw.
PROPORTION = 1.0
EDGES = (0.05, 0.95)
# Of the forces' rms: doubt and errors below have no meaning.
TINY = 1e-6
POWER = 2.0
# So far out that the ceiling is reached to rounding; keeps infinities from becoming NaN.
FAR = 1e9


def _bend(t: Array, bound: float) -> Array:
    """Return t for small t >= 0, rising strictly towards the bound."""
    t = np.minimum(t, FAR)
    out: Array = t / np.sqrt(1 + (t / bound) ** 2)
    return out


@dataclass(frozen=True)
class Isotonic:
    """See the module.

    Attributes
    ----------
    knots : (K,) rising; doubt at the centres of the steps, for standard deviations ln(raw + offset)
    log_sigma : (K,) rising; ln of the standard deviation in eV/Å there
    slopes : of ln sigma below the first and above the last knot
    offset : eV/Å, keeps the logarithm of standard deviations finite; None for scores
    """

    knots: Array
    log_sigma: Array
    slopes: tuple[float, float]
    offset: float | None

    def __call__(self, raw: Array) -> Array:
        """Return (N,) eV/Å; see the module for doubt outside of what was seen."""
        x = _coordinate(checked_raw(raw, is_sigma=self.offset is not None), self.offset)
        # Slopes are positive, so that infinite doubt times a slope is no NaN.
        below, above = np.maximum(self.knots[0] - x, 0), np.maximum(x - self.knots[-1], 0)
        rise = self.slopes[1] * above
        if self.offset is None:
            rise = POWER * np.log1p(rise / POWER)
        log_sigma = np.interp(x, self.knots, self.log_sigma)
        out: Array = np.exp(
            log_sigma + _bend(rise, math.log(CEILING)) - _bend(self.slopes[0] * below, -math.log(FLOOR))
        )
        return out

    def state(self) -> dict[str, Array]:
        """Return what restores it."""
        tails = np.array([*self.slopes, np.nan if self.offset is None else self.offset])
        return {"knots": self.knots, "log_sigma": self.log_sigma, "tails": tails}

    @classmethod
    def from_state(cls, arrays: dict[str, Array]) -> Self:
        """Restore what :meth:`state` gave."""
        low, high, offset = (float(value) for value in arrays["tails"])
        return cls(arrays["knots"], arrays["log_sigma"], (low, high), None if math.isnan(offset) else offset)


def constant_map(sigma: float, sample: Sample) -> Isotonic:
    """Return the map of one standard deviation (eV/Å) for all, where there is nothing to fit.

    It keeps the ranking, and rises beyond the doubt that was seen; of no atom at all nothing is known to rise from.
    """
    offset = TINY * sample.force_scale if sample.is_sigma else None
    log_sigma = np.array([math.log(sigma)])
    if not len(sample.raw):
        return Isotonic(np.zeros(1), log_sigma, (SMALLEST_RISE, SMALLEST_RISE), offset)
    x = _coordinate(sample.raw, offset)
    width = _width(x)
    above = PROPORTION if sample.is_sigma else SMALLEST_RISE_OUTSIDE / width
    return Isotonic(np.array([float(x.max())]), log_sigma, (SMALLEST_RISE / width, above), offset)


def fit_isotonic(sample: Sample, estimator: str = "rms") -> tuple[Isotonic, list[str]]:
    """Fit the map on at least one atom; return it with what there is to note.

    The ``estimator`` of :mod:`dubito.uncertainty.calibration.scale` sets its level after isotonic regression has
    given its shape.
    """
    total = float(np.mean(sample.squares))
    tiny = TINY * sample.force_scale
    if total <= tiny**2:
        return constant_map(tiny, sample), [f"all errors are below {tiny:.1e} eV/Å, which all atoms get"]
    offset = tiny if sample.is_sigma else None
    x = _coordinate(sample.raw, offset)
    knots, variance = _steps(x, sample.squares)
    log_sigma = 0.5 * np.log(np.maximum(variance, max(1e-4 * total, tiny**2)))
    width = _width(x)
    log_sigma = log_sigma + SMALLEST_RISE / width * (knots - np.mean(x))
    notes = [] if len(knots) > 1 else ["errors don't rise with the doubt, so all atoms like these get nearly the same"]
    below, above = _tail_slopes(x, knots, log_sigma, SMALLEST_RISE / width)
    if sample.is_sigma:
        above = max(above, PROPORTION)
    else:
        knots, log_sigma = _to_the_edge(x, knots, log_sigma, above)
        above = max(above, SMALLEST_RISE_OUTSIDE / width)
    shape = Isotonic(knots, log_sigma, (below, above), offset)
    level = scale_factor(sample.errors, shape(sample.raw), estimator)
    return Isotonic(knots, log_sigma + math.log(max(level, TINY)), shape.slopes, offset), notes


def _width(x: Array) -> float:
    """Return how far the doubt of the calibration set reaches, but for its tails; a number above 0."""
    return float(np.ptp(np.quantile(x, EDGES))) or float(np.ptp(x)) or max(abs(float(x[0])), 1.0)


def _to_the_edge(x: Array, knots: Array, log_sigma: Array, slope: float) -> tuple[Array, Array]:
    """Return the map continued as a score's up to the largest doubt of the calibration set."""
    edge = float(x.max())
    # Not for a hair's breadth, which rounding makes.
    if edge - knots[-1] <= 1e-6 * _width(x):
        return knots, log_sigma
    rise = POWER * math.log1p(slope * (edge - float(knots[-1])) / POWER)
    return np.append(knots, edge), np.append(log_sigma, log_sigma[-1] + rise)


def _coordinate(raw: Array, offset: float | None) -> Array:
    out: Array = raw if offset is None else np.log(raw + offset)
    return out


def _steps(x: Array, y: Array) -> tuple[Array, Array]:
    """Return centres and strictly rising levels of the staircase; equal x stay in one group."""
    values, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    groups = _groups(counts)
    weight = np.add.reduceat(counts, groups).astype("f8")
    centre = np.add.reduceat(counts * values, groups) / weight
    level = np.add.reduceat(np.bincount(inverse, weights=y), groups) / weight
    found = isotonic_regression(level, weights=weight)
    starts = found.blocks[:-1]
    # Equal neighbours are one step.
    starts = starts[np.concatenate([[True], np.diff(found.x[starts]) > 0])]
    total = np.add.reduceat(weight, starts)
    return np.add.reduceat(weight * centre, starts) / total, found.x[starts]


def _groups(counts: Array) -> Array:
    """Return where groups of enough atoms start among distinct values that occur ``counts`` times."""
    n = int(counts.sum())
    size = MIN_BLOCK if n >= 3 * MIN_BLOCK else max(SMALL_BLOCK, n // 3)
    size = max(size, math.ceil(n / MAX_GROUPS))
    ends = np.cumsum(counts)
    starts = [0]
    done = 0
    while done + size <= n:
        nxt = int(np.searchsorted(ends, done + size)) + 1
        done = int(ends[nxt - 1])
        # The remainder joins the last group when it is too small for its own.
        if n - done < size:
            break
        starts.append(nxt)
    return np.array(starts)


def _tail_slopes(x: Array, knots: Array, log_sigma: Array, smallest: float) -> tuple[float, float]:
    """Return the mean slopes of the map below and above the median atom."""
    if len(knots) == 1:
        return smallest, smallest
    middle = float(np.clip(np.median(x), knots[0], knots[-1]))
    level = float(np.interp(middle, knots, log_sigma))
    whole = float(log_sigma[-1] - log_sigma[0]) / float(knots[-1] - knots[0])
    low = (level - float(log_sigma[0])) / (middle - float(knots[0])) if middle > knots[0] else whole
    high = (float(log_sigma[-1]) - level) / (float(knots[-1]) - middle) if middle < knots[-1] else whole
    return max(low, smallest), max(high, smallest)
