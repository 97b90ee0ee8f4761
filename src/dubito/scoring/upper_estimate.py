"""An upper estimate of the full score from cheap features: linear quantile regression of its logarithm.

Koenker & Bassett 1978, https://doi.org/10.2307/1913643: the coefficients minimise the pinball loss at the quantile. The
estimate is for ranking and for the scores of candidates that get no better one; whether the cut-off keeps what matters
does not depend on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
QUANTILE = 0.9
# Of the coefficients of standardised features: what decides between features that say the same.
_PENALTY = 1e-3
# Estimates are not extrapolated beyond this factor of the largest full score they were fitted to.
_BEYOND = 10.0


@dataclass(frozen=True)
class UpperEstimate:
    """The fitted regression.

    Attributes
    ----------
    mean, scale, slopes : (f,) of the features; intercept : of the logarithm of the score
    residuals : (m,) ascending, logarithms of the full scores fitted to minus their estimates
    largest : no estimate is larger, logarithm
    """

    mean: Array
    scale: Array
    slopes: Array
    intercept: float
    residuals: Array
    largest: float

    @classmethod
    def fit(cls, features: Array, log_score: Array) -> Self:
        """Fit to finite features (m, f) and logarithms of full scores (m,)."""
        from sklearn.linear_model import QuantileRegressor

        mean, spread = features.mean(axis=0), features.std(axis=0)
        scale = np.where(spread > 1e-9 * np.maximum(1.0, np.abs(mean)), spread, np.inf)
        model = QuantileRegressor(quantile=QUANTILE, alpha=_PENALTY, solver="highs")
        model.fit((features - mean) / scale, log_score)
        largest = float(log_score.max() + np.log(_BEYOND))
        raw = cls(mean, scale, model.coef_, float(model.intercept_), np.zeros(0), largest)
        residuals = np.sort(log_score - raw(features))
        return cls(mean, scale, model.coef_, float(model.intercept_), residuals, largest)

    def __call__(self, features: Array) -> Array:
        """Return the logarithm of the upper estimate, (n,)."""
        out: Array = np.minimum(((features - self.mean) / self.scale) @ self.slopes + self.intercept, self.largest)
        return out
