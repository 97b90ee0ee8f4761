"""Displacements to a target: closed form, tolerance, ceilings, reasons for giving up, and the true error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dubito.config.biased_sampling import AdversarialConfig
from dubito.config.model import ModelConfig
from dubito.config.sanity import SanityConfig
from dubito.config.training import TrainingConfig
from dubito.core.errors import ModelError
from dubito.data.prediction import Prediction
from dubito.data.sanity import SanityCheck
from dubito.data.statistics import fit_statistics
from dubito.data.structures import Array, Structures
from dubito.labelling.potentials import DoubleWellAmmonia
from dubito.metrics.reduce import atom_norm, structure_max, worst_atom
from dubito.model.potential import Potential
from dubito.sampling.adversarial import TOLERANCE, AdversarialSampler
from dubito.sampling.base import Sampled
from dubito.testing.sampler_suite import ToyPredictor
from dubito.testing.structures import rattled, toy_labels
from dubito.testing.toy_members import ToyMembers
from dubito.training.loop import Trainer
from dubito.uncertainty.ensemble import EnsembleUncertainty

WIDE = SanityConfig(max_energy_above_min_ev_per_atom=3.0)


def displace(predictor: Any, labelled: Structures, sanity: SanityConfig = WIDE, **config: Any) -> Sampled:
    settings = {"n_structures": 8, "target_error_ev_per_angstrom": 0.6} | config
    return AdversarialSampler(AdversarialConfig(**settings), sanity).sample(predictor, labelled, seed=3, iteration=1)


def nitrogen(n: int) -> Structures:
    """Return labelled N2 around 1.1 Å, along different axes."""
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(n, 3))
    axes /= np.linalg.norm(axes, axis=1)[:, None]
    return toy_labels(Structures.build([[7, 7]] * n, [[np.zeros(3), 1.1 * axis] for axis in axes]))


def labels_of(structures: Structures) -> Structures:
    """Return structures with the labels of a double well like that of ammonia."""
    said = [DoubleWellAmmonia().evaluate(one) for one in structures]
    return structures.with_columns(
        labels__energy=[energy for energy, _, _ in said],
        labels__forces=np.concatenate([forces for _, forces, _ in said]),
        labels__mask=True,
    )


def double_well(n: int, seed: int) -> Structures:
    return labels_of(rattled(n, seed=seed, displacement=0.05, molecules="ammonia"))


def bonds(structures: Structures) -> Array:
    out: Array = np.linalg.norm(structures.positions[1::2] - structures.positions[::2], axis=1)
    return out


def stretch(structures: Structures) -> Array:
    """Return 2 eV/Å for each Å that a bond of N2 is longer than 1.05 Å, per component."""
    return np.repeat(2.0 * np.abs(bonds(structures) - 1.05), 2)


@pytest.mark.parametrize("target", [0.4, 0.6, 1.2])
def test_a_bond_is_stretched_to_where_the_closed_form_says(target: float) -> None:
    # The rms length of the error vector is sqrt(3) times that of a component.
    found = displace(ToyMembers(stretch), nitrogen(8), target_error_ev_per_angstrom=target)
    assert found.stops == {"reached": 8}
    np.testing.assert_allclose(bonds(found.candidates) - 1.05, target / 2 / np.sqrt(3), rtol=TOLERANCE)


def test_doubt_that_is_low_elsewhere_is_reached_by_going_there() -> None:
    # Members that disagree with the other sign point the same way: doubt has no sign.
    found = displace(ToyMembers(stretch, spread=-0.01), nitrogen(8))
    assert found.stops == {"reached": 8}


def test_evaluations_are_counted_and_no_more_than_planned() -> None:
    predictor = ToyMembers(stretch)
    found = displace(predictor, nitrogen(8), n_steps=12)
    assert found.steps == sum(predictor.batches)
    assert len(predictor.batches) <= AdversarialConfig(n_steps=12).n_rounds
    assert predictor.batches == sorted(predictor.batches, reverse=True)


def test_structures_that_are_in_doubt_already_are_not_displaced() -> None:
    labelled = nitrogen(8)
    wide = labelled.positions.copy()
    wide[1::2][:3] *= 1.6 / 1.1
    labelled = toy_labels(replace(labelled, positions=wide, columns={}))
    found = displace(ToyMembers(stretch), labelled)
    assert found.stops == {"reached": 5, "above_target": 3}
    assert set(found.candidates.text("origin/parent")) == set(labelled[3:].ids)


def test_doubt_that_does_not_grow_is_given_up() -> None:
    predictor = ToyMembers(0.01)
    found = displace(predictor, nitrogen(4), n_structures=4, n_steps=10, temperature_K=1e6)
    assert (found.stops, len(found.candidates)) == ({"not_reached": 4}, 0)
    assert len(predictor.batches) == 11


def test_doubt_that_jumps_over_the_target_is_given_up() -> None:
    # As a calibration in steps does.
    def jump(structures: Structures) -> Array:
        return np.repeat(np.where(bonds(structures) > 1.25, 2.0, 0.01), 2)

    predictor = ToyMembers(jump)
    found = displace(predictor, nitrogen(4), n_structures=4, n_steps=20)
    assert (found.stops, len(found.candidates)) == ({"not_reached": 4}, 0)
    assert len(predictor.batches) <= AdversarialConfig(n_steps=20).n_rounds


@pytest.mark.parametrize(
    ("reason", "sanity"),
    [
        ("energy", SanityConfig(max_energy_above_min_ev_per_atom=0.05)),
        ("fragments", SanityConfig(max_bond_factor=1.05, min_distance_factor=0.5, max_energy_above_min_ev_per_atom=9)),
        ("force", SanityConfig(max_force_ev_per_angstrom=4.5, max_energy_above_min_ev_per_atom=9)),
    ],
)
def test_leaving_the_sane_region_is_counted_and_nothing_kept(reason: str, sanity: SanityConfig) -> None:
    def spoil(structures: Structures, said: Prediction) -> Prediction:
        # A steep well: 20 eV/Å² about 1.1 Å.
        bond = structures.positions[1::2] - structures.positions[::2]
        r = bonds(structures)
        pull = (20.0 * (r - 1.1) / r)[:, None] * bond
        forces = np.stack([pull, -pull], axis=1).reshape(-1, 3)
        return replace(said, energy=10.0 * (r - 1.1) ** 2 - 200.0, forces=forces)

    labelled = nitrogen(4).with_columns(labels__energy=-200.0, labels__forces=np.full((8, 3), 0.01))
    predictor = ToyMembers(stretch, spoil=spoil)
    found = displace(predictor, labelled, sanity, n_structures=4, target_error_ev_per_angstrom=4.0, temperature_K=1e6)
    assert (found.stops, len(found.candidates)) == ({reason: 4}, 0)


def test_copies_of_one_parent_go_their_own_ways() -> None:
    found = displace(ToyMembers(lambda s: np.full(int(s.ptr[-1]), 0.01)), nitrogen(2)[0], n_structures=3)
    assert found.walkers == 3
    grown = displace(ToyMembers(stretch), nitrogen(2)[0], n_structures=3)
    assert len(set(grown.candidates.ids)) == 3
    assert len(set(grown.candidates.text("origin/parent"))) == 1
    assert len(set(grown.candidates.text("origin/trajectory"))) == 3


def test_methods_without_members_or_force_uncertainty_are_refused() -> None:
    with pytest.raises(ModelError, match="'adversarial' follows the spread of members"):
        displace(ToyPredictor(), nitrogen(2))
    with pytest.raises(ModelError, match="needs a force uncertainty"):
        displace(ToyMembers(spoil=lambda _, said: replace(said, uncertainty={})), nitrogen(2))


class TestTrainedEnsemble:
    """Four members trained for seconds on a double well like that of ammonia, whose labels are the truth."""

    @pytest.fixture(scope="class")
    @classmethod
    def labelled(cls) -> Structures:
        return double_well(60, 1)

    @pytest.fixture(scope="class")
    @classmethod
    def method(cls, labelled: Structures) -> EnsembleUncertainty:
        potential = Potential(ModelConfig(l_max=1, n_layers=2, r_max_angstrom=4.0), fit_statistics(labelled, 4.0), 4)
        potential.initialise(0, [0, 1, 2, 3])
        schedule = TrainingConfig(max_epochs=150, n_members=4)
        Trainer(potential, labelled, double_well(30, 2), schedule, seed=0, members=[0, 1, 2, 3]).run()
        return EnsembleUncertainty.fit(potential.requires_grad_(False), labelled, double_well(60, 3), seed=0)

    @pytest.fixture(scope="class")
    @classmethod
    def found(cls, method: EnsembleUncertainty, labelled: Structures) -> Sampled:
        return displace(method, labelled, SanityConfig(), n_structures=24)

    def test_kept_structures_are_as_doubtful_as_asked(self, method: EnsembleUncertainty, found: Sampled) -> None:
        assert found.stops["reached"] == len(found.candidates) >= 18
        assert sum(found.stops.values()) == found.walkers == 24
        said = method.predict(found.candidates)
        doubt = worst_atom(said.uncertainty["forces"], said.ptr)
        # A batch of other structures rounds otherwise.
        assert np.abs(doubt / 0.6 - 1).max() <= TOLERANCE + 1e-4

    def test_kept_structures_are_sane(self, method: EnsembleUncertainty, labelled: Structures, found: Sampled) -> None:
        said = method.predict(found.candidates)
        check = SanityCheck(SanityConfig(), labelled)
        assert check.check(found.candidates, energy=said.energy, forces=said.forces).sane.all()
        assert set(found.candidates.text("origin/sampler")) == {"adversarial_0.6"}

    @pytest.mark.parametrize("target", [0.3, 0.6, 1.0])
    def test_the_true_error_is_about_the_target(
        self, method: EnsembleUncertainty, labelled: Structures, target: float
    ) -> None:
        found = displace(method, labelled, SanityConfig(), n_structures=24, target_error_ev_per_angstrom=target)
        said, truth = method.predict(found.candidates), labels_of(found.candidates)
        error = structure_max(atom_norm(said.forces - truth.forces), said.ptr)
        # Members are overconfident far out: 1.2, 1.3 and 1.9 times the target when this was written.
        assert 0.7 < np.median(error) / target < 2.3

    def test_the_temperature_holds_energies_down(self, method: EnsembleUncertainty, labelled: Structures) -> None:
        def above(kelvin: float) -> float:
            found = displace(method, labelled, SanityConfig(), n_structures=24, temperature_K=kelvin).candidates
            return float(np.median(method.predict(found).energy - labelled.energy.min()))

        assert above(3000.0) < 0.5 * above(1e6)
