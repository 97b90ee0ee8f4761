"""Thermal displacements along the normal modes of structures that the model relaxed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from dubito.config.sanity import SanityConfig
from dubito.config.static_sampling import NormalModesConfig
from dubito.core.errors import DataError
from dubito.core.logs import get_logger
from dubito.core.random import generator
from dubito.data.fingerprints import fingerprints
from dubito.data.sanity import NOT_FINITE, SanityCheck
from dubito.data.structures import Structures
from dubito.sampling.base import Sampled
from dubito.sampling.made import Made
from dubito.sampling.model_relaxation import relax_with_model
from dubito.sampling.starts import lowest_first, sane_labelled
from dubito.sampling.vibrations import NormalModes, displaced, normal_modes
from dubito.uncertainty.base import Predictor

log = get_logger(__name__)

# Relaxed structures whose sorted distances differ by less (Å, root mean square) are the same minimum.
_SAME = 0.02


@dataclass
class _Minima:
    """What was relaxed: the different minima, the ids of their starts, their modes, and what failed."""

    structures: list[Structures] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)
    modes: list[NormalModes] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    steps: int = 0


class NormalModesSampler:
    """See :class:`dubito.sampling.base.Sampler`."""

    name: ClassVar[str] = "normal_modes"

    def __init__(self, config: NormalModesConfig, sanity: SanityConfig) -> None:
        self.config, self.sanity = config, sanity

    def sample(self, predictor: Predictor, labelled: Structures, *, seed: int, iteration: int, job: int = 0) -> Sampled:
        """Relax labelled structures with the model, find their modes and displace along them.

        Displacements are independent of each other, so that each is a trajectory of its own. Structures whose
        relaxation leaves the sane region are given up and counted under the reason, beside the displaced ones.

        Raises
        ------
        DataError
            When no labelled structure is sane enough to start from, or all those are single atoms.
        """
        check, config = SanityCheck(self.sanity, labelled), self.config
        rng = generator(seed, self.name, iteration, job)
        known = sane_labelled(labelled, check)
        if (known.n_atoms < 2).all():
            raise DataError(
                "The sane labelled structures are single atoms, which have no normal modes, so that the sampler "
                "'normal_modes' has nothing to do. Take it out of sampling.sampler or sampling.more_samplers."
            )
        minima = self._minima(predictor, check, lowest_first(known[known.n_atoms > 1], rng))
        made, ladder = Made(Structures.concatenate(minima.structures)), config.temperatures_K
        for k in range(config.n_structures if minima.modes else 0):
            row = k % len(minima.modes)
            # Each minimum goes through all temperatures, and jobs go on where the one before ended.
            kelvin = ladder[(job * config.n_structures + k // len(minima.modes)) % len(ladder)]
            shift = minima.modes[row].displacement(kelvin, config.min_wavenumber_per_cm, rng)
            made.add(
                row,
                minima.structures[row].positions + shift,
                f"{self.name}_{kelvin:g}K",
                f"iter{iteration:03d}_job{job}_mode{k}",
            )
        return made.judged(
            predictor, check, iteration, stops=minima.failed, steps=minima.steps, parent_ids=minima.parents
        )

    def _minima(self, predictor: Predictor, check: SanityCheck, starts: Structures) -> _Minima:
        """Relax ``n_minima`` structures, and find the modes of those that are different."""
        found = _Minima()
        for start in starts[: self.config.n_minima]:
            relaxed = relax_with_model(
                start,
                predictor,
                check,
                max_force=self.config.max_force_ev_per_angstrom,
                max_steps=self.config.max_relaxation_steps,
            )
            found.steps += relaxed.steps
            if relaxed.reason:
                found.failed[relaxed.reason] += 1
            elif not _is_among(relaxed.structure, found.structures):
                modes = self._modes(predictor, relaxed.structure)
                found.steps += 6 * int(start.n_atoms[0])
                if modes is None:
                    found.failed[NOT_FINITE] += 1
                    continue
                found.structures.append(relaxed.structure)
                found.parents.append(start.ids[0])
                found.modes.append(modes)
                log.info("modes of a minimum at %.0f to %.0f 1/cm", *np.percentile(modes.wavenumbers, [0, 100]))
        return found

    def _modes(self, predictor: Predictor, one: Structures) -> NormalModes | None:
        """Return the modes of one structure, from one batch; None where forces are not numbers."""
        from ase.data import atomic_masses

        step = self.config.displacement_angstrom
        geometries = displaced(one.positions, step)
        batch = replace(one[np.zeros(len(geometries), int)], positions=geometries.reshape(-1, 3))
        forces = predictor.predict(batch).forces.reshape(geometries.shape)
        if not np.isfinite(forces).all():
            return None
        masses = atomic_masses[one.atomic_numbers]
        return normal_modes(one.positions, masses, forces, step, is_periodic=bool(one.pbc.any()))


def _is_among(one: Structures, known: list[Structures]) -> bool:
    if not known:
        return False
    return bool(fingerprints(Structures.concatenate(known)).to_one(fingerprints(one), 0).min() < _SAME)
