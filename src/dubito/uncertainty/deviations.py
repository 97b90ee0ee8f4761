"""How members deviate from their mean, and where the doubt of an energy grows: no second derivatives needed.

With M members the variance of an energy is ``sigma^2 = sum_m dE_m^2 / (M - 1)``, ``dE_m = E_m - mean E``, so that

    d sigma / dr = - sum_m dE_m dF_m / ((M - 1) sigma),    dF_m = F_m - mean F,

needs the members' energies and forces and nothing else (the linear bias of Zaverkin et al. 2024,
https://doi.org/10.1038/s41524-024-01254-1; constant energies of atoms cancel). By Cauchy and Schwarz each component is
at most the members' spread of that force component: there is no singularity where sigma vanishes, only no direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from dubito.config.uncertainty import MEMBERS_IN_ONE_NETWORK
from dubito.core.errors import ModelError
from dubito.data.prediction import Array, Prediction
from dubito.data.structures import Structures
from dubito.uncertainty.base import Predictor

# Members that agree to rounding point nowhere.
_SMALLEST_SIGMA_EV = 1e-12


@dataclass(frozen=True)
class Deviations:
    """Deviations of M members from their mean, of ``n`` structures with ``N`` atoms.

    On the scale of the method's calibrated standard deviations where these are the members' spread; else as they are.

    Attributes
    ----------
    energy : (M, n) eV
    forces : (M, N, 3) eV/Å
    """

    energy: Array
    forces: Array

    @classmethod
    def of(cls, prediction: Prediction, factor: float = 1.0) -> Self:
        """Return those of a potential's prediction with its members, times a factor.

        Raises
        ------
        ModelError
            When the prediction does not hold what at least two members say.
        """
        energy, forces = prediction.energy_ensemble, prediction.forces_ensemble
        if energy is None or forces is None or len(forces) < 2:
            raise ModelError(
                "The direction in which doubt grows is taken from the spread of at least two members, found "
                f"{0 if forces is None else len(forces)}. Raise training.n_members, or set uncertainty.acquire_with "
                f"to a method of one network that has members of its own ({' or '.join(MEMBERS_IN_ONE_NETWORK)})."
            )
        return cls(factor * (energy - energy.mean(axis=1, keepdims=True)).T, factor * (forces - forces.mean(axis=0)))

    def energy_sigma(self) -> Array:
        """Return the standard deviation of each energy, (n,) eV."""
        out: Array = np.sqrt(np.sum(self.energy**2, axis=0) / max(len(self.energy) - 1, 1))
        return out

    def energy_sigma_gradient(self, ptr: Array) -> Array:
        """Return the gradient of :meth:`energy_sigma`, (N, 3) eV/Å; zeros where the members agree."""
        sigma, sizes = self.energy_sigma(), np.diff(ptr)
        weight = np.divide(
            self.energy,
            max(len(self.energy) - 1, 1) * sigma,
            out=np.zeros_like(self.energy),
            where=sigma > _SMALLEST_SIGMA_EV,
        )
        out: Array = -np.einsum("mi,mik->ik", np.repeat(weight, sizes, axis=1), self.forces)
        return out


@runtime_checkable
class MemberPredictor(Protocol):
    """A predictor that can tell members apart. All methods built on ``FittedMethod`` can, given members."""

    def predict(self, structures: Structures) -> Prediction:
        """See :class:`dubito.uncertainty.base.Predictor`."""
        ...

    def predict_members(self, structures: Structures) -> tuple[Prediction, Deviations]:
        """Return what ``predict`` returns, bit for bit, and the deviations, for one evaluation together."""
        ...


def with_members(predictor: Predictor | Any, sampler: str) -> MemberPredictor:
    """Return the predictor, if it can tell members apart.

    Raises
    ------
    ModelError
        When it can't.
    """
    if isinstance(predictor, MemberPredictor):
        return predictor
    raise ModelError(
        f"The sampler '{sampler}' follows the spread of members, but the method in uncertainty.acquire_with "
        f"('{getattr(predictor, 'name', type(predictor).__name__)}') has no predict_members. All methods of dubito "
        "have it; one of another package gets it by deriving from dubito.uncertainty.method.FittedMethod."
    )
