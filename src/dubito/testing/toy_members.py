"""The toy predictor with two members, for samplers that follow the spread of members."""

from __future__ import annotations

import numpy as np

from dubito.data.prediction import Prediction
from dubito.data.structures import Array, Structures
from dubito.testing.sampler_suite import Doubt, Spoil, ToyPredictor
from dubito.uncertainty.deviations import Deviations


def size(structures: Structures) -> tuple[Array, Array]:
    """Return the sum of all distances in each structure, (n,) Å, and its gradient (N, 3)."""
    total, gradient = np.zeros(len(structures)), np.zeros_like(structures.positions)
    for i, (a, b) in enumerate(zip(structures.ptr[:-1], structures.ptr[1:], strict=True)):
        difference = structures.positions[a:b, None] - structures.positions[None, a:b]
        distance = np.linalg.norm(difference, axis=2)
        total[i] = distance.sum() / 2
        gradient[a:b] = np.sum(difference / (distance + np.eye(b - a))[:, :, None], axis=1)
    return total, gradient


class ToyMembers(ToyPredictor):
    """Its members say ``spread`` times the molecule's :func:`size` more and less than their mean.

    Parameters
    ----------
    spread : eV/Å; the standard deviation of an energy is sqrt(2) times as much for each Å of the size
    """

    def __init__(self, doubt: Doubt | float = 0.01, spoil: Spoil | None = None, spread: float = 0.01) -> None:
        super().__init__(doubt, spoil)
        self.spread = spread

    def predict_members(self, structures: Structures) -> tuple[Prediction, Deviations]:
        """Predict, and return the two members' deviations."""
        total, gradient = size(structures)
        energy, forces = self.spread * total, -self.spread * gradient
        return self.predict(structures), Deviations(np.stack([energy, -energy]), np.stack([forces, -forces]))
