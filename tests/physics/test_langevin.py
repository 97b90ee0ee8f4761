"""Langevin dynamics: statistics of BAOAB in closed form, energy conservation, and why walkers stop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dubito.config.sampling import LangevinConfig
from dubito.config.sanity import SanityConfig
from dubito.core.errors import DataError, ModelError
from dubito.core.units import ANGSTROM_SQRT_U_PER_EV_FS, BOLTZMANN_EV_PER_K
from dubito.data.prediction import Prediction
from dubito.data.sanity import SanityCheck
from dubito.data.structures import Array, Structures
from dubito.metrics.reduce import worst_atom
from dubito.sampling.baoab import Baoab, kinetic_energy, maxwell_velocities
from dubito.sampling.base import Sampled
from dubito.sampling.langevin import LangevinSampler
from dubito.testing.sampler_suite import ToyPredictor
from dubito.testing.structures import rattled, toy_labels

KT = BOLTZMANN_EV_PER_K * 300.0


class Springs:
    """N2 with a harmonic bond: energy k (r - r0)^2 / 2, doubt proportional to the stretch."""

    def __init__(self, k: float = 20.0, r0: float = 1.1, doubt_per_angstrom: float = 0.0, shift: float = 0.0) -> None:
        self.k, self.r0, self.doubt, self.shift = k, r0, doubt_per_angstrom, shift
        self.batches: list[int] = []

    def predict(self, structures: Structures) -> Prediction:
        self.batches.append(len(structures))
        bond = structures.positions[1::2] - structures.positions[::2]
        r = np.linalg.norm(bond, axis=1)
        pull = (self.k * (r - self.r0 - self.shift) / r)[:, None] * bond
        energy = 0.5 * self.k * (r - self.r0) ** 2 - 100.0
        sigma = np.repeat(self.doubt * np.abs(r - self.r0), 6).reshape(-1, 3)
        forces = np.stack([pull, -pull], axis=1).reshape(-1, 3)
        return Prediction(structures.ptr, energy, np.repeat(energy / 2, 2), forces, {"forces": sigma})


def nitrogen(n: int) -> Structures:
    """Return ``n`` labelled N2 near equilibrium, all different."""
    bonds = 1.1 + 0.001 * np.arange(n) / n
    return Structures.build(
        [[7, 7]] * n,
        [[[0, 0, 0], [0, 0, r]] for r in bonds],
        labels__energy=-100.0,
        labels__forces=np.full((2 * n, 3), 0.01),
        labels__mask=True,
    )


def fly(predictor: object, labelled: Structures, sanity: SanityConfig | None = None, **config: object) -> Sampled:
    defaults = {"n_walkers": 8, "n_steps": 400, "save_every_steps": 10, "temperatures_K": [300.0], "timestep_fs": 1.0}
    sampler = LangevinSampler(LangevinConfig(**(defaults | config)), sanity or SanityConfig())  # type: ignore[arg-type]
    return sampler.sample(predictor, labelled, seed=3, iteration=1)  # type: ignore[arg-type]


class TestBaoab:
    @pytest.mark.parametrize("omega_dt", [0.3, 1.0])
    @pytest.mark.parametrize("friction_dt", [0.05, 0.5])
    def test_harmonic_statistics_in_closed_form(self, omega_dt: float, friction_dt: float) -> None:
        # Leimkuhler and Matthews 2013: <x^2> = kT/k exactly, <v^2> = kT/m (1 - (omega dt)^2 / 4). With
        # omega dt = 1 other splittings (OBABO, velocity Verlet with a thermostat) are a third off.
        n, mass, k = 6000, 14.0, 5.0
        omega = np.sqrt(k / mass) / ANGSTROM_SQRT_U_PER_EV_FS
        dt = omega_dt / omega
        stepper = Baoab(np.full(n, mass), np.full(n, 300.0), timestep_fs=dt, friction_per_fs=friction_dt / dt)
        rng = np.random.default_rng(1)
        x, v = rng.normal(scale=0.01, size=(n, 3)), np.zeros((n, 3))
        squares = []
        for step in range(round(60 / (omega_dt * friction_dt)) if friction_dt < 0.1 else 300):
            x, v = stepper.advance(x, v, -k * x, rng.normal(size=(n, 3)))
            v = stepper.finish(v, -k * x)
            if step % 25 == 24 and step > 120 / friction_dt**0.5:
                squares.append((np.mean(x**2), np.mean(v**2)))
        found = np.mean(squares, axis=0)
        thermal = KT / mass / ANGSTROM_SQRT_U_PER_EV_FS**2
        # 18 000 coordinates, several nearly independent times: a relative error below 1 %.
        assert found[0] == pytest.approx(KT / k, rel=0.02)
        assert found[1] == pytest.approx(thermal * (1 - omega_dt**2 / 4), rel=0.02)

    def test_without_friction_energy_is_conserved_to_second_order(self) -> None:
        def drift(timestep: float) -> float:
            molecule = rattled(1, molecules="ammonia", displacement=0.05)
            masses = np.array([14.007, 1.008, 1.008, 1.008])
            v = maxwell_velocities(masses, 600.0, np.random.default_rng(2))
            stepper = Baoab(masses, np.full(4, 300.0), timestep_fs=timestep, friction_per_fs=0.0)
            now, energies = toy_labels(molecule), list[float]()
            for _ in range(round(100 / timestep)):
                x, v = stepper.advance(now.positions, v, now.forces, np.full((4, 3), 1e9))
                now = toy_labels(replace(now, positions=x))
                v = stepper.finish(v, now.forces)
                energies.append(float(now.energy[0]) + kinetic_energy(masses, v))
            return float(np.std(energies))

        coarse, fine, finest = drift(0.5), drift(0.25), drift(0.125)
        assert coarse < 0.02
        assert coarse / fine == pytest.approx(4, rel=0.1)
        assert fine / finest == pytest.approx(4, rel=0.1)

    def test_free_atoms_reach_the_temperature_of_their_own_bath(self) -> None:
        masses, baths = np.repeat([1.0, 40.0], 3000), np.tile([300.0, 900.0], 3000)
        stepper = Baoab(masses, baths, timestep_fs=1.0, friction_per_fs=0.2)
        v, rng = np.zeros((6000, 3)), np.random.default_rng(0)
        for _ in range(40):
            _, v = stepper.advance(np.zeros((6000, 3)), v, np.zeros((6000, 3)), rng.normal(size=(6000, 3)))
        for bath in (300.0, 900.0):
            mine = baths == bath
            measured = kinetic_energy(masses[mine], v[mine]) / (1.5 * BOLTZMANN_EV_PER_K * mine.sum())
            assert measured == pytest.approx(bath, rel=0.05)

    def test_part_of_an_integrator_moves_like_the_whole(self) -> None:
        rng = np.random.default_rng(0)
        whole = Baoab(rng.uniform(1, 20, 6), rng.uniform(100, 900, 6), timestep_fs=0.7, friction_per_fs=0.1)
        x, v, f, noise = (rng.normal(size=(6, 3)) for _ in range(4))
        rows = np.array([4, 1])
        for one, other in zip(
            whole.take(rows).advance(*(a[rows] for a in (x, v, f, noise))), whole.advance(x, v, f, noise), strict=True
        ):
            np.testing.assert_array_equal(one, other[rows])

    def test_maxwell_velocities_have_no_momentum_and_the_right_temperature(self) -> None:
        masses = np.array([14.007, 1.008, 1.008, 1.008])
        rng, energies = np.random.default_rng(0), list[float]()
        for _ in range(4000):
            v = maxwell_velocities(masses, 300.0, rng)
            assert np.abs((masses[:, None] * v).sum(axis=0)).max() < 1e-12
            energies.append(kinetic_energy(masses, v))
        # Nine degrees of freedom are left; the standard error is 0.75 %.
        assert np.mean(energies) == pytest.approx(4.5 * KT, rel=0.03)


class TestSampler:
    def test_walkers_sample_the_temperatures_of_the_ladder(self) -> None:
        found = fly(
            Springs(),
            nitrogen(64),
            n_walkers=64,
            n_steps=700,
            temperatures_K=[300.0, 900.0],
            timestep_fs=2.0,
            friction_per_fs=0.05,
            save_every_steps=5,
        ).candidates
        bond = np.linalg.norm(found.positions[1::2] - found.positions[::2], axis=1).reshape(64, -1)[:, 40:]
        sampler = np.array(found.text("origin/sampler")).reshape(64, -1)[:, 0]
        for kelvin in (300, 900):
            mine = bond[sampler == f"langevin_{kelvin}K"]
            assert len(mine) == 32
            # About 1000 independent samples each: 4 %.
            assert mine.var() == pytest.approx(BOLTZMANN_EV_PER_K * kelvin / 20.0, rel=0.15)

    def test_candidates_are_saved_at_the_asked_steps(self) -> None:
        found = fly(Springs(), nitrogen(8), n_steps=25, save_every_steps=10)
        assert found.stops == {"completed": 8}
        assert found.steps == 200
        # Steps 10, 20 and the last, 25.
        assert len(found.candidates) == 24
        assert found.candidates.text("origin/trajectory")[:4] == ["iter001_job0_walker0"] * 3 + ["iter001_job0_walker1"]

    def test_doubt_stops_a_walker_and_the_doubtful_structure_is_kept(self) -> None:
        predictor, limit = Springs(doubt_per_angstrom=20.0), 0.9
        found = fly(predictor, nitrogen(8), stop_uncertainty_ev_per_angstrom=limit, save_every_steps=1, n_steps=300)
        assert found.stops["uncertainty"] == 8
        said = predictor.predict(found.candidates)
        doubt = worst_atom(said.uncertainty["forces"], said.ptr)
        walker = np.array(found.candidates.text("origin/trajectory"))
        last = np.append(walker[1:] != walker[:-1], True)
        assert (doubt[last] > limit).all()
        assert (doubt[~last] <= limit).all()

    def test_finished_walkers_leave_the_batch(self) -> None:
        predictor = Springs(doubt_per_angstrom=20.0)
        found = fly(predictor, nitrogen(8), stop_uncertainty_ev_per_angstrom=0.9, n_steps=300)
        assert predictor.batches == sorted(predictor.batches, reverse=True)
        assert len(set(predictor.batches)) > 3
        assert found.steps == sum(predictor.batches[1:])

    def test_a_walker_that_leaves_does_not_disturb_the_others(self) -> None:
        labelled = toy_labels(rattled(6, molecules="ammonia", displacement=0.03))
        config = {"n_walkers": 5, "n_steps": 60, "timestep_fs": 0.5, "save_every_steps": 6}
        calm = fly(ToyPredictor(), labelled, **config).candidates

        def doubt(structures: Structures) -> Array:
            # Only the third walker of the batch ever doubts, from the start.
            return np.where((structures.structure_of_atom == 2) & (len(structures) == 5), 99.0, 0.01)

        disturbed = fly(ToyPredictor(doubt), labelled, **config)
        assert disturbed.stops == {"uncertainty": 1, "completed": 4}
        expected = [i for i, t in enumerate(calm.text("origin/trajectory")) if not t.endswith("walker2")]
        assert disturbed.candidates.ids == calm[expected].ids

    @pytest.mark.parametrize(
        ("reason", "predictor", "sanity"),
        [
            ("min_distance", Springs(shift=-0.8), SanityConfig(min_distance_factor=0.75)),
            (
                "fragments",
                Springs(shift=2.0),
                SanityConfig(max_energy_above_min_ev_per_atom=99, max_force_ev_per_angstrom=99),
            ),
            ("energy", Springs(shift=0.5), SanityConfig(max_energy_above_min_ev_per_atom=0.8)),
            ("force", Springs(k=-20.0, shift=-0.05), SanityConfig(max_force_ev_per_angstrom=8.0)),
        ],
    )
    def test_planted_faults_stop_walkers_and_insane_structures_are_not_kept(
        self, reason: str, predictor: Springs, sanity: SanityConfig
    ) -> None:
        labelled = nitrogen(8)
        found = fly(predictor, labelled, sanity, save_every_steps=1, temperatures_K=[10.0], timestep_fs=0.25)
        assert found.stops == {reason: 8}
        said = predictor.predict(found.candidates)
        verdict = SanityCheck(sanity, labelled).check(found.candidates, energy=said.energy, forces=said.forces)
        assert verdict.sane.all()
        # The last sane structure is kept: steps are fine, so it is close to the limit.
        assert len(found.candidates) == found.steps - 8

    def test_the_last_sane_structure_is_kept_between_saves(self) -> None:
        sanity = SanityConfig(max_energy_above_min_ev_per_atom=0.8)
        keep = {"temperatures_K": [10.0], "timestep_fs": 0.25}
        every = fly(Springs(shift=0.5), nitrogen(8), sanity, save_every_steps=1, **keep).candidates
        rare = fly(Springs(shift=0.5), nitrogen(8), sanity, save_every_steps=1000, **keep).candidates
        walker = np.array(every.text("origin/trajectory"))
        last = np.append(walker[1:] != walker[:-1], True)
        assert rare.ids == every[last].ids

    @pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
    def test_forces_that_are_not_numbers_stop_only_their_walker(self, value: float) -> None:
        def spoil(structures: Structures, prediction: Prediction) -> Prediction:
            forces = prediction.forces.copy()
            forces[(structures.structure_of_atom == 1) & (len(structures) == 5)] = value
            return replace(prediction, forces=forces)

        labelled = toy_labels(rattled(6, molecules="ammonia", displacement=0.03))
        found = fly(ToyPredictor(spoil=spoil), labelled, n_walkers=5, n_steps=30, timestep_fs=0.5)
        assert sum(found.stops.values()) == 5
        assert found.stops["completed"] == 4
        assert np.isfinite(found.candidates.positions).all()

    def test_more_walkers_than_labels(self) -> None:
        found = fly(Springs(), nitrogen(3), n_walkers=7, n_steps=10)
        parents = found.candidates.text("origin/parent")
        counts = sorted(parents.count(name) for name in set(parents))
        assert counts == [2, 2, 3]

    def test_starts_only_from_sane_labels(self) -> None:
        labelled = Structures.concatenate([nitrogen(3), nitrogen(3)])
        energy = np.array([-100.0, -100, -100, -90, -90, -90])
        bonds = labelled.positions.copy()
        bonds[7::2] += [0, 0, 0.001]
        labelled = replace(labelled, positions=bonds).with_columns(labels__energy=energy)
        found = fly(Springs(), labelled, n_steps=10)
        assert set(found.candidates.text("origin/parent")) <= set(labelled[:3].ids)
        with pytest.raises(DataError, match=r"None of the 3 labelled structures.*fragments"):
            fly(Springs(), replace(nitrogen(3), positions=8 * nitrogen(3).positions))

    def test_a_method_without_force_uncertainty_can_not_explore(self) -> None:
        def spoil(_: Structures, prediction: Prediction) -> Prediction:
            return replace(prediction, uncertainty={})

        with pytest.raises(ModelError, match="needs a force uncertainty"):
            fly(ToyPredictor(spoil=spoil), toy_labels(rattled(6, molecules="ammonia", displacement=0.03)))
