"""The evidential method passes the shipped suite, with the network as it is and with a copy trained along."""

from typing import Any

import numpy as np
import pytest

from dubito.config.methods import EvidentialConfig
from dubito.config.uncertainty import UncertaintyConfig
from dubito.core.errors import DataError
from dubito.model.potential import Potential
from dubito.testing.structures import rattled, toy_labels
from dubito.testing.uncertainty_suite import UncertaintyMethodTests
from dubito.uncertainty.evidential import EvidentialUncertainty


class TestEvidential(UncertaintyMethodTests):
    method = "evidential"

    def test_no_uncertainty_of_energies_follows_from_that_of_forces(self, fitted: Any) -> None:
        given = fitted.predict(rattled(4, seed=11))
        assert set(given.uncertainty) == {"forces"}
        assert set(given.scores) == {"forces", "energies"}

    def test_the_network_is_not_evaluated_again(self, fitted: Any) -> None:
        assert fitted.evaluations == self.n_members

    def test_calibration_needs_little_on_the_distribution_it_was_trained_on(self, fitted: Any) -> None:
        assert 0.5 < fitted.factor < 4.0

    def test_heads_may_learn_from_half_of_the_unseen(self, potential: Potential) -> None:
        train, valid = toy_labels(rattled(40, seed=1)), toy_labels(rattled(12, seed=2))
        config = UncertaintyConfig(evidential=EvidentialConfig(fit_on="unseen"))
        method = EvidentialUncertainty(potential)
        rest = method.learn(train, valid, seed=0, config=config)
        assert len(rest) == 6
        # Neither half knows of the training set: other training labels give the same heads.
        again = EvidentialUncertainty(potential)
        again.learn(train[:5], valid, seed=0, config=config)
        for key, value in method.state()[0].items():
            np.testing.assert_array_equal(value, again.state()[0][key], err_msg=key)
        # What calibrates was not learnt from: its labels may be anything.
        mine = {tuple(one.positions.ravel()) for one in rest}
        poisoned = valid.with_columns(
            labels__forces=np.concatenate([one.forces + 50.0 * (tuple(one.positions.ravel()) in mine) for one in valid])
        )
        poisoned_heads = EvidentialUncertainty(potential)
        poisoned_heads.learn(train, poisoned, seed=0, config=config)
        for key, value in method.state()[0].items():
            np.testing.assert_array_equal(value, poisoned_heads.state()[0][key], err_msg=key)

    def test_refuses_to_share_three_unseen_structures(self, potential: Potential) -> None:
        train, valid = toy_labels(rattled(40, seed=1)), toy_labels(rattled(3, seed=2))
        config = UncertaintyConfig(evidential=EvidentialConfig(fit_on="unseen"))
        with pytest.raises(DataError, match="at least 4"):
            EvidentialUncertainty.fit(potential, train, valid, seed=0, config=config)

    def test_refuses_a_handful_of_atoms(self, potential: Potential) -> None:
        train, valid = toy_labels(rattled(4, seed=1)), toy_labels(rattled(12, seed=2))
        with pytest.raises(DataError, match="14 atoms"):
            EvidentialUncertainty.fit(potential, train, valid, seed=0)


class TestEvidentialWithATrainedCopy(UncertaintyMethodTests):
    method = "evidential"
    config = UncertaintyConfig(evidential=EvidentialConfig(backbone="trained", backbone_epochs=4))

    def test_costs_one_evaluation_more(self, fitted: Any) -> None:
        assert fitted.evaluations == self.n_members + 1

    def test_the_copy_was_trained_and_the_potential_left_alone(self, fitted: Any, potential: Potential) -> None:
        before = potential.member(0)
        moved = [
            not np.array_equal(a.numpy(), b.numpy())
            for a, b in zip(before.parameters(), fitted.backbone.parameters(), strict=True)
        ]
        assert all(moved)
        for a, b in zip(before.parameters(), fitted.member.parameters(), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())

    def test_restored_copy_counts_its_evaluation(self, fitted: Any, potential: Potential, tmp_path: Any) -> None:
        fitted.save(tmp_path / "state.safetensors")
        assert EvidentialUncertainty.load(tmp_path / "state.safetensors", potential).evaluations == fitted.evaluations
