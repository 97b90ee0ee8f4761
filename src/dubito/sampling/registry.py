"""The samplers by name. Third parties add theirs as entry points ``dubito.samplers``."""

from __future__ import annotations

from typing import cast

from dubito.config.sampling import SamplingConfig
from dubito.core.plugins import Registry
from dubito.sampling.base import Sampler

SAMPLERS = Registry("sampler", {"langevin": "dubito.sampling.langevin:LangevinSampler"}, "dubito.samplers")


def make_sampler(config: SamplingConfig) -> Sampler:
    """Return the configured sampler.

    Raises
    ------
    ConfigError
        When no sampler has this name.
    """
    return cast(Sampler, SAMPLERS.load(config.sampler.kind)(config.sampler, config.sanity))
