"""What every sampler takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

from dubito.config.sanity import SanityConfig
from dubito.data.structures import Structures
from dubito.uncertainty.base import Predictor

COMPLETED: Final = "completed"
"""Why a walker stopped, or a structure is done with, when nothing was wrong; else a reason of the sane region."""


@dataclass(frozen=True)
class Sampled:
    """What one job of a sampler found.

    Attributes
    ----------
    candidates : sane structures with ``origin/*`` filled in: sampler, iteration, parent (id of the
        structure they started from), trajectory (unique in the campaign), source
    stops : how many walkers ended for each reason; of samplers without dynamics, structures
    steps : steps of all walkers together, or structures predicted
    walkers : number of walkers, or of structures made; the sum of ``stops``
    are : what those are called in a sentence
    """

    candidates: Structures
    stops: Mapping[str, int]
    steps: int
    walkers: int
    are: str = "walkers"


class Sampler(Protocol):
    """Finds candidates with a fitted method, starting from labelled structures."""

    name: ClassVar[str]

    def __init__(self, config: Any, sanity: SanityConfig) -> None:
        """Take the sampler's settings and the sane region.

        The settings of a sampler of another package are a
        :class:`dubito.config.plugin_sampling.PluginSamplerConfig`, with what the user wrote in ``config.settings``.
        """
        ...

    def sample(self, predictor: Predictor, labelled: Structures, *, seed: int, iteration: int, job: int = 0) -> Sampled:
        """Explore. Equal arguments give equal candidates; jobs with other numbers give other ones.

        Jobs are numbered through all samplers of a campaign, so that trajectories named by iteration and job are
        unique in it.
        """
        ...
