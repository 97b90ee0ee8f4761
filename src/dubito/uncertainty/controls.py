"""Controls: what every method has to beat before its doubt is worth anything.

``force_norm``: the size of the predicted force; nearly tells temperatures apart by itself. ``constant``: one standard
deviation for all, from the calibration; in distribution it is hard to beat in coverage. ``random``: ranks nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from dubito.config.uncertainty import UncertaintyConfig
from dubito.core.random import seed_for
from dubito.data.neighbors import find_neighbors
from dubito.data.prediction import Array, Prediction
from dubito.data.structures import Structures
from dubito.metrics.reduce import atom_norm
from dubito.model.potential import Potential
from dubito.uncertainty.method import Doubt, FittedMethod, Tensors

# Sums of distances are rounded to this before they are hashed, Å: far above what a rotation rounds off.
GRAIN_ANGSTROM = 1e-6


class Control(FittedMethod):
    """A method without anything to learn but its calibration."""

    is_sigma: ClassVar[bool] = False

    def learn(self, train: Structures, unseen: Structures, *, seed: int, config: UncertaintyConfig) -> Structures:
        """Nothing to learn."""
        return unseen

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Nothing besides the calibration."""
        return {}, {}

    def restore(self, tensors: Tensors, settings: dict[str, Any]) -> None:
        """Nothing to restore."""


class ForceNormControl(Control):
    """The norm of the predicted force, in units of the training set's force scale."""

    name: ClassVar[str] = "force_norm"

    def doubt(self, structures: Structures, prediction: Prediction) -> Doubt:
        """Return the norms."""
        score = atom_norm(prediction.forces) / self.potential.statistics.force_scale_ev_per_angstrom
        return Doubt(score, score)


class ConstantControl(Control):
    """The same doubt for all atoms; the calibration makes it their root mean square error."""

    name: ClassVar[str] = "constant"

    def calibrate(self, unseen: Structures, config: UncertaintyConfig) -> None:
        """Calibrate over all elements together: one standard deviation for each would be another control."""
        together = config.calibration.model_copy(update={"strata": "none"})
        super().calibrate(unseen, config.model_copy(update={"calibration": together}))

    def doubt(self, structures: Structures, prediction: Prediction) -> Doubt:
        """Return ones."""
        score = np.ones(len(structures.atomic_numbers))
        return Doubt(score, score)


class RandomControl(Control):
    """A number in [0, 1) for each atom, uniform, the same whenever the same environment is seen.

    It is a hash of the seed, the element and the sum over neighbours of ``r_max - distance``, rounded to 1e-6 Å: so it
    does not change under rotation, reflection, translation, permutation and batching, as a draw would. The sum passes
    continuously through the cutoff. Atoms equivalent by symmetry share their number; so do all atoms of an element
    without any neighbour.
    """

    name: ClassVar[str] = "random"

    def __init__(self, potential: Potential) -> None:
        super().__init__(potential)
        self.seed = 0

    def learn(self, train: Structures, unseen: Structures, *, seed: int, config: UncertaintyConfig) -> Structures:
        """Take up the seed."""
        self.seed = seed_for(seed, self.name)
        return unseen

    def doubt(self, structures: Structures, prediction: Prediction) -> Doubt:
        """Return the hashes."""
        r_max, n = self.potential.config.r_max_angstrom, len(structures.atomic_numbers)
        pairs = find_neighbors(structures, r_max)
        inside = r_max - np.linalg.norm(pairs.vectors, axis=1)
        total = np.bincount(pairs.center, weights=inside, minlength=n)
        score = uniform(self.seed, structures.atomic_numbers, np.rint(total / GRAIN_ANGSTROM))
        return Doubt(score, score)

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Return the seed."""
        return {}, {"seed": self.seed}

    def restore(self, tensors: Tensors, settings: dict[str, Any]) -> None:
        """Take back the seed."""
        self.seed = int(settings["seed"])


def uniform(seed: int, *keys: Array) -> Array:
    """Return numbers in [0, 1), (N,), that follow from the seed and whole-number keys (N,) alone."""
    state = np.full(len(keys[0]), seed, "u8")
    for key in keys:
        state = _mixed(state ^ np.asarray(key).astype("i8").view("u8"))
    out: Array = (state >> np.uint64(11)) * 2.0**-53
    return out


def _mixed(state: Array) -> Array:
    """One step of SplitMix64 (Steele et al. 2014, https://doi.org/10.1145/2714064.2660195); wraps at 2^64."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    out: Array = state ^ (state >> np.uint64(31))
    return out
