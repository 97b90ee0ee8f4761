"""Whether what held for one control slice still holds for the next pool.

What is asked is whether the next slice is *worse by more than a margin*, not whether it differs at all: dubito scales
its uncertainties anew in each iteration, on few validation structures, so that scores and ratios of all structures move
together by some percent although no error has changed. Two tests, one way each, and ``drifted`` when either finds
something at 1 % after Bonferroni over the two:

- **labels**: the ratio of error to uncertainty of each structure, the mean of its logarithm. A threshold that is
  carried over rests on this ratio. Drift is a ratio that has grown to more than ``MARGIN`` times what it was. One that
  has fallen by as much makes the old threshold ``cautious``, which is reported and never called drift.
- **scores**: the mean rank, larger by more than the same margin: the pool holds what the slice before did not. Smaller
  scores are what a better model is meant to give. Scores without unit that may be negative are compared as they are.
  Where the ratio has fallen, larger scores are no drift: uncertainties have grown, not errors.

Frames of one trajectory are alike. So slice is compared with slice, and whole trajectories change sides, see
:mod:`dubito.certificate.permutation`; of the pool's other frames it is not kept which trajectory they are of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dubito.certificate.permutation import N_PERMUTATIONS, can_reach, larger_mean_p_value, n_groups
from dubito.certificate.pool import Array

LEVEL = 0.01
N_TESTS = 2
MARGIN = 1.15
"""Smaller moves are not told from those that a new calibration makes, see ``docs/certificate.md``."""


@dataclass(frozen=True)
class Looked:
    """What is kept of a control slice to compare it with the next.

    Attributes
    ----------
    ratios : error over uncertainty of the labelled structures, positive; empty where scores have no unit
    ratio_trajectories : the trajectory of each, '' where it has none
    scores : finite ones
    score_trajectories : the same for the scores
    """

    ratios: tuple[float, ...]
    ratio_trajectories: tuple[str, ...]
    scores: tuple[float, ...]
    score_trajectories: tuple[str, ...]

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Looked | None:
        """Return what a certificate keeps under ``slice``; None where trajectories were not kept yet."""
        if not all(key in said for key in cls.__dataclass_fields__):
            return None
        return cls(*(tuple(said[key]) for key in cls.__dataclass_fields__))

    def record(self) -> dict[str, Any]:
        """Return it as it stands in ``metrics.json``."""
        return {key: list(values) for key, values in asdict(self).items()}


@dataclass(frozen=True)
class Drift:
    """What the tests say. Ratios are geometric means; p-values are None where there is too little to test.

    Attributes
    ----------
    p_value : of the ratio not having grown by more than the margin
    scores_p_value : the same of the scores
    cautious_p_value : of the ratio not having fallen by more than the margin
    margin : smaller factors are no drift
    """

    p_value: float | None
    ratio_before: float | None
    ratio_now: float | None
    scores_p_value: float | None
    drifted: bool
    cautious_p_value: float | None
    cautious: bool
    margin: float

    def record(self) -> dict[str, Any]:
        """Return it as it stands in ``metrics.json``."""
        return asdict(self)


Values = tuple[Array, list[str]]


def drift_between(before: Looked, now: Looked, *, seed: int, n_permutations: int = N_PERMUTATIONS) -> Drift | None:
    """Compare the slice that calibrated with the next one; None when nothing can be compared."""
    old, new = (_kept(np.asarray(one.ratios, "f8"), one.ratio_trajectories, np.log) for one in (before, now))
    grown = _p_value(old, new, seed, n_permutations)
    fallen = _p_value(new, old, seed, n_permutations)
    scores = _p_value(*_ranks(before, now), seed, n_permutations, margin=0.0)
    cautious = fallen is not None and fallen * N_TESTS < LEVEL
    tested = [p for p in (grown, scores) if p is not None]
    if not tested:
        return None
    alarming = [p for p in (grown, None if cautious else scores) if p is not None]
    return Drift(
        p_value=grown,
        ratio_before=_geometric_mean(old),
        ratio_now=_geometric_mean(new),
        scores_p_value=scores,
        drifted=min(alarming, default=1.0) * N_TESTS < LEVEL,
        cautious_p_value=fallen,
        cautious=cautious,
        margin=MARGIN,
    )


def _kept(values: Array, trajectories: Sequence[str], what: Callable[[Array], Array]) -> Values:
    """Return what is made of the positive values, with the trajectory of each."""
    good = np.isfinite(values) & (values > 0)
    return what(values[good]), [name for name, is_kept in zip(trajectories, good, strict=True) if is_kept]


def _ranks(before: Looked, now: Looked) -> tuple[Values, Values]:
    """Return the ranks of both slices' scores among all of them, those of the next one lowered by the margin."""
    from scipy.stats import rankdata

    old, new = np.asarray(before.scores, "f8"), np.asarray(now.scores, "f8")
    has_unit = (old > 0).all() and (new > 0).all()
    ranks = rankdata(np.concatenate([old, new / MARGIN if has_unit else new]))
    return (ranks[: len(old)], list(before.score_trajectories)), (ranks[len(old) :], list(now.score_trajectories))


def _p_value(
    first: Values, second: Values, seed: int, n_permutations: int, margin: float = math.log(MARGIN)
) -> float | None:
    """Return the p-value of the second mean not exceeding the first by more than the margin; None: too few groups."""
    if not can_reach(LEVEL / N_TESTS, n_groups(first[1]), n_groups(second[1])):
        return None
    return larger_mean_p_value(
        first[0], first[1], second[0] - margin, second[1], seed=seed, n_permutations=n_permutations
    )


def _geometric_mean(logs: Values) -> float | None:
    return float(np.exp(logs[0].mean())) if len(logs[0]) else None
