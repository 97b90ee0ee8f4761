"""Langevin dynamics that is pulled towards doubt: on the energy less a multiple of its standard deviation.

``E - tau sigma_E`` (van der Oord et al. 2023, https://doi.org/10.1038/s41524-023-01104-6; Zaverkin et al. 2024,
https://doi.org/10.1038/s41524-024-01254-1). The pull ``tau d sigma_E / dr`` needs the members' energies and forces only
(:mod:`dubito.uncertainty.deviations`), which the evaluation gives anyway: a step costs what a plain one costs.

``tau`` is found for each walker by itself: the pull's root mean square is ``bias_fraction`` of the force's, both
averaged over the walker's recent past. It therefore needs no calibration, and no temperature needs another one.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from dubito.config.biased_sampling import BiasedLangevinConfig
from dubito.core.logs import get_logger
from dubito.data.prediction import Prediction
from dubito.data.sanity import SanityCheck
from dubito.data.structures import Array
from dubito.sampling.langevin import Flight, LangevinSampler
from dubito.sampling.walkers import Walkers
from dubito.uncertainty.base import Predictor
from dubito.uncertainty.deviations import MemberPredictor, with_members

log = get_logger(__name__)

# Steps over which squares of forces and gradients are averaged, some periods of a stiff bond: tau must not follow
# single vibrations, which would make the pull a friction of its own.
_MEMORY_STEPS = 200
_HYDROGEN = 1


class BiasedLangevinSampler(LangevinSampler):
    """See :class:`dubito.sampling.base.Sampler`. Its walkers start and shake like those of the plain one."""

    name: ClassVar[str] = "biased_langevin"
    config: BiasedLangevinConfig

    def fly(self, predictor: Predictor | Any, check: SanityCheck, walkers: Walkers) -> Flight:
        """Propagate with the pull.

        Raises
        ------
        ModelError
            When the method can't tell members apart.
        """
        flight = BiasedFlight(self.config, with_members(predictor, self.name), check, walkers)
        flight.run()
        log.info("tau of the walkers: %s", ", ".join(f"{tau:.3g}" for tau in flight.tau(np.arange(len(flight.forces)))))
        return flight


class BiasedFlight(Flight):
    """A flight with running averages, which stay with the walkers' numbers when others leave."""

    config: BiasedLangevinConfig

    def __init__(
        self, config: BiasedLangevinConfig, predictor: MemberPredictor, check: SanityCheck, walkers: Walkers
    ) -> None:
        super().__init__(config, predictor, check, walkers)
        self.members = predictor
        self.evaluated = 0
        # (n,) means of the squares of a walker's forces and gradients, (eV/Å)^2.
        self.forces, self.gradients = np.zeros(len(walkers)), np.zeros(len(walkers))

    def tau(self, walkers: Array) -> Array:
        """Return the factor of the standard deviation for walkers, by number; 0 where nothing points anywhere."""
        forces, gradients = self.forces[walkers], self.gradients[walkers]
        ratio = np.divide(forces, gradients, out=np.zeros_like(forces), where=gradients > 0)
        out: Array = self.config.bias_fraction * np.sqrt(ratio)
        return out

    def evaluate(self) -> tuple[Prediction, Array]:
        """Predict, and add the pull to the forces once the burn-in is over."""
        structures, number = self.walkers.structures, self.walkers.number
        prediction, deviations = self.members.predict_members(structures)
        gradient = deviations.energy_sigma_gradient(structures.ptr)
        if not self.config.bias_hydrogen:
            gradient = np.where((structures.atomic_numbers == _HYDROGEN)[:, None], 0.0, gradient)
        self.evaluated += 1
        weight = 1 / min(self.evaluated, _MEMORY_STEPS)
        for mean, vectors in ((self.forces, prediction.forces), (self.gradients, gradient)):
            squares = np.add.reduceat(np.sum(vectors**2, axis=1), structures.ptr[:-1]) / structures.n_atoms
            mean[number] += weight * (squares - mean[number])
        if self.evaluated <= self.config.burn_in_steps:
            return prediction, prediction.forces
        return prediction, prediction.forces + np.repeat(self.tau(number), structures.n_atoms)[:, None] * gradient
