"""The sparse variational Gaussian process: closed forms, limits, seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dubito.config.methods import SvgpConfig
from dubito.config.model import ModelConfig
from dubito.config.uncertainty import UncertaintyConfig
from dubito.core.errors import DataError, ModelError
from dubito.core.random import generator
from dubito.data.statistics import fit_statistics
from dubito.model.potential import Potential
from dubito.testing.structures import rattled, toy_labels
from dubito.uncertainty.inducing import choose_inducing, initial_lengthscale, random_inducing
from dubito.uncertainty.latent_kernels import LatentKernel, RandomFeatures
from dubito.uncertainty.latents import latents_of
from dubito.uncertainty.sparse_posterior import SparsePosterior, sums_over_atoms
from dubito.uncertainty.standardiser import Standardiser
from dubito.uncertainty.variational_gp import VariationalGpUncertainty
from dubito.uncertainty.variational_training import AtomGp, Observations, VariationalTrainer

KINDS = ("linear", "rbf", "matern")


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def latents(n: int, d: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.as_tensor(generator(seed, "latents").normal(size=(n, d)))


def some_posterior(kind: Any, m: int = 6, seed: int = 0) -> SparsePosterior:
    rng = generator(seed, "posterior")
    factor = torch.as_tensor(0.3 * rng.normal(size=(m, m))).tril()
    kernel = LatentKernel(kind, scalar(1.3), scalar(0.7))
    inducing = torch.eye(m, dtype=torch.float64) if kind == "linear" else latents(m, seed=seed + 1)
    return SparsePosterior(kernel, inducing, torch.as_tensor(rng.normal(size=m)), factor)


@pytest.fixture(scope="module")
def potential() -> Potential:
    torch.manual_seed(0)
    train = toy_labels(rattled(20, seed=1))
    config = ModelConfig(n_features=8, n_layers=2, dtype="float64", r_max_angstrom=3.5)
    out = Potential(config, fit_statistics(train, 3.5), 1)
    out.initialise(0, [0])
    return out.requires_grad_(False)


class TestKernels:
    @pytest.mark.parametrize("kind", KINDS)
    def test_equals_gpytorch(self, kind: Any) -> None:
        model = AtomGp(latents(5).numpy(), kind, learn_inducing=True)
        model.start(lengthscale=1.7, outputscale=0.4)
        a, b = latents(7, seed=2), latents(4, seed=3)
        own = model.posterior().kernel
        with torch.no_grad():
            theirs = model.covar_module(a, b).to_dense()
            np.testing.assert_allclose(own(a, b), theirs, rtol=1e-9)
            np.testing.assert_allclose(own.diagonal(a), own(a, a).diagonal(), rtol=1e-9)
            np.testing.assert_allclose(own.of_pairs(a[:4], b), theirs[:4].diagonal(), rtol=1e-9)

    @pytest.mark.parametrize("kind", KINDS)
    def test_slopes_are_the_derivative(self, kind: Any) -> None:
        kernel = LatentKernel(kind, scalar(0.8), scalar(1.2))
        a, b, weights = latents(5).requires_grad_(), latents(4, seed=1), latents(2, d=4, seed=2)
        expected = [torch.autograd.grad((kernel(a, b) @ w).sum(), a)[0] for w in weights]
        np.testing.assert_allclose(kernel.slopes(a, b, weights).detach(), torch.stack(expected), rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("kind", KINDS)
    def test_slopes_can_be_differentiated_at_an_inducing_point(self, kind: Any) -> None:
        """The inducing points are atoms: distances of zero are the rule there, not the exception."""
        points = latents(4).requires_grad_()
        kernel = LatentKernel(kind, scalar(0.8).requires_grad_(), scalar(1.2))
        weights = latents(2, d=4, seed=2)

        def value(z: torch.Tensor) -> torch.Tensor:
            return kernel.slopes(points.detach(), z, weights).square().sum()

        (gradient,) = torch.autograd.grad(value(points), points)
        step, k = 1e-6, (1, 2)
        moved = [points.detach().clone() for _ in range(2)]
        moved[0][k] += step
        moved[1][k] -= step
        numeric = (value(moved[0]) - value(moved[1])).detach() / (2 * step)
        np.testing.assert_allclose(gradient[k], numeric, rtol=1e-5)

    @pytest.mark.parametrize("kind", KINDS)
    def test_random_features_have_the_covariance_of_the_kernel(self, kind: Any) -> None:
        kernel = LatentKernel(kind, scalar(1.1), scalar(0.5))
        a = latents(6)
        draws = RandomFeatures.draw(kernel, 3, 20000, 4000, generator(0, "draws"))(a)
        np.testing.assert_allclose(torch.cov(draws.T), kernel(a, a), atol=0.06)

    @pytest.mark.parametrize("kind", KINDS)
    def test_slopes_of_random_features(self, kind: Any) -> None:
        features = RandomFeatures.draw(LatentKernel(kind, scalar(1.1), scalar(0.5)), 3, 2, 50, generator(0, "x"))
        a = latents(5).requires_grad_()
        expected = [torch.autograd.grad(features(a)[s].sum(), a, retain_graph=True)[0] for s in range(2)]
        np.testing.assert_allclose(features.slopes(a).detach(), torch.stack(expected), rtol=1e-9, atol=1e-12)


class TestPosterior:
    @pytest.mark.parametrize("kind", KINDS)
    def test_variance_of_a_sum_has_all_covariances(self, kind: Any) -> None:
        """S Sigma S^T with the dense joint covariance, from the definition."""
        m = 3 if kind == "linear" else 6
        p = some_posterior(kind, m)
        x, ptr = latents(9), torch.tensor([0, 4, 5, 9])
        kzz, kxz = p.kernel(p.inducing, p.inducing).numpy(), p.kernel(x, p.inducing).numpy()
        chol = np.linalg.cholesky(kzz)
        projection = np.linalg.solve(kzz, kxz.T).T
        covariance = chol @ p.factor.numpy() @ p.factor.numpy().T @ chol.T
        joint = p.kernel(x, x).numpy() + projection @ (covariance - kzz) @ projection.T
        sums = np.repeat(np.eye(3), np.diff(ptr), axis=1)
        mean, variance = p.sums(x, ptr)
        np.testing.assert_allclose(mean, sums @ projection @ chol @ p.mean.numpy(), rtol=1e-6)
        np.testing.assert_allclose(variance, np.diag(sums @ joint @ sums.T), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(p.atoms(x)[1], np.diag(joint), rtol=1e-5, atol=1e-7)
        independent = sums_over_atoms(p.atoms(x)[1], ptr)
        assert float(((independent - variance).abs() / variance).max()) > 0.1

    def test_equals_gpytorchs_joint_covariance(self) -> None:
        model = AtomGp(latents(6).numpy(), "rbf", learn_inducing=True)
        model.start(lengthscale=1.4, outputscale=0.6)
        distribution = model.variational_strategy._variational_distribution
        distribution.variational_mean.data = latents(6, d=1, seed=4)[:, 0]
        distribution.chol_variational_covar.data = some_posterior("rbf").factor
        x, ptr = latents(7, seed=2), torch.tensor([0, 3, 7])
        model.eval()
        with torch.no_grad():
            joint = model(x)
            sums = torch.repeat_interleave(torch.eye(2, dtype=torch.float64), torch.tensor([3, 4]), dim=1)
            mean, variance = model.posterior().sums(x, ptr)
            np.testing.assert_allclose(mean, sums @ joint.mean, rtol=1e-3)
            np.testing.assert_allclose(variance, (sums @ joint.covariance_matrix @ sums.T).diagonal(), rtol=1e-3)

    def test_far_away_the_prior_comes_back(self) -> None:
        p = some_posterior("rbf")
        at, far = p.inducing, p.inducing + 50.0
        np.testing.assert_allclose(p.atoms(far)[1], p.kernel.diagonal(far), rtol=1e-9)
        assert (p.atoms(at)[1] < 0.9 * p.kernel.diagonal(at)).any()

    @pytest.mark.parametrize("kind", KINDS)
    def test_draws_have_the_posterior_variance_near_and_far(self, kind: Any) -> None:
        p = some_posterior(kind, 3 if kind == "linear" else 6)
        x = torch.cat([latents(5, seed=7), latents(5, seed=8) + 30.0])
        draws = p.draw(4000, 2000, generator(0, "x")).values(p, x)
        np.testing.assert_allclose(draws.square().mean(dim=0), p.atoms(x)[1], rtol=0.15, atol=0.01)

    def test_draws_without_a_prior_part_would_vanish_far_away(self) -> None:
        """Why draws are pathwise."""
        p = some_posterior("rbf")
        weights = p.function_weights(torch.as_tensor(generator(0, "x").normal(size=(50, 6))) @ p.factor.T)
        far = p.inducing + 50.0
        assert (weights @ p.kernel(p.inducing, far)).abs().max() < 1e-9
        assert p.draw(50, 500, generator(0, "x")).values(p, far).std() > 0.5 * float(p.kernel.outputscale) ** 0.5

    @pytest.mark.parametrize("kind", KINDS)
    def test_slopes_of_draws(self, kind: Any) -> None:
        p = some_posterior(kind, 3 if kind == "linear" else 6)
        draws, x = p.draw(2, 64, generator(0, "x")), latents(5).requires_grad_()
        expected = [torch.autograd.grad(draws.values(p, x)[s].sum(), x, retain_graph=True)[0] for s in range(2)]
        np.testing.assert_allclose(draws.slopes(p, x).detach(), torch.stack(expected), rtol=1e-8, atol=1e-12)


class TestTraining:
    """Energies only, on latents that are given: what it converges to is known in closed form."""

    NOISE = 0.02

    def trained(self, potential: Potential, kind: Any, **settings: Any) -> tuple[AtomGp, torch.Tensor, Any, Any]:
        structures = rattled(10, seed=1)
        x = latents(structures.ptr[-1], d=2)
        ptr = torch.as_tensor(structures.ptr)
        y = sums_over_atoms(torch.sin(x[:, :1]) + 0.5 * x[:, 1:], ptr)[:, 0].numpy()
        data = Observations(structures, x.numpy(), Standardiser.identity(2), y, np.zeros((len(x), 3)))
        config = SvgpConfig(
            kernel=kind,
            steps=1500,
            learning_rate=0.03,
            force_weight=0,
            objective="elbo",
            learn_inducing=False,
            **settings,
        )
        model = AtomGp(np.eye(2) if kind == "linear" else x.numpy(), kind, learn_inducing=False)
        model.start(lengthscale=1.0, outputscale=0.5)
        trainer = VariationalTrainer(potential, data, model, config, seed=0)
        trainer.likelihood.noise = self.NOISE
        for parameter in (*model.covar_module.parameters(), *trainer.likelihood.parameters()):
            parameter.requires_grad_(False)
        trainer.run()
        return model, x, ptr, y

    def test_with_every_atom_inducing_it_is_the_exact_process(self, potential: Potential) -> None:
        model, x, ptr, y = self.trained(potential, "rbf")
        with torch.no_grad():
            posterior = model.posterior()
            sums = torch.repeat_interleave(torch.eye(len(ptr) - 1, dtype=torch.float64), ptr[1:] - ptr[:-1], dim=1)
            new = latents(8, d=2, seed=5)
            observed = sums @ posterior.kernel(x, x) @ sums.T + self.NOISE * torch.eye(len(y), dtype=torch.float64)
            rows = posterior.kernel(new, x) @ sums.T
            gain = torch.linalg.solve(observed, rows.T).T
            mean, variance = posterior.atoms(new)
            np.testing.assert_allclose(mean, gain @ y, atol=0.02)
            exact = posterior.kernel.diagonal(new) - (gain * rows).sum(dim=1)
            np.testing.assert_allclose(variance.sqrt(), exact.sqrt(), rtol=0.03)

    def test_linear_is_bayesian_linear_regression(self, potential: Potential) -> None:
        model, x, ptr, y = self.trained(potential, "linear")
        with torch.no_grad():
            posterior = model.posterior()
            rows = sums_over_atoms(x, ptr)
            unit = torch.eye(2, dtype=torch.float64)
            precision = unit / posterior.kernel.outputscale + rows.T @ rows / self.NOISE
            weights = torch.linalg.solve(precision, rows.T @ torch.as_tensor(y) / self.NOISE)
            new = latents(8, d=2, seed=5)
            mean, variance = posterior.atoms(new)
            np.testing.assert_allclose(mean, new @ weights, atol=0.01)
            exact = (new * torch.linalg.solve(precision, new.T).T).sum(dim=1)
            np.testing.assert_allclose(variance.sqrt(), exact.sqrt(), rtol=0.02)

    def test_forces_of_a_few_stand_for_all(self, potential: Potential, monkeypatch: Any) -> None:
        """Copies of one structure: the closed form is the same whether it looks at the forces of one or of all."""
        structures = toy_labels(rattled(1, seed=1))[np.zeros(6, int)]
        features = latents_of(potential, structures)
        standardiser = Standardiser.fit(features)
        x = standardiser.apply(features)
        data = Observations(structures, x, standardiser, np.full(6, 0.3), structures.forces)
        found = []
        for atoms in (1, 10**6):
            monkeypatch.setattr("dubito.uncertainty.variational_training.SOLVE_ATOMS", atoms)
            model = AtomGp(x[:4], "rbf", learn_inducing=False)
            VariationalTrainer(potential, data, model, SvgpConfig(), seed=0).solve()
            posterior = model.posterior()
            found.append((posterior.mean.detach(), posterior.factor.detach()))
        for one, every in zip(*found, strict=True):
            np.testing.assert_allclose(one, every, rtol=1e-6, atol=1e-9)


class TestMethod:
    @staticmethod
    def fit(potential: Potential, seed: int = 0, **settings: Any) -> VariationalGpUncertainty:
        train, unseen = toy_labels(rattled(20, seed=1)), toy_labels(rattled(6, seed=2))
        own = SvgpConfig(**{"steps": 60, "n_inducing": 16, "n_force_samples": 4, **settings})
        return VariationalGpUncertainty.fit(potential, train, unseen, seed=seed, config=UncertaintyConfig(svgp=own))

    @pytest.fixture(scope="class")
    @classmethod
    def fitted(cls, potential: Potential) -> VariationalGpUncertainty:
        return cls.fit(potential)

    def test_another_seed_is_another_process(self, fitted: Any, potential: Potential) -> None:
        structures = rattled(3, seed=5)
        same, other = (self.fit(potential, seed).raw(structures)[1].forces for seed in (0, 1))
        np.testing.assert_array_equal(fitted.raw(structures)[1].forces, same)
        assert np.all(np.abs(other / same - 1) > 1e-6)

    def test_leaves_torchs_default_and_global_state_alone(self, potential: Potential) -> None:
        before = torch.random.get_rng_state()
        self.fit(potential, steps=2)
        assert torch.get_default_dtype() == torch.float32
        assert torch.equal(before, torch.random.get_rng_state())

    def test_doubt_is_larger_where_nothing_was_learnt(self, potential: Potential) -> None:
        fitted = self.fit(potential, steps=250, learning_rate=0.05)
        near, far = (fitted.raw(rattled(20, seed=9, displacement=x))[1] for x in (0.08, 0.35))
        assert far.energies.mean() > 1.15 * near.energies.mean()
        assert np.median(far.forces) > 1.15 * np.median(near.forces)

    def test_forces_of_draws_are_derivatives_of_their_energies(self, fitted: Any) -> None:
        """Moving one atom changes a draw's energy by its force: slopes, units and the standardiser are right."""
        one, step = rattled(1, seed=3), 1e-4
        from dataclasses import replace

        from dubito.data.graphs import build_graph
        from dubito.model.readouts import latent_forces

        def draw(positions: Any) -> torch.Tensor:
            latent = fitted.member.predict(replace(one, positions=positions)).latent
            x = torch.as_tensor(fitted.standardiser.apply(latent))
            return fitted.scale_ev * fitted.draws.values(fitted.posterior, x).sum(dim=1)

        shift = np.zeros_like(one.positions)
        shift[1, 2] = step
        numeric = -(draw(one.positions + shift) - draw(one.positions - shift)) / (2 * step)
        member = fitted.member
        graph = build_graph(one, member.species, member.config.r_max_angstrom, member.dtype)
        x = torch.as_tensor(fitted.standardiser.apply(member.predict(one).latent))
        slopes = fitted.scale_ev * fitted.draws.slopes(fitted.posterior, x) / torch.as_tensor(fitted.standardiser.scale)
        forces = latent_forces(member, graph, slopes)
        np.testing.assert_allclose(forces[:, 1, 2], numeric, rtol=1e-5)
        np.testing.assert_allclose(fitted.raw(one)[1].forces, forces.square().mean(dim=(0, 2)).sqrt(), rtol=1e-9)

    @pytest.mark.parametrize("target", ["energy", "residual"])
    def test_learns_the_target_with_its_sign(self, potential: Potential, target: Any) -> None:
        train = toy_labels(rattled(20, seed=1))
        wanted = train.energy - (potential.predict(train).energy if target == "residual" else 0.0)
        wanted = wanted - train.n_atoms * (wanted.sum() / train.n_atoms.sum())
        fitted = self.fit(potential, target=target, n_inducing=70, force_weight=0)
        x = torch.as_tensor(fitted.standardiser.apply(latents_of(fitted.member, train)))
        mean = fitted.scale_ev * fitted.posterior.sums(x, torch.as_tensor(train.ptr))[0].numpy()
        # Molecules of one kind: what tells the kinds apart is the potential's shifts, which are not in the energies.
        kind = train.n_atoms == 4
        assert np.corrcoef(mean[kind], wanted[kind])[0, 1] > 0.8

    def test_forces_make_it_surer(self, potential: Potential) -> None:
        """What forces say reaches the covariance, not the mean alone."""
        structures, left = rattled(10, seed=1), []
        for weight in (0.0, 1.0):
            fitted = self.fit(potential, steps=250, learning_rate=0.05, force_weight=weight)
            prior = fitted.scale_ev * float(fitted.posterior.kernel.outputscale) ** 0.5
            left.append(fitted.raw(structures)[1].energies.mean() / prior)
        assert left[1] < 0.7 * left[0]

    @pytest.mark.parametrize(
        "settings",
        [
            {"target": "residual"}, {"standardise": False}, {"inducing": "random"}, {"lengthscale": "default"},
            {"scale_target": False}, {"initialise_scales": False}, {"objective": "elbo"}, {"kernel": "matern"},
        ],
    )  # fmt: skip
    def test_every_setting_matters(self, fitted: Any, potential: Potential, settings: Any) -> None:
        structures = rattled(3, seed=5)
        other = self.fit(potential, **settings).raw(structures)[1]
        assert np.all(np.isfinite(other.forces))
        assert np.all(other.forces > 0)
        assert not np.allclose(other.energies, fitted.raw(structures)[1].energies, rtol=1e-5)

    def test_a_rate_that_is_too_high_is_said(self, potential: Potential) -> None:
        with pytest.raises(ModelError, match="learning_rate"):
            self.fit(potential, learning_rate=1e6, steps=50)


class TestInducing:
    def test_rare_environments_get_points(self) -> None:
        """One atom in a thousand is of another element, and one in a hundred in another environment."""
        rng = generator(0, "x")
        common = rng.normal(scale=0.1, size=(990, 4))
        features = np.concatenate([common, 5 + rng.normal(scale=0.1, size=(10, 4)), np.full((1, 4), -5.0)])
        species = np.array([1] * 1000 + [8])
        spread, drawn = choose_inducing(features, species, 12, 0), random_inducing(features, 12, 0)
        assert (spread.mean(axis=1) > 4).any()
        assert (spread.mean(axis=1) < -4).any()
        assert not (drawn.mean(axis=1) < -4).any()

    @pytest.mark.parametrize("n", [5, 40, 500])
    def test_points_are_distinct_atoms(self, n: int) -> None:
        features = np.repeat(latents(60, d=4).numpy(), 2, axis=0)
        chosen = choose_inducing(features, np.arange(120) // 2 % 3, n, 0)
        rows = {tuple(row) for row in features}
        assert len({tuple(row) for row in chosen}) == len(chosen) == min(n, 60)
        assert all(tuple(row) in rows for row in chosen)

    def test_same_seed_same_points(self) -> None:
        features, species = latents(200, d=4).numpy(), np.arange(200) % 2
        a, b, c = (choose_inducing(features, species, 20, seed) for seed in (0, 0, 1))
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)

    def test_lengthscale_is_that_within_environments(self) -> None:
        """Ten tight clouds far from each other: the distance of two atoms of one cloud is 2 s d^1/2 / 2^1/2."""
        rng = generator(0, "x")
        centers = 20 * rng.normal(size=(10, 16))
        features = np.concatenate([c + 0.3 * rng.normal(size=(100, 16)) for c in centers])
        species = np.ones(1000, int)
        length = initial_lengthscale(features, species, choose_inducing(features, species, 10, 0))
        np.testing.assert_allclose(length, 0.3 * np.sqrt(32), rtol=0.03)

    def test_lengthscale_does_not_break_where_every_atom_is_inducing(self) -> None:
        features, species = latents(200, d=4).numpy(), np.ones(200, int)
        few, all_atoms = (
            initial_lengthscale(features, species, choose_inducing(features, species, n, 0)) for n in (25, 200)
        )
        assert 0.5 * few < all_atoms < 2 * few

    def test_standardises_and_keeps_constant_dimensions_quiet(self) -> None:
        features = np.concatenate([5 + 3 * latents(500, d=2).numpy(), np.full((500, 1), 7.0)], axis=1)
        standardiser = Standardiser.fit(features)
        values = standardiser.apply(features)
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(values.std(axis=0), [1, 1, 0], atol=1e-12)
        assert np.abs(standardiser.apply(features + 1e-4)[:, 2]).max() < 0.1
        np.testing.assert_allclose(standardiser.apply(torch.as_tensor(features)), values, rtol=1e-12)

    def test_refuses_what_is_not_finite(self) -> None:
        features = latents(5).numpy()
        features[2, 1] = np.nan
        with pytest.raises(DataError, match="1 of 5 atoms"):
            Standardiser.fit(features)
        with pytest.raises(DataError, match="N > 0"):
            choose_inducing(np.zeros((0, 3)), np.zeros(0, int), 4, 0)
