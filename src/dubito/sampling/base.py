"""What every sampler takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from dubito.config.sampling import LangevinConfig
from dubito.config.sanity import SanityConfig
from dubito.data.structures import Structures
from dubito.uncertainty.base import Predictor


@dataclass(frozen=True)
class Sampled:
    """What one job of a sampler found.

    Attributes
    ----------
    candidates : sane structures with ``origin/*`` filled in: sampler, iteration, parent (id of the
        structure they started from), trajectory (unique in the campaign), source
    stops : how many walkers ended for each reason
    steps : steps of all walkers together
    walkers : number of walkers
    """

    candidates: Structures
    stops: Mapping[str, int]
    steps: int
    walkers: int


class Sampler(Protocol):
    """Finds candidates with a fitted method, starting from labelled structures."""

    name: ClassVar[str]

    def __init__(self, config: LangevinConfig, sanity: SanityConfig) -> None:
        """Take the sampler's settings and the sane region."""
        ...

    def sample(self, predictor: Predictor, labelled: Structures, *, seed: int, iteration: int, job: int = 0) -> Sampled:
        """Explore. Equal arguments give equal candidates; jobs with other numbers give other ones."""
        ...
