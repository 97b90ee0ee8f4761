"""The methods made of readouts pass the shipped suite."""

import numpy as np
import pytest

from dubito.config.methods import LlprConfig, ShallowEnsembleConfig, SparseGpConfig
from dubito.config.uncertainty import UncertaintyConfig
from dubito.model.potential import Potential
from dubito.testing.structures import rattled, toy_labels
from dubito.testing.uncertainty_suite import UncertaintyMethodTests
from dubito.uncertainty.last_layer import LastLayerUncertainty


class TestLastLayer(UncertaintyMethodTests):
    method = "llpr"
    config = UncertaintyConfig(llpr=LlprConfig(n_directions=6))

    def test_costs_its_directions(self, fitted, potential):
        assert fitted.evaluations == potential.n_members + 6

    def test_energies_are_scaled_by_the_factor_of_the_forces(self, fitted):
        structures = rattled(4, seed=11)
        given, (_, raw) = fitted.predict(structures), fitted.raw(structures)
        assert abs(np.log(fitted.factor)) > 0.1
        np.testing.assert_allclose(given.uncertainty["energies"], fitted.factor * raw.energies, rtol=1e-12)
        np.testing.assert_allclose(given.uncertainty["energy"], fitted.factor * raw.energy, rtol=1e-12)
        np.testing.assert_allclose(given.uncertainty["forces"][:, 0], fitted.factor * raw.forces, rtol=1e-12)

    def test_a_factor_far_out_of_range_keeps_sigma_right(self, potential):
        """Labels a million times larger than what the network was trained on."""
        train, valid = toy_labels(rattled(40, seed=1)), toy_labels(rattled(12, seed=2))
        valid = valid.with_columns(labels__energy=1e6 * valid.energy, labels__forces=1e6 * valid.forces)
        fitted = LastLayerUncertainty(potential)
        fitted.learn(train, valid, seed=0, config=self.config)
        fitted.calibrate(valid, self.config)
        given = fitted.predict(valid)
        rms = np.sqrt(np.mean((given.forces - valid.forces) ** 2))
        assert fitted.factor > 1e4
        assert np.sqrt(np.mean(given.uncertainty["forces"] ** 2)) == pytest.approx(rms, rel=1e-6)


class TestLastLayerWithAllDirections(UncertaintyMethodTests):
    method = "llpr"
    n_members = 1
    config = UncertaintyConfig(llpr=LlprConfig(n_directions=None, max_force_structures=20))


class TestShallowEnsemble(UncertaintyMethodTests):
    method = "shallow_ensemble"
    config = UncertaintyConfig(shallow_ensemble=ShallowEnsembleConfig(n_heads=6, epochs=60))
    # Adam's steps have an absolute smallness (1e-8) that does not scale with the unit.
    scale_rtol = 1e-3


class TestSparseGp(UncertaintyMethodTests):
    method = "sparse_gp"
    config = UncertaintyConfig(sparse_gp=SparseGpConfig(n_inducing=60, max_force_structures=20, n_force_samples=16))


class TestSparseGpLinear(UncertaintyMethodTests):
    method = "sparse_gp"
    n_members = 1
    config = UncertaintyConfig(sparse_gp=SparseGpConfig(kernel="linear", max_force_structures=10, n_force_samples=16))


@pytest.mark.parametrize("method", ["llpr", "shallow_ensemble", "sparse_gp"])
def test_every_method_of_this_file_is_periodic_too(method: str) -> None:
    """A supercell of a crystal has the doubt of its cell, atom by atom."""
    from dataclasses import replace

    from dubito.config.model import ModelConfig
    from dubito.data.statistics import fit_statistics
    from dubito.data.structures import Structures
    from dubito.testing.structures import crystal
    from dubito.uncertainty.registry import method_class

    def labelled(structures: Structures) -> Structures:
        rng = np.random.default_rng(0)
        return structures.with_columns(
            labels__energy=rng.normal(size=len(structures)), labels__forces=rng.normal(size=structures.positions.shape),
            labels__mask=True, provenance__kind="reference",
        )  # fmt: skip

    train = labelled(crystal(6, seed=1))
    potential = Potential(ModelConfig(n_features=6, n_layers=1, dtype="float64", r_max_angstrom=3.0),
                          fit_statistics(train, 3.0), 1)  # fmt: skip
    potential.initialise(0, [0])
    fitted = method_class(method).fit(potential, train, labelled(crystal(4, seed=2)), seed=0)
    cell = crystal(1, seed=3)
    beside = cell.positions + cell.cell[0, 0]
    double = replace(
        Structures.build([np.tile(cell.atomic_numbers, 2)], [np.vstack([cell.positions, beside])]),
        cell=cell.cell * np.array([2.0, 1.0, 1.0])[None, :, None], pbc=cell.pbc,
    )  # fmt: skip
    small, large = fitted.predict(cell).uncertainty, fitted.predict(double).uncertainty
    np.testing.assert_allclose(large["forces"][:8], small["forces"], rtol=1e-6)
    np.testing.assert_allclose(large["energies"][8:], small["energies"], rtol=1e-6)
    np.testing.assert_allclose(large["energy"], 2 * small["energy"], rtol=1e-6)
