"""The samplers that look for doubt keep the samplers' contract."""

from __future__ import annotations

from collections.abc import Callable

from dubito.config.biased_sampling import AdversarialConfig, BiasedLangevinConfig
from dubito.config.sanity import SanityConfig
from dubito.data.prediction import Prediction
from dubito.data.structures import Array, Structures
from dubito.sampling.adversarial import AdversarialSampler
from dubito.sampling.base import Sampler
from dubito.sampling.biased import BiasedLangevinSampler
from dubito.testing.sampler_suite import SamplerTests
from dubito.testing.toy_members import ToyMembers, size
from dubito.uncertainty.base import Predictor

Spoil = Callable[[Structures, Prediction], Prediction]


class TestBiasedLangevin(SamplerTests):
    def make(self, sanity: SanityConfig) -> Sampler:
        config = BiasedLangevinConfig(
            n_walkers=5, n_steps=60, burn_in_steps=10, save_every_steps=12, temperatures_K=[300.0, 900.0]
        )
        return BiasedLangevinSampler(config, sanity)

    def make_predictor(
        self, doubt: Callable[[Structures], Array] | float = 0.01, spoil: Spoil | None = None
    ) -> Predictor:
        return ToyMembers(doubt, spoil)


def growing(structures: Structures) -> Array:
    """Return a doubt of an eV/Å for each Å that a molecule is larger than 7 Å; ammonia has 7.9 Å."""
    out: Array = (size(structures)[0] - 7.0).repeat(structures.n_atoms)
    return out


class TestAdversarial(SamplerTests):
    def make(self, sanity: SanityConfig) -> Sampler:
        return AdversarialSampler(AdversarialConfig(n_structures=7, target_error_ev_per_angstrom=2.5), sanity)

    def make_predictor(
        self, doubt: Callable[[Structures], Array] | float = growing, spoil: Spoil | None = None
    ) -> Predictor:
        return ToyMembers(doubt, spoil)
