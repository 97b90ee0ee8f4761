"""Energy along a path of structures: relative energies and the barrier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.core.errors import DataError

Array = NDArray[Any]


@dataclass(frozen=True)
class EnergyProfile:
    """Reference and predicted energies of the same ``n`` structures.

    Attributes
    ----------
    name : name in results
    coordinate : (n,) in ``coordinate_unit``
    reference, predicted : (n,) total energies, eV
    members : (n, M) total energy by each member, eV; or None
    minimum_index, barrier_index : structures between which the barrier is taken
    """

    name: str
    coordinate: Array
    coordinate_label: str
    coordinate_unit: str
    reference: Array
    predicted: Array
    members: Array | None
    minimum_index: int
    barrier_index: int

    def __post_init__(self) -> None:
        n = len(self.coordinate)
        if not (len(self.reference) == len(self.predicted) == n):
            raise DataError(
                f"Profile '{self.name}' has {n} coordinates, {len(self.reference)} reference and "
                f"{len(self.predicted)} predicted energies; make its file again."
            )
        if not (0 <= self.minimum_index < n and 0 <= self.barrier_index < n):
            raise DataError(
                f"Profile '{self.name}' has {n} points, but its minimum is point {self.minimum_index} and its "
                f"barrier point {self.barrier_index}; make its file again."
            )

    def relative(self, energies: Array) -> Array:
        """Return energies above the profile's minimum structure, same shape, eV."""
        out: Array = np.asarray(energies, "f8") - np.asarray(energies, "f8")[self.minimum_index]
        return out

    @property
    def barrier_reference(self) -> float:
        """Reference barrier, eV."""
        return float(self.relative(self.reference)[self.barrier_index])

    @property
    def barrier_predicted(self) -> float:
        """Predicted barrier, eV."""
        return float(self.relative(self.predicted)[self.barrier_index])

    @property
    def barrier_error(self) -> float:
        """Predicted minus reference barrier, eV."""
        return self.barrier_predicted - self.barrier_reference

    @property
    def max_error(self) -> float:
        """Largest absolute error of a relative energy along the profile, eV."""
        return float(np.max(np.abs(self.relative(self.predicted) - self.relative(self.reference))))

    def uncertainty(self) -> Array | None:
        """Return the members' standard deviation (ddof 1) of each relative energy, (n,) eV; None without.

        Taken over relative energies: what all points share cancels, as it does in a barrier.
        """
        if self.members is None or self.members.shape[1] < 2:
            return None
        out: Array = np.std(self.relative(self.members), axis=1, ddof=1)
        return out

    @property
    def barrier_uncertainty(self) -> float | None:
        """Standard deviation (ddof 1) of the members' barriers, eV; None with fewer than two members."""
        spread = self.uncertainty()
        return None if spread is None else float(spread[self.barrier_index])
