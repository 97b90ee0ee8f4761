"""The samplers by name. Third parties add theirs as entry points ``dubito.samplers``."""

from __future__ import annotations

from typing import cast

from dubito.config.sampling import SamplingConfig
from dubito.core.plugins import Registry
from dubito.sampling.base import Sampler

SAMPLERS = Registry(
    "sampler",
    {
        "langevin": "dubito.sampling.langevin:LangevinSampler",
        "biased_langevin": "dubito.sampling.biased:BiasedLangevinSampler",
        "adversarial": "dubito.sampling.adversarial:AdversarialSampler",
        "normal_modes": "dubito.sampling.normal_modes:NormalModesSampler",
        "rattle": "dubito.sampling.rattle:RattleSampler",
        "dihedral_scan": "dubito.sampling.dihedral_scan:DihedralScanSampler",
    },
    "dubito.samplers",
)


def make_sampler(config: SamplingConfig) -> Sampler:
    """Return the first sampler of a configuration; that of a job has only one.

    Raises
    ------
    ConfigError
        When no sampler has this name.
    """
    return make_samplers(config)[0]


def make_samplers(config: SamplingConfig) -> list[Sampler]:
    """Return all samplers of a configuration, in order.

    Raises
    ------
    ConfigError
        When no sampler has one of the names.
    """
    return [cast(Sampler, SAMPLERS.load(sampler.kind)(sampler, config.sanity)) for sampler in config.samplers]
