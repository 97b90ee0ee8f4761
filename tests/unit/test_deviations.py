"""Deviations of members: the gradient of an energy's doubt against finite differences, whatever method drives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dubito.config import Config
from dubito.config.uncertainty import MEMBERS_IN_ONE_NETWORK, UncertaintyConfig
from dubito.core.errors import ModelError
from dubito.data.structures import Structures
from dubito.model.potential import Potential
from dubito.model.predict import predict
from dubito.testing.sampler_suite import ToyPredictor
from dubito.testing.structures import rattled, toy_labels
from dubito.testing.uncertainty_suite import trained_potential
from dubito.uncertainty.deviations import Deviations, with_members
from dubito.uncertainty.registry import method_class

TRAIN, UNSEEN = toy_labels(rattled(40, seed=1)), toy_labels(rattled(12, seed=2))
SMALL = UncertaintyConfig.model_validate({"shallow_ensemble": {"epochs": 20}})


def fitted(name: str, n_members: int) -> Any:
    return method_class(name).fit(trained_potential(n_members), TRAIN, UNSEEN, seed=0, config=SMALL)


def slopes(method: Any, structures: Structures, step: float = 1e-4) -> np.ndarray[Any, Any]:
    """Return the gradient of the energies' standard deviations by central differences, (N, 3) eV/Å."""
    out = np.zeros_like(structures.positions)
    for atom in range(len(out)):
        for axis in range(3):
            ends = []
            for sign in (1, -1):
                positions = structures.positions.copy()
                positions[atom, axis] += sign * step
                _, there = method.predict_members(replace(structures, positions=positions))
                ends.append(there.energy_sigma()[structures.structure_of_atom[atom]])
            out[atom, axis] = (ends[0] - ends[1]) / (2 * step)
    return out


@pytest.mark.parametrize(
    ("name", "n_members"), [("ensemble", 4), ("shallow_ensemble", 1), ("llpr", 1), ("distance", 4)]
)
def test_gradient_is_that_of_finite_differences(name: str, n_members: int) -> None:
    method, structures = fitted(name, n_members), rattled(1, seed=5)
    said, deviations = method.predict_members(structures)
    gradient = deviations.energy_sigma_gradient(structures.ptr)
    assert np.abs(gradient).max() > 1e-3
    np.testing.assert_allclose(gradient, slopes(method, structures), atol=1e-5 * np.abs(gradient).max())
    # What is followed is the doubt that is told, where the method tells one and all its directions are followed.
    if name in ("ensemble", "shallow_ensemble"):
        np.testing.assert_allclose(deviations.energy_sigma(), said.uncertainty["energy"], rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "n_members"), [("ensemble", 4), ("shallow_ensemble", 1), ("llpr", 1), ("distance", 4)]
)
def test_members_come_with_the_prediction_of_one_evaluation(
    name: str, n_members: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, structures, calls = fitted(name, n_members), rattled(3, seed=6), list[int]()
    evaluate = Potential.evaluate
    monkeypatch.setattr(Potential, "evaluate", lambda self, *a, **k: (calls.append(1), evaluate(self, *a, **k))[1])
    plain = method.predict(structures)
    cost = len(calls)
    said, _ = method.predict_members(structures)
    assert len(calls) == 2 * cost
    np.testing.assert_array_equal(said.forces, plain.forces)
    np.testing.assert_array_equal(said.energy, plain.energy)
    for key, values in plain.uncertainty.items():
        np.testing.assert_array_equal(said.uncertainty[key], values)
    assert said.forces_ensemble is None


def test_a_methods_own_doubt_may_be_another_but_the_members_are_followed() -> None:
    structures = rattled(3, seed=6)
    _, mine = fitted("distance", 4).predict_members(structures)
    raw = trained_potential(4).predict(structures)
    np.testing.assert_allclose(mine.energy_sigma(), raw.uncertainty["energy"], rtol=1e-9)
    ensemble = fitted("ensemble", 4)
    _, calibrated = ensemble.predict_members(structures)
    np.testing.assert_allclose(calibrated.forces, ensemble.factor * mine.forces, rtol=1e-9)


def test_no_component_exceeds_the_spread_of_that_force() -> None:
    # Cauchy and Schwarz; so nothing is singular where members nearly agree.
    _, deviations = fitted("ensemble", 4).predict_members(rattled(20, seed=8))
    gradient = deviations.energy_sigma_gradient(rattled(20, seed=8).ptr)
    assert np.all(np.abs(gradient) <= deviations.forces.std(axis=0, ddof=1) * (1 + 1e-9))


def test_members_that_agree_point_nowhere() -> None:
    nothing = Deviations(np.zeros((3, 2)), np.ones((3, 5, 3)))
    np.testing.assert_array_equal(nothing.energy_sigma_gradient(np.array([0, 2, 5])), np.zeros((5, 3)))


def test_constant_energies_of_atoms_cancel() -> None:
    structures, potential = rattled(2, seed=5), trained_potential(4)
    shifted = replace(potential.statistics, atomic_energies_ev=potential.statistics.atomic_energies_ev - 1000.0)
    other = Potential(potential.config, shifted, 4)
    other.load_state_dict(potential.state_dict())
    other.requires_grad_(False)
    one, two = (Deviations.of(p.predict(structures, members=True)) for p in (potential, other))
    assert other.predict(structures).energy[0] < potential.predict(structures).energy[0] - 1000
    np.testing.assert_allclose(
        one.energy_sigma_gradient(structures.ptr), two.energy_sigma_gradient(structures.ptr), atol=1e-9
    )


def test_members_in_chunks_are_those_of_the_whole() -> None:
    potential, structures = trained_potential(4), rattled(9, seed=3)
    whole, parts = predict(potential, structures, members=True), predict(potential, structures, 8, members=True)
    assert whole.forces_ensemble is not None and parts.forces_ensemble is not None
    assert whole.forces_ensemble.shape == (4, len(structures.positions), 3)
    np.testing.assert_allclose(parts.forces_ensemble, whole.forces_ensemble, atol=1e-12)
    assert predict(potential, Structures.empty(), members=True).forces_ensemble.shape == (4, 0, 3)  # type: ignore[union-attr]
    assert predict(potential, structures).forces_ensemble is None


def test_a_single_network_without_members_is_refused() -> None:
    with pytest.raises(ModelError, match=r"at least two members, found 1.*shallow_ensemble or llpr"):
        fitted("distance", 1).predict_members(rattled(2))


def test_a_predictor_without_members_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'biased_langevin' follows the spread of members.*FittedMethod"):
        with_members(ToyPredictor(), "biased_langevin")


@pytest.mark.parametrize("kind", ["biased_langevin", "adversarial"])
@pytest.mark.parametrize("driver", ["distance", "auto"])
def test_a_configuration_without_members_is_refused_before_anything_runs(kind: str, driver: str) -> None:
    methods = ["distance", "llpr"]
    raw: dict[str, Any] = {
        "training": {"n_members": 1},
        "uncertainty": {"methods": methods, "acquire_with": driver, "auto": {"start_with": "distance"}},
        "sampling": {"more_samplers": [{"kind": kind}]},
    }
    with pytest.raises(ValueError, match=rf"sampler {kind} follows the spread of members, but training.n_members is 1"):
        Config.model_validate(raw)
    Config.model_validate(raw | {"training": {"n_members": 2}})
    for name in MEMBERS_IN_ONE_NETWORK:
        Config.model_validate(raw | {"uncertainty": {"methods": [name], "acquire_with": name}})
    Config.model_validate(raw | {"sampling": {"more_samplers": [{"kind": "rattle"}]}})
