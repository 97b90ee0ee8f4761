"""All samplers keep the samplers' contract."""

from __future__ import annotations

import pytest

from dubito.config.sampling import LangevinConfig, SamplingConfig
from dubito.config.sanity import SanityConfig
from dubito.core.errors import ConfigError
from dubito.sampling.base import Sampler
from dubito.sampling.langevin import LangevinSampler
from dubito.sampling.registry import SAMPLERS, make_sampler
from dubito.testing.sampler_suite import SamplerTests


class TestLangevin(SamplerTests):
    def make(self, sanity: SanityConfig) -> Sampler:
        config = LangevinConfig(n_walkers=5, n_steps=60, save_every_steps=12, temperatures_K=[300.0, 900.0])
        return LangevinSampler(config, sanity)


def test_registry_gives_every_name() -> None:
    for name in SAMPLERS.known():
        assert SAMPLERS.load(name).name == name
    assert isinstance(make_sampler(SamplingConfig()), LangevinSampler)


def test_unknown_sampler_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'langevine' is not a known sampler\. Did you mean 'langevin'"):
        SAMPLERS.load("langevine")
