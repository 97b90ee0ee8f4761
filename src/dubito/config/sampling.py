"""Section ``sampling``: how the configuration space is explored, and what still counts as sane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from dubito.config.base import Section
from dubito.config.biased_sampling import AdversarialConfig, BiasedLangevinConfig
from dubito.config.langevin import LangevinConfig
from dubito.config.plugin_sampling import KNOWN_SAMPLERS, PluginSamplerConfig
from dubito.config.sanity import SanityConfig
from dubito.config.static_sampling import DihedralScanConfig, NormalModesConfig, RattleSamplerConfig

__all__ = ["LangevinConfig", "SamplerConfig", "SamplingConfig"]

PLUGIN = "plugin"


def _kind(value: Any) -> str:
    """Return which settings these are: those of the kind named, of langevin where none is, else a plug-in's."""
    kind = value.get("kind", "langevin") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return kind if isinstance(kind, str) and kind in KNOWN_SAMPLERS else PLUGIN


SamplerConfig = (
    LangevinConfig
    | BiasedLangevinConfig
    | AdversarialConfig
    | NormalModesConfig
    | RattleSamplerConfig
    | DihedralScanConfig
    | PluginSamplerConfig
)
_AnySampler = Annotated[
    Annotated[LangevinConfig, Tag("langevin")]
    | Annotated[BiasedLangevinConfig, Tag("biased_langevin")]
    | Annotated[AdversarialConfig, Tag("adversarial")]
    | Annotated[NormalModesConfig, Tag("normal_modes")]
    | Annotated[RattleSamplerConfig, Tag("rattle")]
    | Annotated[DihedralScanConfig, Tag("dihedral_scan")]
    | Annotated[PluginSamplerConfig, Tag(PLUGIN)],
    Discriminator(_kind),
]


class SamplingConfig(Section):
    """How candidates are found."""

    sampler: _AnySampler = Field(default_factory=LangevinConfig, description="The sampler and its settings.")
    more_samplers: list[_AnySampler] = Field([], description="Further samplers, whose candidates join the same pool.")
    sanity: SanityConfig = Field(default_factory=SanityConfig, description="The sane region.")

    @property
    def samplers(self) -> list[SamplerConfig]:
        """All samplers, in order."""
        return [self.sampler, *self.more_samplers]

    @property
    def n_jobs(self) -> int:
        """Jobs of all samplers together."""
        return sum(sampler.n_jobs for sampler in self.samplers)

    @property
    def words(self) -> str:
        """What explores, for reports."""
        return "; ".join(sampler.words for sampler in self.samplers)

    def sampler_of_job(self, job: int) -> SamplerConfig:
        """Return the sampler that a job runs: jobs are numbered through all samplers, in order.

        Raises
        ------
        IndexError
            When there is no such job.
        """
        left = job
        for sampler in self.samplers:
            if 0 <= left < sampler.n_jobs:
                return sampler
            left -= sampler.n_jobs
        raise IndexError(f"there is no job {job}: {self.n_jobs} jobs explore, counted from 0")
