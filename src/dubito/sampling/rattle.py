"""Random displacements of labelled structures: the cheap baseline that other samplers have to beat."""

from __future__ import annotations

from typing import ClassVar

from dubito.config.sanity import SanityConfig
from dubito.config.static_sampling import RattleSamplerConfig
from dubito.core.random import generator
from dubito.data.sanity import SanityCheck
from dubito.data.structures import Structures
from dubito.sampling.base import Sampled
from dubito.sampling.made import Made
from dubito.sampling.starts import draw, sane_labelled
from dubito.uncertainty.base import Predictor


class RattleSampler:
    """See :class:`dubito.sampling.base.Sampler`."""

    name: ClassVar[str] = "rattle"

    def __init__(self, config: RattleSamplerConfig, sanity: SanityConfig) -> None:
        self.config, self.sanity = config, sanity

    def sample(self, predictor: Predictor, labelled: Structures, *, seed: int, iteration: int, job: int = 0) -> Sampled:
        """Displace every coordinate by independent normal numbers, of the given widths in turn.

        Copies of one start share a trajectory, so that they are not parted between training and validation.

        Raises
        ------
        DataError
            When no labelled structure is sane enough to start from.
        """
        check = SanityCheck(self.sanity, labelled)
        known = sane_labelled(labelled, check)
        rng = generator(seed, self.name, iteration, job)
        starts = draw(known, self.config.n_structures, rng)
        widths, made = self.config.displacements_angstrom, Made(starts)
        row = {name: i for i, name in enumerate(known.ids)}
        for k, name in enumerate(starts.ids):
            # Jobs go on where the one before ended, so that each width has its share.
            width = widths[(job * len(starts) + k) % len(widths)]
            positions = starts.positions[starts.ptr[k] : starts.ptr[k + 1]]
            moved = positions + rng.normal(scale=width, size=positions.shape)
            made.add(k, moved, f"{self.name}_{width:g}A", f"iter{iteration:03d}_job{job}_start{row[name]}")
        return made.judged(predictor, check, iteration)
