"""Medians and spreads of interleaved measurements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Return median, 10th and 90th percentile (linear interpolation) and the number of values."""
    if not values:
        raise ValueError("no values to summarise")
    p10, median, p90 = np.percentile(np.asarray(values, float), [10, 50, 90])
    return {
        "median": _significant(median, digits),
        "p10": _significant(p10, digits),
        "p90": _significant(p90, digits),
        "n": len(values),
    }


def ratios(numerator: Sequence[float], denominator: Sequence[float], factor: float = 1.0) -> list[float]:
    """Return ``factor * numerator / denominator`` round by round.

    A round measures all programs one after another; what slows the machine for a while slows both
    sides of a ratio, which is why ratios are taken before the median and not after. Rounds that one side
    doesn't have are left out.
    """
    return [factor * a / b for a, b in zip(numerator, denominator, strict=False)]


def _significant(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
