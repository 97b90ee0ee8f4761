"""Conformance suite of uncertainty methods: subclass, set ``method``, run with pytest."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from dubito.config.model import ModelConfig
from dubito.config.training import TrainingConfig
from dubito.config.uncertainty import MEMBERS_IN_ONE_NETWORK, UncertaintyConfig
from dubito.core.errors import DataError, DubitoError, ModelError
from dubito.data.statistics import fit_statistics
from dubito.data.structures import Structures
from dubito.metrics.reduce import atom_norm
from dubito.model.potential import Potential
from dubito.testing.structures import random_orthogonal, rattled, toy_labels, transformed
from dubito.training.loop import Trainer
from dubito.uncertainty.deviations import MemberPredictor
from dubito.uncertainty.registry import method_class


@cache
def trained_potential(n_members: int) -> Potential:
    """Return a potential trained for a few seconds on displaced molecules; once in a process, for all suites."""
    train, valid = toy_labels(rattled(40, seed=1)), toy_labels(rattled(12, seed=2))
    config = ModelConfig(n_layers=2, dtype="float64", r_max_angstrom=3.5)
    members = list(range(n_members))
    potential = Potential(config, fit_statistics(train, 3.5), n_members)
    potential.initialise(0, members)
    schedule = TrainingConfig(max_epochs=40, n_members=n_members)
    Trainer(potential, train, valid, schedule, seed=0, members=members).run()
    return potential.requires_grad_(False)


def twice(potential: Potential) -> Potential:
    """Return the same potential with twice the energies."""
    s = potential.statistics
    doubled = replace(
        s,
        atomic_energies_ev=2 * s.atomic_energies_ev,
        scale_ev=2 * s.scale_ev,
        force_scale_ev_per_angstrom=2 * s.force_scale_ev_per_angstrom,
    )
    out = Potential(potential.config, doubled, potential.n_members)
    for mine, theirs in zip(out.parameters(), potential.parameters(), strict=True):
        mine.data.copy_(theirs.data)
    return out.requires_grad_(False)


def in_single_precision(potential: Potential) -> Potential:
    """Return the same potential as a network of single precision."""
    config = potential.config.model_copy(update={"dtype": "float32"})
    out = Potential(config, potential.statistics, potential.n_members)
    for mine, theirs in zip(out.parameters(), potential.parameters(), strict=True):
        mine.data.copy_(theirs.data)
    return out.requires_grad_(False)


class UncertaintyMethodTests:
    """What every method must do.

    Class attributes
    ----------------
    method : registry name
    n_members : of the potential
    config : settings to fit with, small enough for a test
    ranks : false for controls that doubt nothing in particular
    growth : how many times larger the calibrated deviations of planted outsiders must be, at least
    growth_with_few : the same where four structures calibrate; None: not tried
    scale_rtol : how exactly uncertainties follow the unit of energy; training by gradients rounds
    """

    method: ClassVar[str]
    n_members: ClassVar[int] = 4
    config: ClassVar[UncertaintyConfig] = UncertaintyConfig()
    ranks: ClassVar[bool] = True
    growth: ClassVar[float] = 2.0
    growth_with_few: ClassVar[float | None] = 2.0
    scale_rtol: ClassVar[float] = 1e-6

    @pytest.fixture(scope="class")
    @classmethod
    def potential(cls) -> Potential:
        """A potential trained for a few seconds on displaced molecules."""
        return trained_potential(cls.n_members)

    @pytest.fixture(scope="class")
    @classmethod
    def fitted(cls, potential: Potential) -> Any:
        """The method fitted to it."""
        return cls.fit(potential)

    @classmethod
    def fit(cls, potential: Potential) -> Any:
        """Fit the method; the sets are those the potential was trained on."""
        return cls.fit_and_calibrate(potential, toy_labels(rattled(12, seed=2)))

    @classmethod
    def fit_and_calibrate(cls, potential: Potential, valid: Structures) -> Any:
        """Fit the method, calibrate it on any structures."""
        train = toy_labels(rattled(40, seed=1))
        return method_class(cls.method).fit(potential, train, valid, seed=0, config=cls.config)

    def values(self, prediction: Any) -> dict[str, Any]:
        """Return all scores and uncertainties of a prediction."""
        return {f"score {k}": v for k, v in prediction.scores.items()} | dict(prediction.uncertainty)

    def test_gives_what_it_promises(self, fitted: Any) -> None:
        given = fitted.predict(rattled(3, seed=3))
        assert set(given.uncertainty) | set(given.scores) >= fitted.targets

    def test_members_come_with_the_same_prediction(self, fitted: Any) -> None:
        structures = rattled(3, seed=3)
        if not isinstance(fitted, MemberPredictor):
            pytest.skip("it can't tell members apart, so samplers that follow them refuse it")
        if self.n_members < 2 and self.method not in MEMBERS_IN_ONE_NETWORK:
            with pytest.raises(ModelError, match="at least two members, found 1"):
                fitted.predict_members(structures)
            return
        said, deviations = fitted.predict_members(structures)
        plain = fitted.predict(structures)
        np.testing.assert_array_equal(said.forces, plain.forces)
        for name, values in self.values(plain).items():
            np.testing.assert_array_equal(self.values(said)[name], values, err_msg=name)
        assert deviations.forces.shape == (len(deviations.energy), *structures.positions.shape)

    def test_uncertainties_are_finite_and_not_negative(self, fitted: Any) -> None:
        given = fitted.predict(rattled(6, seed=3))
        for name, values in given.uncertainty.items():
            assert np.all(np.isfinite(values)), name
            assert np.all(values >= 0), name

    @pytest.mark.parametrize("proper", [True, False])
    def test_invariant_under_rotation_reflection_translation(self, fitted: Any, proper: bool) -> None:
        structures = rattled(5, seed=4)
        moved = transformed(structures, random_orthogonal(7, proper=proper), np.array([3.0, -2.0, 1.0]))
        before, after = fitted.predict(structures), fitted.predict(moved)
        np.testing.assert_allclose(after.energy, before.energy, atol=1e-8)
        for (name, a), b in zip(self.values(before).items(), self.values(after).values(), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-9, err_msg=name)

    def test_invariant_under_permutation(self, fitted: Any) -> None:
        one = rattled(1, seed=5)
        order = np.array([0, 3, 1, 2])
        swapped = replace(one, positions=one.positions[order])
        a, b = fitted.predict(one), fitted.predict(swapped)
        np.testing.assert_allclose(b.energy, a.energy, atol=1e-8)
        np.testing.assert_allclose(b.forces, a.forces[order], atol=1e-8)
        for name, values in a.uncertainty.items():
            expected = values if len(values) == 1 else values[order]
            np.testing.assert_allclose(b.uncertainty[name], expected, rtol=1e-6, atol=1e-9, err_msg=name)

    def test_batch_equals_singles(self, fitted: Any) -> None:
        structures = rattled(5, seed=6)
        together = self.values(fitted.predict(structures))
        alone = [self.values(fitted.predict(one)) for one in structures]
        for name, values in together.items():
            np.testing.assert_allclose(values, np.concatenate([a[name] for a in alone]), rtol=1e-6, atol=1e-9)

    def test_deterministic(self, fitted: Any, potential: Potential) -> None:
        structures = rattled(4, seed=8)
        again = self.fit(potential).predict(structures)
        for (name, a), b in zip(
            self.values(fitted.predict(structures)).items(), self.values(again).values(), strict=True
        ):
            np.testing.assert_array_equal(a, b, err_msg=name)

    def test_saved_and_loaded_is_identical(self, fitted: Any, potential: Potential, tmp_path: Path) -> None:
        fitted.save(tmp_path / f"{self.method}.safetensors")
        loaded = method_class(self.method).load(tmp_path / f"{self.method}.safetensors", potential)
        structures = rattled(4, seed=8)
        for (name, a), b in zip(
            self.values(fitted.predict(structures)).items(),
            self.values(loaded.predict(structures)).values(),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b, err_msg=name)

    def test_refuses_a_file_of_something_else(self, potential: Potential, tmp_path: Path) -> None:
        from safetensors.numpy import save_file

        save_file({"x": np.zeros(2)}, tmp_path / "other.safetensors")
        with pytest.raises(ModelError, match="expected"):
            method_class(self.method).load(tmp_path / "other.safetensors", potential)

    def test_uncertainties_have_the_unit_of_energy(self, fitted: Any, potential: Potential) -> None:
        """sigma(c E) = c sigma(E): the same campaign in another unit doubts the same."""
        train, valid = (toy_labels(rattled(n, seed=seed)) for n, seed in ((40, 1), (12, 2)))
        train, valid = (
            s.with_columns(labels__energy=2 * s.energy, labels__forces=2 * s.forces) for s in (train, valid)
        )
        doubled = method_class(self.method).fit(twice(potential), train, valid, seed=0, config=self.config)
        structures = rattled(5, seed=6)
        before, after = fitted.predict(structures).uncertainty, doubled.predict(structures).uncertainty
        assert set(before) == set(after)
        for name, values in before.items():
            np.testing.assert_allclose(after[name], 2 * values, rtol=self.scale_rtol, err_msg=name)

    def test_does_not_change_the_prediction(self, fitted: Any, potential: Potential) -> None:
        structures = rattled(4, seed=6)
        np.testing.assert_allclose(fitted.predict(structures).forces, potential.predict(structures).forces, atol=1e-9)

    def test_says_what_it_costs(self, fitted: Any) -> None:
        assert fitted.evaluations >= self.n_members

    def test_no_structures_give_nothing(self, fitted: Any) -> None:
        given = fitted.predict(rattled(1, seed=6)[np.zeros(0, int)])
        assert given.uncertainty["forces"].shape == (0, 3)

    def test_refuses_to_work_unfitted(self, potential: Potential, tmp_path: Path) -> None:
        make: Any = method_class(self.method)
        unfitted = make(potential)
        with pytest.raises(ModelError, match="not fitted"):
            unfitted.predict(rattled(2, seed=6))
        with pytest.raises(ModelError, match="not fitted"):
            unfitted.save(tmp_path / "x.safetensors")

    def test_refuses_the_state_of_another_model(self, fitted: Any, potential: Potential, tmp_path: Path) -> None:
        path = tmp_path / f"{self.method}.safetensors"
        fitted.save(path)
        other = Potential(potential.config, potential.statistics, potential.n_members)
        other.initialise(9, list(range(potential.n_members)))
        with pytest.raises(ModelError, match="another model"):
            method_class(self.method).load(path, other)

    def test_refuses_a_missing_file(self, potential: Potential, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="readable"):
            method_class(self.method).load(tmp_path / "none.safetensors", potential)

    def test_refuses_training_sets_without_labels(self, potential: Potential) -> None:
        valid = toy_labels(rattled(12, seed=2))
        with pytest.raises(DataError, match="label"):
            method_class(self.method).fit(potential, rattled(8, seed=1), valid, seed=0, config=self.config)

    def test_finds_planted_outsiders(self, fitted: Any) -> None:
        if not self.ranks:
            pytest.skip("a control that doubts nothing in particular")
        inside, outside = rattled(30, seed=9), rattled(30, seed=10, displacement=0.35)
        known, strange = (self.mean_doubt(fitted.predict(structures)) for structures in (inside, outside))
        assert np.mean(strange[:, None] > known[None, :]) > 0.9

    def growth_of(self, fitted: Any) -> float:
        """Return the rms deviation of forces of planted outsiders over that of insiders, as calibrated."""
        sets = [rattled(30, seed=9), rattled(30, seed=10, displacement=0.35)]
        inside, outside = (np.mean(fitted.predict(s).uncertainty["forces"] ** 2) for s in sets)
        return float(np.sqrt(outside / inside))

    def test_calibration_keeps_the_outsiders_apart(self, fitted: Any) -> None:
        """A ranking that the calibrated deviations don't show is of no use as a threshold."""
        if not self.ranks or "forces" not in fitted.targets:
            pytest.skip("no forces that are doubted in particular")
        assert self.growth_of(fitted) > self.growth

    def test_calibration_on_four_structures_keeps_them_apart_too(self, potential: Potential) -> None:
        if not self.ranks or self.growth_with_few is None:
            pytest.skip("a control that doubts nothing in particular, or a costly method")
        fitted = self.fit_and_calibrate(potential, toy_labels(rattled(4, seed=2)))
        if "forces" not in fitted.targets:
            pytest.skip("no forces")
        assert self.growth_of(fitted) > self.growth_with_few

    def test_nothing_to_calibrate_on_is_survived_or_refused(self, potential: Potential) -> None:
        nothing = toy_labels(rattled(2, seed=2))[np.zeros(0, int)]
        try:
            fitted = self.fit_and_calibrate(potential, nothing)
        except DubitoError:
            return
        for name, values in fitted.predict(rattled(4, seed=3)).uncertainty.items():
            assert np.all(np.isfinite(values)) and np.all(values >= 0), name

    def test_networks_of_single_precision(self, potential: Potential) -> None:
        fitted = self.fit(in_single_precision(potential))
        structures = rattled(5, seed=6)
        together = self.values(fitted.predict(structures))
        alone = [self.values(fitted.predict(one)) for one in structures]
        for name, values in together.items():
            assert np.all(np.isfinite(values)), name
            expected = np.concatenate([a[name] for a in alone])
            np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max(), err_msg=name)

    def test_an_isolated_atom_is_not_certain(self, fitted: Any) -> None:
        """Its forces are zero, and nothing that is made of them varies; a deviation of 0 has no likelihood."""
        given = fitted.predict(Structures.build([[1], [8]], [np.zeros((1, 3))] * 2))
        for name, values in self.values(given).items():
            assert np.all(np.isfinite(values)), name
        if "forces" in given.uncertainty:
            assert np.all(given.uncertainty["forces"] > 0)

    def mean_doubt(self, given: Any) -> Any:
        """Return the mean over the atoms of each structure of the force score, or of the uncertainty, (n,)."""
        doubt = given.scores["forces"] if "forces" in given.scores else atom_norm(given.uncertainty["forces"])
        return np.add.reduceat(doubt, given.ptr[:-1]) / np.diff(given.ptr)
