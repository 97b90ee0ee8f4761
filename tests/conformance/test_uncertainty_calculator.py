"""The calculator with any method: what is refused, and what it suggests instead."""

from __future__ import annotations

import json
import shutil
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms
from safetensors.numpy import save_file

from dubito import DubitoCalculator
from dubito.config.model import ModelConfig
from dubito.core.errors import ModelError
from dubito.data.statistics import fit_statistics
from dubito.data.structures import Structures
from dubito.model.artifact import save_potential
from dubito.model.potential import Potential
from dubito.testing.structures import AMMONIA, rattled, toy_labels
from dubito.uncertainty.files import NOT_FITTED
from dubito.uncertainty.registry import METHODS, method_class

TRAIN, VALID = toy_labels(rattled(8, seed=1)), toy_labels(rattled(6, seed=2))
LIMIT = "max_force_uncertainty_ev_per_angstrom"


class EnergyOnly:
    """A method of another package, that doubts energies alone and says the least it may."""

    name: ClassVar[str] = "energy_only"
    targets: ClassVar[frozenset[str]] = frozenset({"energy"})

    def __init__(self, potential: Potential) -> None:
        self.potential = potential

    @classmethod
    def load(cls, path: Path, potential: Potential) -> EnergyOnly:
        return cls(potential)

    def predict(self, structures: Structures) -> Any:
        given = self.potential.predict(structures)
        return replace(given, uncertainty={"energy": given.uncertainty["energy"]})


class Promising(EnergyOnly):
    """It promises forces, and means a score."""

    targets: ClassVar[frozenset[str]] = frozenset({"energy", "forces"})


def saved(folder: Path, n_members: int, *methods: str) -> Path:
    """Return the path of an untrained potential with fitted methods beside it."""
    potential = Potential(ModelConfig(n_layers=1, r_max_angstrom=3.5), fit_statistics(TRAIN, 3.5), n_members)
    potential.initialise(0, list(range(n_members)))
    potential.requires_grad_(False)
    save_potential(folder / "ensemble.safetensors", potential, provenance={})
    for name in methods:
        method_class(name).fit(potential, TRAIN, VALID, seed=0).save(folder / "uncertainty" / f"{name}.safetensors")
    return folder / "ensemble.safetensors"


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("third_party")
    module.EnergyOnly, module.Promising = EnergyOnly, Promising
    monkeypatch.setitem(sys.modules, "third_party", module)
    own: Any = METHODS.own
    monkeypatch.setitem(own, "energy_only", "third_party:EnergyOnly")
    monkeypatch.setitem(own, "promising", "third_party:Promising")


@pytest.mark.usefixtures("third_party")
def test_a_limit_on_forces_needs_a_method_that_doubts_them(tmp_path: Path) -> None:
    model = saved(tmp_path, 2)
    (tmp_path / "uncertainty").mkdir()
    for name in ("energy_only", "promising"):
        (tmp_path / "uncertainty" / f"{name}.safetensors").write_bytes(b"its own format")
    atoms = Atoms("NH3", AMMONIA)
    atoms.calc = calc = DubitoCalculator(model, "energy_only")
    atoms.get_potential_energy()
    assert calc.results["energy_uncertainty"] > 0 and "forces_uncertainty" not in calc.results
    with pytest.raises(ModelError, match=LIMIT):
        DubitoCalculator(model, "energy_only", max_force_uncertainty_ev_per_angstrom=0.1)
    with pytest.raises(ModelError, match=LIMIT):
        DubitoCalculator(model, None, max_force_uncertainty_ev_per_angstrom=0.1)
    # What only shows when it predicts is said then.
    with pytest.raises(ModelError, match=LIMIT):
        DubitoCalculator(model, "promising", max_force_uncertainty_ev_per_angstrom=0.1).calculate(atoms)


def test_one_member_says_what_else_there_is(tmp_path: Path) -> None:
    model = saved(tmp_path, 1, "distance", "force_norm")
    unfitted = {"dubito": json.dumps({"format": NOT_FITTED, "format_version": 1, "reason": "Too few atoms."})}
    save_file({}, tmp_path / "uncertainty" / "gmm.safetensors", metadata=unfitted)
    with pytest.raises(ModelError, match=r"could not be fitted.*Too few atoms"):
        DubitoCalculator(model, "gmm")
    with pytest.raises(ModelError, match=r"uncertainty=None .* \(distance, force_norm\)"):
        DubitoCalculator(model)
    with pytest.raises(ModelError, match="name one that was fitted"):
        DubitoCalculator(model, "llpr")
    DubitoCalculator(model, None).calculate(Atoms("NH3", AMMONIA))


def test_a_state_may_have_any_name(tmp_path: Path) -> None:
    model = saved(tmp_path, 2, "distance")
    renamed = tmp_path / "best.safetensors"
    shutil.copy(tmp_path / "uncertainty" / "distance.safetensors", renamed)
    atoms, results = Atoms("NH3", AMMONIA), []
    for state in ("distance", renamed):
        calc = DubitoCalculator(model, state, max_force_uncertainty_ev_per_angstrom=1e9)
        calc.calculate(atoms)
        results.append(calc.results["forces_uncertainty"])
    np.testing.assert_array_equal(*results)
    with pytest.raises(ModelError, match="does not exist"):
        DubitoCalculator(model, tmp_path / "lost.safetensors")
