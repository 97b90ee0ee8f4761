"""Section ``sampling``: how the configuration space is explored, and what still counts as sane."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dubito.config.base import Section
from dubito.config.biased_sampling import AdversarialConfig, BiasedLangevinConfig
from dubito.config.langevin import LangevinConfig
from dubito.config.sanity import SanityConfig
from dubito.config.static_sampling import DihedralScanConfig, NormalModesConfig, RattleSamplerConfig

__all__ = ["LangevinConfig", "SamplerConfig", "SamplingConfig"]

SamplerConfig = (
    LangevinConfig
    | BiasedLangevinConfig
    | AdversarialConfig
    | NormalModesConfig
    | RattleSamplerConfig
    | DihedralScanConfig
)


class SamplingConfig(Section):
    """How candidates are found."""

    sampler: Annotated[SamplerConfig, Field(discriminator="kind")] = Field(
        default_factory=LangevinConfig, description="The sampler and its settings."
    )
    more_samplers: list[Annotated[SamplerConfig, Field(discriminator="kind")]] = Field(
        [], description="Further samplers, whose candidates join the same pool."
    )
    sanity: SanityConfig = Field(default_factory=SanityConfig, description="The sane region.")

    @property
    def samplers(self) -> list[SamplerConfig]:
        """All samplers, in order; job ``j`` belongs to the first whose jobs, counted on, reach beyond ``j``."""
        return [self.sampler, *self.more_samplers]

    @property
    def n_jobs(self) -> int:
        """Jobs of all samplers together."""
        return sum(sampler.n_jobs for sampler in self.samplers)
