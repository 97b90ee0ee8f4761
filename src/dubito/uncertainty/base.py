"""What every uncertainty method takes and gives; what it says is a :class:`dubito.data.prediction.Prediction`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from dubito.config.uncertainty import UncertaintyConfig
from dubito.data.prediction import Array, Prediction
from dubito.data.structures import Structures

__all__ = ["Array", "Prediction", "Predictor", "UncertaintyMethod", "evaluations_of"]


class Predictor(Protocol):
    """Anything that predicts structures: a fitted method, or a stand-in in tests."""

    def predict(self, structures: Structures) -> Prediction:
        """Predict energies, forces and their uncertainty or score."""
        ...


class UncertaintyMethod(Predictor, Protocol):
    """A fitted uncertainty method. The easiest way to make one is :class:`dubito.uncertainty.method.FittedMethod`.

    Attributes
    ----------
    name : its name in the registry, in configurations and in tables
    targets : what it gives an uncertainty or a score of: ``energy``, ``energies``, ``forces``
    evaluations : evaluations of one network, with forces, that a prediction costs; the members' own count
    """

    name: ClassVar[str]
    targets: ClassVar[frozenset[str]]

    @property
    def evaluations(self) -> float:
        """See the class."""
        ...

    @classmethod
    def fit(
        cls,
        potential: Any,
        train: Structures,
        valid: Structures,
        *,
        seed: int,
        config: UncertaintyConfig | None = None,
    ) -> Self:
        """Fit to a trained potential; ``valid`` was not trained on and serves calibration. None: defaults."""
        ...

    def save(self, path: Path) -> None:
        """Write the fitted state as safetensors."""
        ...

    @classmethod
    def load(cls, path: Path, potential: Any) -> Self:
        """Restore a fitted state for the same potential."""
        ...


def evaluations_of(method: Any, n_members: int) -> float:
    """Return the evaluations of one network that a prediction of a fitted method costs.

    Those of the members where a method of another package does not say it.
    """
    return float(getattr(method, "evaluations", n_members))
