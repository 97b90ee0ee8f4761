"""Deep ensemble: the spread of members that differ in their initial weights.

Lakshminarayanan et al. 2017, https://arxiv.org/abs/1612.01474. The standard deviation is the sample
one (ddof = 1), of forces pooled over the three components: rotation-invariant, and steadier with few members.

The *small-sample correction* is stated rather than applied twice: with M members the variance is estimated with
3 (M - 1) degrees of freedom, so even the z of perfect Gaussian members has variance ``nu / (nu - 2)``, nu = 3 (M - 1)
(Student's t; that of a single component, nu = M - 1, would be infinite up to 3 members). The calibration factor,
fitted on unseen structures, holds this and the overconfidence of the members together; the root of
:func:`dubito.metrics.ceiling.ensemble_mean_squared_z` is the small sample's part of it.
"""

from __future__ import annotations

from typing import Any, ClassVar

from dubito.config.uncertainty import UncertaintyConfig
from dubito.data.prediction import Array, Prediction
from dubito.data.structures import Structures
from dubito.uncertainty.deviations import Deviations
from dubito.uncertainty.method import Doubt, FittedMethod, Tensors


class EnsembleUncertainty(FittedMethod):
    """See :class:`dubito.uncertainty.base.UncertaintyMethod`."""

    name: ClassVar[str] = "ensemble"
    targets: ClassVar[frozenset[str]] = frozenset({"energy", "energies", "forces"})
    is_sigma: ClassVar[bool] = True
    min_members: ClassVar[int] = 2

    def learn(self, train: Structures, unseen: Structures, *, seed: int, config: UncertaintyConfig) -> Structures:
        """Nothing to learn: the members were trained."""
        return unseen

    def doubt(self, structures: Structures, prediction: Prediction) -> Doubt:
        """Return the members' spread."""
        spread = prediction.uncertainty
        return Doubt(spread["forces"][:, 0], spread["energies"], spread["energy"])

    def doubt_and_deviations(self, structures: Structures, prediction: Prediction) -> tuple[Doubt, Deviations]:
        """Return the members' spread, and their calibrated deviations."""
        return self.doubt(structures, prediction), Deviations.of(prediction, self._fitted().factor)

    def _spread(self, prediction: Prediction, factor: float) -> Array | None:
        """Return the members' energies, spread about their mean by the factor.

        So that the deviation of anything made from them (an energy difference, a barrier) is on the same scale.
        """
        if prediction.energy_ensemble is None:
            return None
        mean = prediction.energy_ensemble.mean(axis=1, keepdims=True)
        out: Array = mean + factor * (prediction.energy_ensemble - mean)
        return out

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Nothing besides the calibration."""
        return {}, {"n_members": self.potential.n_members}

    def restore(self, tensors: Tensors, settings: dict[str, Any]) -> None:
        """Nothing to restore."""
