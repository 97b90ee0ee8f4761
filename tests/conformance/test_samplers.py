"""All samplers keep the samplers' contract."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from dubito.config.plugin_sampling import KNOWN_SAMPLERS
from dubito.config.sampling import LangevinConfig, SamplingConfig
from dubito.config.sanity import SanityConfig
from dubito.config.static_sampling import DihedralScanConfig, NormalModesConfig, RattleSamplerConfig
from dubito.core.errors import ConfigError
from dubito.data.structures import Structures
from dubito.sampling.base import Sampler
from dubito.sampling.dihedral_scan import DihedralScanSampler
from dubito.sampling.langevin import LangevinSampler
from dubito.sampling.normal_modes import NormalModesSampler
from dubito.sampling.rattle import RattleSampler
from dubito.sampling.registry import SAMPLERS, make_sampler
from dubito.testing.sampler_suite import SamplerTests
from dubito.testing.structures import toy_labels


class TestLangevin(SamplerTests):
    def make(self, sanity: SanityConfig) -> Sampler:
        config = LangevinConfig(n_walkers=5, n_steps=60, save_every_steps=12, temperatures_K=[300.0, 900.0])
        return LangevinSampler(config, sanity)


class TestRattle(SamplerTests):
    def make(self, sanity: SanityConfig) -> Sampler:
        return RattleSampler(RattleSamplerConfig(n_structures=14, displacements_angstrom=[0.02, 0.05]), sanity)


class TestNormalModes(SamplerTests):
    def make(self, sanity: SanityConfig) -> Sampler:
        return NormalModesSampler(NormalModesConfig(n_structures=14, temperatures_K=[100.0, 300.0]), sanity)


class TestDihedralScan(SamplerTests):
    def make(self, sanity: SanityConfig) -> Sampler:
        return DihedralScanSampler(DihedralScanConfig(n_structures=14, step_degrees=60), sanity)

    @pytest.fixture
    def labelled(self) -> Structures:
        ethanol = molecule("CH3CH2OH")
        rng = np.random.default_rng(2)
        moved = [ethanol.positions + rng.normal(scale=0.02, size=(9, 3)) for _ in range(4)]
        return toy_labels(Structures.build([ethanol.numbers] * 4, moved))


def test_registry_gives_every_name() -> None:
    for name in SAMPLERS.known():
        assert SAMPLERS.load(name).name == name
    assert set(SAMPLERS.own) == set(KNOWN_SAMPLERS)
    assert isinstance(make_sampler(SamplingConfig()), LangevinSampler)


def test_unknown_sampler_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'langevine' is not a known sampler\. Did you mean 'langevin'"):
        SAMPLERS.load("langevine")
