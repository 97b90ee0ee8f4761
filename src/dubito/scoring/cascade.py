"""The cascade: which candidates get the full score, decided from cheap features and a random draw of full scores.

1. A first random draw gets the full score; the upper estimate is fitted to it, and the decision threshold follows.
2. Candidates are drawn on, in random order, until enough of them reach the threshold (or it no longer pays).
3. The cut-off of these positives decides which of all others get the full score.

The threshold stands before the calibration is drawn, and when to stop drawing depends on how many positives there are,
not on their cheap scores: so the positives drawn and those not drawn are exchangeable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.core.random import generator
from dubito.scoring.conformal import cutoff, positives_needed, rank_of_cutoff
from dubito.scoring.evaluations import Evaluations
from dubito.scoring.forecast import Forecast, cheapest, forecast
from dubito.scoring.upper_estimate import UpperEstimate

Array = NDArray[Any]
FullScore = Callable[[Array], Array]
"""Gives the full scores (m,) eV/Å of candidates by ascending row (m,), each asked for once."""

# What the upper estimate is fitted to: six coefficients at the 0.9 quantile.
FIT = 200
# In smaller pools the draws alone cost most of what could be saved.
SMALLEST_POOL = 500
# A cascade that is expected to cost more than this share of all evaluations is not worth its errors.
WORTH = 0.9
# Draws at a time while positives are looked for, and how many more than expected.
_STEP, _AMPLE = 50, 1.1
# A draw whose cheap scores differ from the pool's with a smaller p is no random draw of it.
_SAME_P = 1e-3


@dataclass(frozen=True)
class Rule:
    """Which candidates matter.

    Attributes
    ----------
    recall : share of them that must get the full score, at least
    share : of the pool that matters; ignored where there is a level
    level : full score (eV/Å) from which on candidates matter; None: from the share
    highest : the level from the share is no higher than this (eV/Å); None: as it comes
    skipped_above : the share is counted from this score (eV/Å) down, which what lies above must reach; None: from the
        top
    """

    recall: float
    share: float
    level: float | None = None
    highest: float | None = None
    skipped_above: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What the cascade decided for n candidates.

    Attributes
    ----------
    full : (n,) whether the candidate got the full score
    estimate : (n,) eV/Å for all others: the upper estimate, below the threshold; NaN where ``full``
    threshold : the decision threshold, eV/Å; None where everything got the full score before there was one
    cutoff : upper estimate (eV/Å) from which on candidates got the full score; None where everything did
    n_fit, n_calibration, n_positives : drawn to fit, drawn to calibrate, and how many of the latter matter
    share : of the pool expected to reach the threshold
    same_p : p-value of the calibration having the cheap scores of the pool; None where there was none
    note : why everything got the full score; empty where not
    """

    full: Array
    estimate: Array
    threshold: float | None = None
    cutoff: float | None = None
    n_fit: int = 0
    n_calibration: int = 0
    n_positives: int = 0
    share: float | None = None
    same_p: float | None = None
    note: str = ""


class _Everything(Exception):
    """There is nothing to save; the reason."""


class Cascade:
    """One pool.

    Parameters
    ----------
    features : (n, f) cheap features; candidates with one that is no finite number get the full score
    full_score : evaluates all members
    n_members : of the ensemble
    rule : which candidates matter
    seed : of the draws
    order : (n,) permutation in which candidates are drawn; None: at random, which the guarantee rests on
    """

    def __init__(
        self,
        features: Array,
        full_score: FullScore,
        *,
        n_members: int,
        rule: Rule,
        seed: int,
        order: Array | None = None,
    ) -> None:
        n = len(features)
        self._features, self._full_score, self._n_members, self._rule = features, full_score, n_members, rule
        self._order = generator(seed, "adaptive scoring").permutation(n) if order is None else np.asarray(order)
        self._scores, self._full = np.full(n, np.nan), np.zeros(n, bool)
        self._found: dict[str, Any] = {}

    def decide(self) -> Verdict:
        """Evaluate what is needed; return what was decided."""
        try:
            cut, estimates, threshold = self._calibrated()
        except _Everything as reason:
            self._evaluate(np.arange(len(self._full)))
            return Verdict(self._full, np.full(len(self._full), np.nan), note=str(reason), **self._found)
        self._evaluate(np.flatnonzero(~(estimates < cut)))
        estimate = np.minimum(np.exp(estimates), np.nextafter(threshold, 0.0))
        self._found["cutoff"] = math.exp(cut)
        return Verdict(self._full, np.where(self._full, np.nan, estimate), **self._found)

    def _calibrated(self) -> tuple[float, Array, float]:
        """Return the cut-off and the upper estimates (n,), both logarithms, and the threshold in eV/Å."""
        n, rule = len(self._full), self._rule
        if n < SMALLEST_POOL:
            raise _Everything(f"{n} candidates are too few to draw from, at least {SMALLEST_POOL} are needed")
        first = self._order[:FIT]
        estimates, residuals = self._estimates(first)
        expected = self._forecast(estimates, residuals)
        threshold = math.exp(expected.level)
        self._found |= {"threshold": threshold, "share": expected.share}
        self._require_worth(expected.evaluated, "expected")
        drawn = self._draw(expected, threshold)
        positives = drawn[self._reaches(drawn, threshold)]
        self._found |= {"n_calibration": len(drawn), "n_positives": len(positives)}
        self._require_same(estimates[drawn], estimates)
        cut = cutoff(estimates[positives], rule.recall)
        needed = self._full | ~(estimates < cut)
        self._require_worth(float(needed.mean()), "found")
        return cut, estimates, threshold

    def _estimates(self, first: Array) -> tuple[Array, Array]:
        """Fit to the first draw; return the upper estimates (n,), infinite without features, and the residuals."""
        scores, usable = self._evaluate(first), np.all(np.isfinite(self._features), axis=1)
        fitted = first[usable[first] & np.isfinite(scores) & (scores > 0)]
        self._found["n_fit"] = len(first)
        if len(fitted) < FIT // 2:
            raise _Everything(f"only {len(fitted)} of {len(first)} candidates drawn have finite features and scores")
        model = UpperEstimate.fit(self._features[fitted], np.log(self._scores[fitted]))
        estimates = np.full(len(usable), np.inf)
        estimates[usable] = model(self._features[usable])
        return estimates, model.residuals

    def _forecast(self, estimates: Array, residuals: Array) -> Forecast:
        known = estimates[np.isfinite(estimates)]
        settings: dict[str, Any] = {"recall": self._rule.recall, "n_drawn": FIT}
        if self._rule.level is None:
            share, above = self._rule.share, self._rule.skipped_above
            if above is not None:
                share = min(1.0, share + forecast(known, residuals, math.log(above), **settings).share)
            highest = self._rule.highest
            ceiling = math.inf if highest is None else math.log(highest) if highest > 0 else -math.inf
            return cheapest(known, residuals, share, highest=ceiling, **settings)
        found = forecast(known, residuals, math.log(self._rule.level), **settings)
        if found.share * len(known) < positives_needed(self._rule.recall):
            raise _Everything(
                f"about {found.share * len(known):.0f} candidates are expected to reach {self._rule.level:.3g} eV/Å, "
                f"of which {positives_needed(self._rule.recall)} would have to be drawn"
            )
        return found

    def _draw(self, expected: Forecast, threshold: float) -> Array:
        """Draw on until there are positives enough; return the rows drawn."""
        needed, at, n = positives_needed(self._rule.recall), FIT, len(self._full)
        rows, positives = self._order[FIT:FIT], 0
        while rank_of_cutoff(positives, self._rule.recall) < 1:
            # What the first draw says, as if it were as many candidates as it is, and what was drawn since.
            chance = (expected.share * FIT + positives) / (FIT + len(rows))
            more = max(_STEP, math.ceil(_AMPLE * (needed - positives) / max(chance, 1 / n)))
            self._require_worth((at + more) / n, "expected")
            rows = self._order[FIT : at + more]
            self._evaluate(self._order[at : at + more])
            at += more
            positives = int(self._reaches(rows, threshold).sum())
            self._found |= {"n_calibration": len(rows), "n_positives": positives}
        return rows

    def _reaches(self, rows: Array, threshold: float) -> Array:
        """Return which rows matter; a full score that is no number does."""
        out: Array = ~(self._scores[rows] < threshold)
        return out

    def _require_worth(self, evaluated: float, how: str) -> None:
        n = len(self._full)
        ratio = Evaluations(n, round(min(1.0, evaluated) * n), self._n_members).ratio
        if ratio > WORTH:
            raise _Everything(f"it is {how} to cost {ratio:.2f} of all evaluations, so that nothing is saved")

    def _require_same(self, drawn: Array, pool: Array) -> None:
        """Refuse a calibration whose cheap scores are not the pool's: what the cut-off says would not hold for it."""
        from scipy.stats import ks_2samp

        p = float(ks_2samp(drawn, pool).pvalue)
        self._found["same_p"] = p
        if p < _SAME_P:
            raise _Everything(
                f"the cheap scores of the calibration are not those of the pool (Kolmogorov-Smirnov p = {p:.1g}), so "
                "that it says nothing of it"
            )

    def _evaluate(self, rows: Array) -> Array:
        """Give rows the full score where they have none; return theirs."""
        new = np.sort(rows[~self._full[rows]])
        if len(new):
            self._scores[new] = self._full_score(new)
            self._full[new] = True
        return self._scores[rows]
