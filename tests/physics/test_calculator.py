"""The ASE calculator: optimisation, dynamics, uncertainties that survive a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from dubito import DubitoCalculator
from dubito.config.model import ModelConfig
from dubito.config.training import TrainingConfig
from dubito.core.errors import ConfigError, ModelError
from dubito.data.statistics import fit_statistics
from dubito.model.artifact import save_potential
from dubito.model.potential import Potential
from dubito.testing.structures import AMMONIA, crystal, rattled, toy_labels
from dubito.training.loop import Trainer
from dubito.uncertainty.ensemble import EnsembleUncertainty


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble trained for seconds on an analytic potential, with its fitted uncertainty beside it."""
    folder = tmp_path_factory.mktemp("model")
    train, valid = (toy_labels(rattled(n, seed=n, molecules="ammonia", displacement=0.12)) for n in (60, 12))
    config = ModelConfig(n_features=12, n_layers=2, dtype="float64")
    potential = Potential(config, fit_statistics(train, 4.0), 3)
    potential.initialise(0, [0, 1, 2])
    Trainer(potential, train, valid, TrainingConfig(max_epochs=60), seed=0, members=[0, 1, 2]).run()
    potential.requires_grad_(False)
    save_potential(folder / "ensemble.safetensors", potential, provenance={})
    EnsembleUncertainty.fit(potential, train, valid, seed=0).save(folder / "uncertainty" / "ensemble.safetensors")
    return folder / "ensemble.safetensors"


def ammonia() -> Atoms:
    return Atoms("NH3", AMMONIA + np.random.default_rng(3).normal(scale=0.05, size=(4, 3)))


def test_results_have_ase_meanings(model: Path) -> None:
    atoms = ammonia()
    atoms.calc = calc = DubitoCalculator(model)
    assert atoms.get_potential_energy() == pytest.approx(calc.results["energies"].sum(), abs=1e-9)
    assert calc.results["free_energy"] == calc.results["energy"]
    assert atoms.get_forces().shape == calc.results["forces_uncertainty"].shape == (4, 3)
    assert calc.results["energy_uncertainty"] > 0
    assert calc.get_property("energies_uncertainty", atoms).shape == (4,)


def test_optimisation_finds_the_minimum(model: Path) -> None:
    atoms = ammonia()
    atoms.calc = DubitoCalculator(model)
    assert BFGS(atoms, logfile=None).run(fmax=0.01, steps=100)
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 0.01
    assert atoms.get_distance(0, 1) == pytest.approx(1.0, abs=0.08)


def test_dynamics_keeps_the_energy(model: Path) -> None:
    atoms = ammonia()
    atoms.calc = DubitoCalculator(model)
    BFGS(atoms, logfile=None).run(fmax=0.05, steps=50)
    thermalize_momenta(atoms, temperature_K=100, rng=np.random.default_rng(0))
    energies = []
    dynamics = VelocityVerlet(atoms, timestep=0.25 * units.fs)
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()), interval=10)
    dynamics.run(200)
    assert np.ptp(energies) < 2e-3
    assert atoms.get_kinetic_energy() > 1e-3


def test_annotations_survive_extxyz(model: Path, tmp_path: Path) -> None:
    atoms = ammonia()
    calc = DubitoCalculator(model)
    calc.annotate(atoms)
    write(tmp_path / "a.xyz", atoms)
    back = read(tmp_path / "a.xyz")
    assert back.info["dubito_energy_uncertainty"] == pytest.approx(calc.results["energy_uncertainty"], rel=1e-6)
    np.testing.assert_allclose(back.arrays["dubito_forces_uncertainty"], calc.results["forces_uncertainty"], atol=1e-7)


def test_standard_results_fit_a_single_point_calculator(model: Path) -> None:
    atoms = ammonia()
    calc = DubitoCalculator(model)
    calc.calculate(atoms)
    SinglePointCalculator(atoms, **calc.standard_results())


def test_stress_only_with_a_cell(model: Path) -> None:
    calc = DubitoCalculator(model)
    calc.calculate(ammonia())
    assert "stress" not in calc.results
    cell = crystal(1)
    numbers = np.where(cell.atomic_numbers == 8, 1, 7)
    calc.calculate(Atoms(numbers, cell.positions, cell=cell.cell[0], pbc=True))
    assert calc.results["stress"].shape == (6,)


def test_without_or_with_wrong_uncertainty(model: Path, tmp_path: Path) -> None:
    calc = DubitoCalculator(model, uncertainty=None)
    calc.calculate(ammonia())
    assert "energy_uncertainty" not in calc.results
    with pytest.raises(ConfigError, match="Did you mean 'ensemble'"):
        DubitoCalculator(model, uncertainty="ensembel")
    with pytest.raises(ModelError, match="does not exist"):
        DubitoCalculator(tmp_path / "missing.safetensors")


def test_warns_where_it_doubts(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    calc = DubitoCalculator(model, max_force_uncertainty_ev_per_angstrom=1e-9)
    with caplog.at_level("WARNING", logger="dubito"):
        calc.calculate(ammonia())
    assert "do not trust" in caplog.text
