"""Latents on one scale: zero mean and unit standard deviation in each dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubito.core.errors import DataError

Array = NDArray[Any]
# Dimensions that vary less than this, relative to the one that varies most, are not blown up to unit variance.
FLOOR = 1e-3


@dataclass(frozen=True)
class Standardiser:
    """Takes latents to zero mean and unit standard deviation in each dimension.

    Attributes
    ----------
    mean : (d,) float64
    scale : (d,) float64, standard deviations, floored where a dimension hardly varies
    """

    mean: Array
    scale: Array

    @classmethod
    def fit(cls, features: Array) -> Self:
        """Fit to features (N, d).

        Raises
        ------
        DataError
            When there is no atom, or features are not finite.
        """
        features = checked_features(features)
        spread = features.std(axis=0)
        largest = float(spread.max(initial=0.0))
        return cls(features.mean(axis=0), np.maximum(spread, FLOOR * largest if largest > 0 else 1.0))

    @classmethod
    def identity(cls, n_dimensions: int) -> Self:
        """Return the one that changes nothing."""
        return cls(np.zeros(n_dimensions), np.ones(n_dimensions))

    @overload
    def apply(self, features: Array) -> Array: ...

    @overload
    def apply(self, features: Tensor) -> Tensor: ...

    def apply(self, features: Array | Tensor) -> Array | Tensor:
        """Standardise features (..., d); an array gives float64, a tensor keeps gradient and precision."""
        if isinstance(features, Tensor):
            mean, scale = (torch.as_tensor(x, dtype=features.dtype, device=features.device)
                           for x in (self.mean, self.scale))  # fmt: skip
            return (features - mean) / scale
        out: Array = (np.asarray(features, "f8") - self.mean) / self.scale
        return out

    def state(self) -> dict[str, Array]:
        """Return the arrays to save."""
        return {"mean": self.mean, "scale": self.scale}


def checked_features(features: Array) -> Array:
    """Return features (N, d) as float64; raise DataError when there is none, or one is not finite."""
    features = np.asarray(features, "f8")
    if features.ndim != 2 or not len(features):
        raise DataError(
            f"Latents are needed of atoms as (N, d) with N > 0, found {features.shape}. Give training structures."
        )
    if not np.all(np.isfinite(features)):
        raise DataError(
            f"{int(np.sum(~np.isfinite(features).all(axis=1)))} of {len(features)} atoms have latents that are not "
            "finite numbers. Look for atoms on top of each other, or for a broken model."
        )
    return features
