"""Readouts: rows against finite differences, posteriors against dense closed forms."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from dubito.config.methods import ShallowEnsembleConfig
from dubito.config.model import ModelConfig
from dubito.core.errors import ModelError
from dubito.data.graphs import build_graph
from dubito.data.statistics import fit_statistics
from dubito.model.potential import Potential
from dubito.model.readouts import feature_forces, latent_forces, latent_jacobian
from dubito.testing.structures import rattled, toy_labels
from dubito.uncertainty.last_layer import evidence_prior, growing_directions, matrix_root, readout_covariance, shake
from dubito.uncertainty.rows import Readout, Rows
from dubito.uncertainty.shallow_ensemble import train_heads
from dubito.uncertainty.sparse_gp import Evidence, Observed, largest_evidence, log_evidence, precision


def make(kernel="auto", members=1, dtype="float64"):
    structures = toy_labels(rattled(8, seed=1))
    config = ModelConfig(n_features=8, n_layers=2, dtype=dtype, r_max_angstrom=3.5, kernel=kernel)
    potential = Potential(config, fit_statistics(structures, 3.5), members)
    potential.initialise(0, list(range(members)))
    return potential.requires_grad_(False), structures


@pytest.fixture(scope="module")
def one():
    return make()


class TestForcesOfReadouts:
    @pytest.mark.parametrize("kernel", ["fused", "dense"])
    @pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 2e-4)])
    def test_the_energys_readout_gives_the_forces(self, kernel, dtype, tolerance):
        potential, structures = make(kernel, members=3, dtype=dtype)
        graph = build_graph(structures, potential.species, 3.5, potential.dtype)
        for row in range(3):
            member = potential.member(row)
            jacobian = latent_jacobian(member, graph)
            forces = torch.einsum("dnx,d->nx", jacobian, member.to_energy()[0, :, 0])
            assert (forces - potential.evaluate(graph).forces[row]).abs().max() < tolerance

    @pytest.mark.parametrize("kernel", ["fused", "dense"])
    def test_any_function_of_the_features_by_finite_differences(self, kernel):
        potential, structures = make(kernel)
        weights = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

        def energy(positions):
            from dataclasses import replace

            moved = replace(structures, positions=positions, columns={})
            graph = build_graph(moved, potential.species, 3.5, potential.dtype)
            return float(torch.sin(potential.evaluate(graph).features[0] @ weights).sum())

        graph = build_graph(structures, potential.species, 3.5, potential.dtype)
        features = potential.evaluate(graph).features[0]
        slopes = torch.cos(features @ weights)[:, None] * weights
        forces = feature_forces(potential, graph, slopes[None])[0]
        step = 1e-4
        for atom, axis in ((0, 0), (5, 2), (13, 1)):
            shift = np.zeros_like(structures.positions)
            shift[atom, axis] = step
            slope = (energy(structures.positions + shift) - energy(structures.positions - shift)) / (2 * step)
            assert float(forces[atom, axis]) == pytest.approx(-slope, abs=1e-5)

    @pytest.mark.parametrize("kernel", ["fused", "dense"])
    def test_more_sweeps_than_go_at_once_and_their_gradient(self, kernel):
        potential, structures = make(kernel)
        graph = build_graph(structures[:2], potential.species, 3.5, potential.dtype)
        slopes = torch.randn(11, graph.n_atoms, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        together = latent_forces(potential, graph, slopes)
        alone = torch.cat([latent_forces(potential, graph, one[None]) for one in slopes])
        torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
        slopes = slopes.requires_grad_()
        target = torch.randn_like(together)
        (gradient,) = torch.autograd.grad((latent_forces(potential, graph, slopes) * target).sum(), slopes)
        # Linear in the slopes: the gradient times the slopes is the value.
        assert (gradient * slopes).sum().item() == pytest.approx((together * target).sum().item(), rel=1e-9)

    def test_says_what_is_wrong(self, one):
        potential, structures = one
        graph = build_graph(structures, potential.species, 3.5, potential.dtype)
        with pytest.raises(ModelError, match="expected 16 latents"):
            latent_forces(potential, graph, torch.zeros(1, graph.n_atoms, 3))
        with pytest.raises(ModelError, match="expected"):
            feature_forces(potential, graph, torch.zeros(1, 3, 8))
        with pytest.raises(ModelError, match=r"member\(0\)"):
            feature_forces(make(members=2)[0], graph, torch.zeros(1, graph.n_atoms, 8))


class TestLastLayer:
    def test_covariance_is_that_of_bayesian_linear_regression(self, one):
        potential, train = one
        readout = Readout.of(potential, train)
        covariance, about = readout_covariance(readout, train, 100, seed=0)
        rows = next(readout.pieces(train))
        weighted = np.concatenate([
            rows.energy / about["energy_noise_ev"],
            rows.forces.reshape(-1, 8) / about["force_noise_ev_per_angstrom"],
        ])  # fmt: skip
        dense = np.linalg.inv(weighted.T @ weighted + about["prior_precision"] * np.eye(8))
        np.testing.assert_allclose(covariance, dense, rtol=1e-8)
        assert about["force_structures"] == len(train)

    def test_force_rows_of_a_part_stand_for_all(self, one):
        """Structures all alike: whichever of them give force rows, the covariance is the same."""
        potential, structures = one
        train = structures[[0] * 6]
        readout = Readout.of(potential, structures)
        whole, about = readout_covariance(readout, train, 6, seed=0)
        part, about_part = readout_covariance(readout, train, 2, seed=0)
        assert (about["force_structures"], about_part["force_structures"]) == (6, 2)
        np.testing.assert_allclose(part, whole, rtol=1e-8)

    def test_features_are_centred_by_element(self, one):
        potential, train = one
        rows = Readout.of(potential, train).atom_rows(train, potential.predict(train).features)
        for number in (1, 7, 8):
            mine = rows[train.atomic_numbers == number]
            assert np.abs(mine).max() > 1e-3
            np.testing.assert_allclose(mine.mean(axis=0), 0.0, atol=1e-12)

    def test_prior_is_the_maximum_of_the_evidence(self):
        rng = np.random.default_rng(0)
        x, w = rng.normal(size=(30, 6)), rng.normal(size=6)
        information = x.T @ x / 9.0

        def evidence(prior):
            _, logdet = np.linalg.slogdet(information + prior * np.eye(6))
            return 0.5 * (6 * np.log(prior) - logdet - prior * w @ w)

        prior, decided = evidence_prior(information, w)
        assert 0 < decided < 6
        grid = prior * np.exp(np.linspace(-1, 1, 201))
        assert abs(np.log(grid[np.argmax([evidence(p) for p in grid])] / prior)) < 0.02

    def test_more_labels_leave_less_doubt(self, one):
        from dubito.uncertainty.last_layer import LastLayerUncertainty

        potential, train = one
        elsewhere = toy_labels(rattled(6, seed=5))
        few, many = (LastLayerUncertainty.fit(potential, part, elsewhere, seed=0) for part in (train[:3], train))
        a, b = (m.raw(elsewhere)[1] for m in (few, many))
        # Noise is estimated anew from each set; per unit of it every row can only take doubt away.
        noise = many.about["force_noise_ev_per_angstrom"] / few.about["force_noise_ev_per_angstrom"]
        assert np.mean(b.forces) < np.mean(a.forces) * max(noise, 1.0)

    def test_all_directions_are_the_whole_posterior_and_fewer_are_less(self, one):
        potential, train = one
        readout = Readout.of(potential, train)
        root = matrix_root(readout_covariance(readout, train, 100, seed=0)[0])
        shaken = shake(train, 0.1, seed=0)
        assert not shaken.is_labelled.any()
        whole = np.sum(readout.force_rows(train, root) ** 2, axis=(1, 2))
        before = np.zeros(len(whole))
        for n in (1, 3, 8):
            part = growing_directions(readout, shaken, root, n)
            now = np.sum(readout.force_rows(train, part) ** 2, axis=(1, 2))
            assert np.all(now >= before - 1e-12)
            before = now
        np.testing.assert_allclose(before, whole, rtol=1e-8)


class TestShallowEnsemble:
    def test_learns_a_planted_covariance(self):
        """Residuals drawn with a covariance of the weights: the heads find it, up to what the floor adds."""
        rng = np.random.default_rng(1)
        n, d = 4000, 3
        planted = np.array([1.0, 0.3, 0.05])
        forces = rng.normal(size=(n, 3, d))
        scale = np.sqrt(np.mean(np.sum((forces * planted) ** 2, axis=2), axis=1))
        residual = scale[:, None] * rng.normal(size=(n, 3))
        rows = Rows(np.zeros((n, d)), np.zeros((1, d)), forces, np.zeros(1), residual)
        settings = ShallowEnsembleConfig(n_heads=6, epochs=800, learning_rate=0.02)
        root, history = train_heads(rng.normal(size=(d, 6)), rows, np.array([n]), settings)
        assert history[-1] < history[0]
        np.testing.assert_allclose(np.sqrt(np.diag(root @ root.T)), planted, rtol=0.1, atol=0.03)

    def test_heads_deviate_from_their_mean(self):
        rng = np.random.default_rng(0)
        rows = Rows(np.zeros((9, 4)), rng.normal(size=(3, 4)), rng.normal(size=(9, 3, 4)), rng.normal(size=3),
                    rng.normal(size=(9, 3)))  # fmt: skip
        root, _ = train_heads(rng.normal(size=(4, 5)), rows, np.array([3, 3, 3]), ShallowEnsembleConfig(epochs=5))
        np.testing.assert_allclose(root.sum(axis=1), 0.0, atol=1e-12)


class TestSparseGp:
    @pytest.fixture
    def problem(self):
        rng = np.random.default_rng(2)
        a_e, a_f = rng.normal(size=(4, 7)), rng.normal(size=(9, 7))
        y_e, y_f = rng.normal(size=4), rng.normal(size=9)
        energy, forces = Observed.none(7), Observed.none(7)
        energy.add(a_e, y_e)
        forces.add(a_f[:5], y_f[:5])
        forces.add(a_f[5:], y_f[5:])
        return energy, forces, np.vstack([a_e, a_f]), np.concatenate([y_e, y_f])

    def test_evidence_is_that_of_the_dense_gaussian(self, problem):
        energy, forces, a, y = problem
        e = Evidence(0.0, 1.7, 0.3, 0.05)
        covariance = 1.7 * a @ a.T + np.diag([0.3] * 4 + [0.05] * 9)
        assert log_evidence(energy, forces, e) == pytest.approx(multivariate_normal(cov=covariance).logpdf(y), rel=1e-9)

    def test_posterior_is_that_of_dense_conditioning(self, problem):
        energy, forces, a, y = problem
        e = Evidence(0.0, 1.7, 0.3, 0.05)
        p, b = precision(energy, forces, e)
        scaled = np.sqrt(1.7) * a
        dense = scaled @ scaled.T + np.diag([0.3] * 4 + [0.05] * 9)
        np.testing.assert_allclose(np.linalg.solve(p, b), scaled.T @ np.linalg.solve(dense, y), rtol=1e-9)
        np.testing.assert_allclose(
            np.linalg.inv(p), np.eye(7) - scaled.T @ np.linalg.solve(dense, scaled), rtol=1e-8, atol=1e-12
        )

    def test_largest_evidence_is_larger_than_its_neighbours(self, problem):
        energy, forces, *_ = problem
        best = largest_evidence(energy, forces)
        for factor in (0.5, 2.0):
            for key in ("outputscale", "energy_noise", "force_noise"):
                values = {k: getattr(best, k) for k in ("outputscale", "energy_noise", "force_noise")}
                values[key] *= factor
                assert log_evidence(energy, forces, Evidence(0.0, **values)) <= best.log_evidence + 1e-3
