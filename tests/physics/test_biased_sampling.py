"""Biased dynamics: its pull in closed form, the same steps without it, and fewer steps to a doubt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dubito.config.biased_sampling import BiasedLangevinConfig
from dubito.config.langevin import LangevinConfig
from dubito.config.sanity import SanityConfig
from dubito.core.errors import ModelError
from dubito.core.units import BOLTZMANN_EV_PER_K
from dubito.data.prediction import Prediction
from dubito.data.sanity import SanityCheck
from dubito.data.structures import Array, Structures
from dubito.metrics.reduce import worst_atom
from dubito.sampling.base import Sampled
from dubito.sampling.biased import BiasedFlight, BiasedLangevinSampler
from dubito.sampling.langevin import LangevinSampler
from dubito.sampling.walkers import Walkers
from dubito.testing.sampler_suite import ToyPredictor
from dubito.testing.structures import rattled, toy_labels
from dubito.testing.toy_members import ToyMembers
from dubito.testing.uncertainty_suite import trained_potential
from dubito.uncertainty.deviations import Deviations
from dubito.uncertainty.ensemble import EnsembleUncertainty

SANITY = SanityConfig(max_energy_above_min_ev_per_atom=3.0)
SHORT = {"n_walkers": 5, "n_steps": 60, "save_every_steps": 6, "burn_in_steps": 20}


class DividedSprings:
    """N2 in a harmonic well of 20 eV/Å² at 1.1 Å, whose two members disagree in proportion to the bond."""

    K, R0 = 20.0, 1.1

    def __init__(self, spread: float = 0.1) -> None:
        self.spread = spread

    def predict(self, structures: Structures) -> Prediction:
        return self.predict_members(structures)[0]

    def predict_members(self, structures: Structures) -> tuple[Prediction, Deviations]:
        bond = structures.positions[1::2] - structures.positions[::2]
        r = np.linalg.norm(bond, axis=1)
        unit = np.stack([bond, -bond], axis=1).reshape(-1, 3) / np.repeat(r, 2)[:, None]
        forces = np.repeat(self.K * (r - self.R0), 2)[:, None] * unit
        energy = 0.5 * self.K * (r - self.R0) ** 2 - 100.0
        said = Prediction(
            structures.ptr, energy, np.repeat(energy / 2, 2), forces, {"forces": np.full_like(forces, 0.01)}
        )
        e, f = self.spread * r, self.spread * unit
        return said, Deviations(np.stack([e, -e]), np.stack([f, -f]))


def nitrogen(n: int) -> Structures:
    bonds = 1.1 + 0.001 * np.arange(n) / n
    return Structures.build(
        [[7, 7]] * n,
        [[[0, 0, 0], [0, 0, r]] for r in bonds],
        labels__energy=-100.0,
        labels__forces=np.full((2 * n, 3), 0.01),
        labels__mask=True,
    )


def ammonia() -> Structures:
    return toy_labels(rattled(6, seed=4, displacement=0.03, molecules="ammonia"))


def fly(predictor: Any, labelled: Structures, *, seed: int = 3, biased: bool = True, **config: Any) -> Sampled:
    if biased:
        sampler: LangevinSampler = BiasedLangevinSampler(BiasedLangevinConfig(**config), SANITY)
    else:
        plain = {key: config[key] for key in config if key in LangevinConfig.model_fields}
        sampler = LangevinSampler(LangevinConfig(**plain), SANITY)
    return sampler.sample(predictor, labelled, seed=seed, iteration=1)


def test_without_a_pull_it_is_plain_langevin_bit_for_bit() -> None:
    plain = fly(ToyMembers(), ammonia(), biased=False, **SHORT)
    still = fly(ToyMembers(), ammonia(), bias_fraction=0.0, **SHORT)
    np.testing.assert_array_equal(still.candidates.positions, plain.candidates.positions)
    assert (still.steps, still.stops) == (plain.steps, plain.stops)
    assert {name.partition("_")[0] for name in still.candidates.text("origin/sampler")} == {"biased"}


def test_the_pull_begins_after_the_burn_in() -> None:
    plain = fly(ToyMembers(), ammonia(), biased=False, **SHORT).candidates.positions.reshape(5, 10, 4, 3)
    pulled = fly(ToyMembers(), ammonia(), bias_fraction=1.0, **SHORT).candidates.positions.reshape(5, 10, 4, 3)
    # Saved at steps 6, 12, 18, 24, ...
    np.testing.assert_array_equal(pulled[:, :3], plain[:, :3])
    assert np.abs(pulled[:, 3:] - plain[:, 3:]).max(axis=(1, 2, 3)).min() > 1e-4


def test_a_step_costs_what_a_plain_one_costs() -> None:
    predictor = ToyMembers()
    found = fly(predictor, ammonia(), **SHORT)
    assert sum(predictor.batches) == found.steps + 5


@pytest.mark.parametrize("fraction", [0.3, 0.6])
def test_the_pull_moves_a_well_by_what_it_should(fraction: float) -> None:
    # A pull p along the bond moves the mean of a harmonic bond by p / k. With p = f sqrt(<F^2>) and
    # <F^2> = k kT + p^2, p = f sqrt(k kT / (1 - f^2)), whatever the size of the members' disagreement.
    settings = {
        "n_walkers": 64,
        "n_steps": 900,
        "burn_in_steps": 100,
        "save_every_steps": 10,
        "temperatures_K": [300.0],
        "timestep_fs": 2.0,
        "friction_per_fs": 0.05,
    }

    def mean_bond(**more: Any) -> float:
        x = fly(DividedSprings(), nitrogen(64), **settings, **more).candidates.positions
        bonds = np.linalg.norm(x[1::2] - x[::2], axis=1).reshape(64, -1)
        return float(bonds[:, 40:].mean())

    k, kt = DividedSprings.K, BOLTZMANN_EV_PER_K * 300
    pull = fraction * np.sqrt(k * kt / (1 - fraction**2))
    assert mean_bond(bias_fraction=fraction) - mean_bond(biased=False) == pytest.approx(pull / k, rel=0.1)


def test_the_size_of_the_members_disagreement_does_not_matter() -> None:
    small = fly(ToyMembers(spread=1e-3), ammonia(), **SHORT).candidates.positions
    large = fly(ToyMembers(spread=4.0), ammonia(), **SHORT).candidates.positions
    np.testing.assert_allclose(small, large, atol=1e-9)


@pytest.mark.parametrize("hydrogen", [True, False])
def test_hydrogen_is_pulled_only_if_asked(hydrogen: bool) -> None:
    labelled = ammonia()
    config = BiasedLangevinConfig(bias_hydrogen=hydrogen, burn_in_steps=0, bias_fraction=0.5)
    walkers = Walkers.start(labelled, [300.0] * 6, timestep_fs=0.5, friction_per_fs=0.01, scope=(0, "", 0, 0))
    flight = BiasedFlight(config, ToyMembers(), SanityCheck(SANITY, labelled), walkers)
    said, forces = flight.evaluate()
    pull = np.linalg.norm(forces - said.forces, axis=1).reshape(6, 4)
    assert pull[:, 0].min() > 0
    assert (pull[:, 1:] > 0).all() == hydrogen
    # Averaged over all atoms of a walker it is the asked share of the force.
    rms = np.linalg.norm(said.forces, axis=1).reshape(6, 4)
    np.testing.assert_allclose((pull**2).mean(axis=1), 0.25 * (rms**2).mean(axis=1), rtol=1e-9)


def test_a_walker_that_leaves_does_not_disturb_the_others() -> None:
    def doubt(structures: Structures) -> Array:
        # Only the third walker of the batch ever doubts, from the start.
        return np.where((structures.structure_of_atom == 2) & (len(structures) == 5), 99.0, 0.01)

    calm = fly(ToyMembers(), ammonia(), **SHORT).candidates
    disturbed = fly(ToyMembers(doubt), ammonia(), **SHORT)
    assert disturbed.stops == {"uncertainty": 1, "completed": 4}
    expected = [i for i, t in enumerate(calm.text("origin/trajectory")) if not t.endswith("walker2")]
    # Sums over the atoms of a batch may round otherwise when the batch is another.
    np.testing.assert_allclose(disturbed.candidates.positions, calm[expected].positions, atol=1e-12)


def test_members_that_agree_pull_nowhere() -> None:
    plain = fly(ToyMembers(), ammonia(), biased=False, **SHORT).candidates
    agreed = fly(ToyMembers(spread=0.0), ammonia(), **SHORT).candidates
    np.testing.assert_array_equal(agreed.positions, plain.positions)


def test_a_method_without_members_can_not_pull() -> None:
    with pytest.raises(ModelError, match="'biased_langevin' follows the spread of members"):
        fly(ToyPredictor(), ammonia())


def test_a_burn_in_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="walkers would never be pulled"):
        BiasedLangevinConfig(n_steps=100, burn_in_steps=100)


def test_it_reaches_a_doubt_in_fewer_steps_than_plain_dynamics() -> None:
    # The same walkers, seeds and temperature, a network trained for seconds.
    potential = trained_potential(4)
    method = EnsembleUncertainty.fit(potential, ammonia(), toy_labels(rattled(12, seed=2)), seed=0)
    labelled = toy_labels(rattled(8, seed=1, displacement=0.03, molecules="ammonia"))
    start = method.predict(labelled)
    limit = 7.0 * float(np.median(worst_atom(start.uncertainty["forces"], start.ptr)))
    settings = {
        "n_walkers": 12,
        "n_steps": 700,
        "save_every_steps": 700,
        "temperatures_K": [300.0],
        "stop_uncertainty_ev_per_angstrom": limit,
    }
    plain, pulled = fly(method, labelled, biased=False, **settings), fly(method, labelled, **settings)
    assert pulled.stops["uncertainty"] >= 11
    # Walkers that never get there count with the steps they made, which favours the plain ones.
    assert plain.steps > 2 * pulled.steps
