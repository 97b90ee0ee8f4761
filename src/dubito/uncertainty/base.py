"""What every uncertainty method takes and gives; what it says is a :class:`dubito.data.prediction.Prediction`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from dubito.data.prediction import Array, Prediction
from dubito.data.structures import Structures

__all__ = ["Array", "Prediction", "Predictor", "UncertaintyMethod"]


class Predictor(Protocol):
    """Anything that predicts structures: a fitted method, or a stand-in in tests."""

    def predict(self, structures: Structures) -> Prediction:
        """Predict energies, forces and their uncertainty or score."""
        ...


class UncertaintyMethod(Predictor, Protocol):
    """A fitted uncertainty method."""

    name: ClassVar[str]
    targets: ClassVar[frozenset[str]]

    @classmethod
    def fit(cls, potential: Any, train: Structures, valid: Structures, *, seed: int) -> Self:
        """Fit to a trained potential; ``valid`` was not trained on and serves calibration."""
        ...

    def save(self, path: Path) -> None:
        """Write the fitted state as safetensors."""
        ...

    @classmethod
    def load(cls, path: Path, potential: Any) -> Self:
        """Restore a fitted state for the same potential."""
        ...
