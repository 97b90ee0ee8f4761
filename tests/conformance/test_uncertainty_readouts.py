"""The methods made of readouts pass the shipped suite."""

import numpy as np
import pytest

from dubito.config.methods import LlprConfig, ShallowEnsembleConfig, SparseGpConfig
from dubito.config.uncertainty import UncertaintyConfig
from dubito.model.potential import Potential
from dubito.testing.uncertainty_suite import UncertaintyMethodTests


class TestLastLayer(UncertaintyMethodTests):
    method = "llpr"
    config = UncertaintyConfig(llpr=LlprConfig(n_directions=6))

    def test_costs_its_directions(self, fitted, potential):
        assert fitted.evaluations == potential.n_members + 6


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
