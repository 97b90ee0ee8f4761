"""Densities, distances and controls pass the shipped suite, in every variant."""

from typing import Any

import numpy as np
import pytest

from dubito.config.methods import CalibrationConfig, DistanceConfig, GmmConfig
from dubito.config.uncertainty import UncertaintyConfig
from dubito.core.errors import ModelError
from dubito.metrics.ranking import auroc
from dubito.metrics.reduce import atom_norm
from dubito.model.potential import Potential
from dubito.testing.structures import rattled, toy_labels
from dubito.testing.uncertainty_suite import UncertaintyMethodTests
from dubito.uncertainty.gaussian_mixture import fit_mixture
from dubito.uncertainty.mixture import MixtureUncertainty


class TestMixture(UncertaintyMethodTests):
    method = "gmm"
    n_members = 1
    config = UncertaintyConfig(gmm=GmmConfig(max_components=6))

    def test_a_score_that_may_be_negative_is_not_scaled(self, fitted: Any, potential: Potential) -> None:
        assert fitted.predict(rattled(6, seed=3)).scores["forces"].min() < 0
        train, valid = toy_labels(rattled(40, seed=1)), toy_labels(rattled(12, seed=2))
        config = UncertaintyConfig(calibration=CalibrationConfig(kind="scale"))
        with pytest.raises(ModelError, match=r"uncertainty\.calibration\.kind is scale"):
            MixtureUncertainty.fit(potential, train, valid, seed=0, config=config)

    def test_the_search_for_components_ends_two_sizes_after_the_best(self) -> None:
        """Atoms that repeat within a structure: the BIC alone would go on to the cap."""
        rng = np.random.default_rng(3)
        structure = np.repeat(np.arange(40), 50)
        x = rng.normal(size=(40, 2))[structure] + 0.02 * rng.normal(size=(2000, 2))
        _, choice = fit_mixture(x, structure, max_components=40, regularisation=1e-6, seed=0)
        assert len(choice.tried) == int(np.argmax(choice.held_out)) + 3
        assert choice.tried[-1] < 40


class TestMixturePerSpecies(UncertaintyMethodTests):
    # Hydrogens are many enough for a mixture of their own, nitrogens and oxygens are not.
    method = "gmm"
    n_members = 1
    config = UncertaintyConfig(gmm=GmmConfig(max_components=6, per_species=True))


class TestMahalanobis(UncertaintyMethodTests):
    method = "distance"
    n_members = 1
    config = UncertaintyConfig(distance=DistanceConfig(kind="mahalanobis"))


class TestNeighbors(UncertaintyMethodTests):
    method = "distance"
    n_members = 2
    config = UncertaintyConfig(distance=DistanceConfig(kind="neighbors"))


class TestForceNorm(UncertaintyMethodTests):
    method = "force_norm"
    n_members = 2
    # It ranks, but these outsiders are not told by forces alone.
    ranks = False

    def test_finds_some_of_the_planted_outsiders(self, fitted: Any) -> None:
        """Even the true forces find them with an AUROC of 0.77 only."""
        sets = [toy_labels(rattled(30, seed=9)), toy_labels(rattled(30, seed=10, displacement=0.35))]
        outside = np.repeat([0, 1], 30)
        predicted = np.concatenate([self.mean_doubt(fitted.predict(s)) for s in sets])
        true = [np.add.reduceat(atom_norm(s.forces), s.ptr[:-1]) / s.n_atoms for s in sets]
        assert 0.6 < auroc(predicted, outside) < 0.9
        assert auroc(np.concatenate(true), outside) == pytest.approx(0.77, abs=0.01)


class TestConstant(UncertaintyMethodTests):
    method = "constant"
    n_members = 1
    ranks = False


class TestRandom(UncertaintyMethodTests):
    method = "random"
    n_members = 1
    ranks = False
