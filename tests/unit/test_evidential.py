"""The evidential likelihood against closed forms, what it can and can't decide, and its heads."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import multivariate_t, spearmanr
from torch import Tensor

from dubito.config.methods import EvidentialConfig
from dubito.core.random import generator
from dubito.testing.structures import random_orthogonal
from dubito.uncertainty import evidential_heads
from dubito.uncertainty.evidential_heads import ForceErrors, Heads, fit_heads
from dubito.uncertainty.evidential_loss import (
    NormalInverseGamma,
    error_norm,
    evidence_penalty,
    flatness_penalty,
    from_activations,
    negative_log_likelihood,
)
from dubito.uncertainty.evidential_reach import Reach


def constant(nu: float, alpha: float, beta: float, n: int = 1) -> NormalInverseGamma:
    return NormalInverseGamma(*(torch.full((n,), v, dtype=torch.float64) for v in (nu, alpha, beta)))


def squared(errors: np.ndarray) -> Tensor:
    return torch.from_numpy((errors**2).sum(axis=1))


# --- the likelihood ---------------------------------------------------------------------------


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize(("nu", "alpha", "beta"), [(0.3, 1.7, 0.9), (1e-3, 1.01, 20.0), (40.0, 300.0, 2e-4)])
def test_likelihood_is_that_of_a_student_t(dimension: int, nu: float, alpha: float, beta: float) -> None:
    errors = generator(0, "t", dimension).normal(size=(6, dimension))
    shape = beta * (1 + nu) / (nu * alpha) * np.eye(dimension)
    expected = -multivariate_t(np.zeros(dimension), shape, df=2 * alpha).logpdf(errors)
    ours = negative_log_likelihood(constant(nu, alpha, beta, 6), squared(errors), dimension)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-9)


def test_likelihood_is_the_marginal_of_the_hierarchy() -> None:
    """Drawn as the model says (variance, mean, force), errors have the total variance, split as the names say."""
    rng = generator(0, "hierarchy")
    given, n = constant(0.5, 6.0, 2.0), 400_000
    variance = 2.0 / rng.gamma(6.0, size=n)
    mean = rng.normal(size=(n, 3)) * np.sqrt(variance / 0.5)[:, None]
    force = mean + rng.normal(size=(n, 3)) * np.sqrt(variance)[:, None]
    assert np.mean(variance) == pytest.approx(float(given.aleatoric), rel=0.01)
    assert np.mean(mean**2) == pytest.approx(float(given.epistemic), rel=0.01)
    assert np.mean(force**2) == pytest.approx(float(given.total), rel=0.01)


def test_invariant_under_rotation_of_the_error() -> None:
    errors = generator(0, "rotation").normal(size=(8, 3))
    turned = errors @ random_orthogonal(3, proper=True).T
    given = constant(0.3, 1.7, 0.9, 8)
    for loss in (negative_log_likelihood, lambda g, e: evidence_penalty(g, error_norm(e))):
        np.testing.assert_allclose(loss(given, squared(turned)), loss(given, squared(errors)), rtol=1e-12)


@pytest.mark.parametrize("raw", [(0.0, 0.0, 0.0), (-800.0, 0.0, 0.0), (0.0, -800.0, 0.0), (0.0, 0.0, -800.0),
                                 (-800.0, -800.0, -800.0), (800.0, 800.0, 800.0)])  # fmt: skip
@pytest.mark.parametrize("distance", [0.0, 1e-12, 1.0, 1e6])
def test_loss_and_gradient_are_finite_everywhere(raw: tuple[float, ...], distance: float) -> None:
    x = torch.tensor([raw], dtype=torch.float64, requires_grad=True)
    error = torch.full((1, 3), distance, dtype=torch.float64, requires_grad=True)
    length2 = error.square().sum(1)
    given, norm = from_activations(x), error_norm(length2)
    loss = negative_log_likelihood(given, length2) + evidence_penalty(given, norm) + 0.1 * flatness_penalty(x, norm)
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(x.grad).all() and torch.isfinite(error.grad).all()
    assert torch.isfinite(given.total).all() and torch.isfinite(given.epistemic).all()


def test_flatness_penalty_is_the_published_one_and_acts_where_the_likelihood_is_flat() -> None:
    x = torch.tensor([[0.0, v, 0.0] for v in (-3.0, 0.5, 4.0)], dtype=torch.float64)
    alpha = 1 + torch.nn.functional.softplus(x[:, 1])
    norm = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    np.testing.assert_allclose(flatness_penalty(x, norm), -norm * torch.log(torch.expm1(alpha - 1)), rtol=1e-12)
    stuck = torch.tensor([[0.0, -30.0, 0.0]], dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, dtype=torch.float64)
    (flat,) = torch.autograd.grad(negative_log_likelihood(from_activations(stuck), one).sum(), stuck)
    (push,) = torch.autograd.grad(flatness_penalty(stuck, one).sum(), stuck)
    assert abs(float(flat[0, 1])) < 1e-10
    assert float(push[0, 1]) == -1.0


def test_error_norm_has_no_unit() -> None:
    length2 = torch.tensor([0.0, 1e-4, 4.0], dtype=torch.float64)
    np.testing.assert_allclose(error_norm(9 * length2, 3.0), error_norm(length2, 1.0), rtol=1e-12)
    np.testing.assert_allclose(error_norm(length2)[1:], [0.01, 2.0], rtol=6e-3)


def fit_constants(errors: np.ndarray, dimension: int = 3) -> NormalInverseGamma:
    raw = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    length2 = squared(errors)
    solver = torch.optim.LBFGS([raw], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = negative_log_likelihood(from_activations(raw), length2, dimension).mean()
        loss.backward()
        return loss

    solver.step(closure)
    return from_activations(raw.detach())


def test_gaussian_noise_gets_its_variance_and_not_three_times_it() -> None:
    errors = 0.37 * generator(0, "noise").normal(size=(60_000, 3))
    assert float(fit_constants(errors).total) == pytest.approx(0.37**2, rel=0.02)
    # The published scalar form, given the norm as if it were one component.
    assert float(fit_constants(errors, dimension=1).total) == pytest.approx(3 * 0.37**2, rel=0.05)


def test_heavy_tails_are_found() -> None:
    rng = generator(0, "tails")
    errors = multivariate_t(np.zeros(3), 0.25 * np.eye(3), df=6, seed=rng).rvs(60_000)
    given = fit_constants(errors)
    assert 2 * float(given.alpha) == pytest.approx(6, rel=0.1)
    assert float(given.total) == pytest.approx(0.25 * 6 / 4, rel=0.03)


def test_the_split_is_not_identifiable_but_the_total_is() -> None:
    errors = generator(0, "flat").normal(size=(50, 3))
    ratio = 0.8
    curve = [constant(nu, 3.0, ratio * nu / (1 + nu), 50) for nu in (1e-3, 0.1, 1.0, 10.0)]
    losses = [float(negative_log_likelihood(g, squared(errors)).mean()) for g in curve]
    np.testing.assert_allclose(losses, losses[0], atol=1e-10)
    np.testing.assert_allclose([float(g.total[0]) for g in curve], ratio / 2, rtol=1e-9)
    aleatoric = [float(g.aleatoric[0]) for g in curve]
    epistemic = [float(g.epistemic[0]) for g in curve]
    assert aleatoric[-1] / aleatoric[0] > 500 and epistemic[0] / epistemic[-1] > 10


def test_tie_of_nu_to_alpha() -> None:
    given = from_activations(
        torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double(), tie_nu_to_alpha=True
    )
    np.testing.assert_array_equal(given.nu, 2 * given.alpha)


# --- heads ------------------------------------------------------------------------------------


def heteroscedastic(n: int, seed: int = 0) -> tuple[ForceErrors, np.ndarray]:
    """Errors whose deviation follows one of three latents, over a factor of twenty."""
    rng = generator(seed, "heteroscedastic")
    latent = rng.normal(size=(n, 3)) * [0.02, 3.0, 1.0] + [5.0, 0.0, -1.0]
    sigma = 0.01 * np.exp(1.5 * np.tanh(latent[:, 1] / 3))
    errors = rng.normal(size=(n, 3)) * sigma[:, None]
    species = torch.from_numpy(rng.integers(0, 2, size=n))
    return ForceErrors(torch.from_numpy(latent), species, torch.arange(n) // 10, squared(errors)), sigma


@pytest.mark.parametrize("mind_distance", [True, False])
def test_heads_recover_a_varying_deviation(mind_distance: bool) -> None:
    errors, _ = heteroscedastic(6000)
    heads = Heads(3, 2, EvidentialConfig(epochs=150, mind_distance=mind_distance))
    fit_heads(heads, errors, 0)
    unseen, sigma = heteroscedastic(2000, seed=1)
    found = heads.distributions(unseen.latent, unseen.species).total.sqrt().numpy()
    assert spearmanr(found, sigma)[0] > 0.97
    assert np.quantile(np.abs(np.log(found / sigma)), 0.9) < math.log(1.2)


def test_heads_are_the_same_each_time_and_others_with_another_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidential_heads, "MIN_STEPS", 50)
    errors, _ = heteroscedastic(300)
    fitted = []
    for seed in (0, 0, 1):
        heads = Heads(3, 2, EvidentialConfig(epochs=1))
        fit_heads(heads, errors, seed)
        fitted.append(heads.distributions(errors.latent, errors.species).total)
    assert torch.equal(fitted[0], fitted[1])
    assert not torch.equal(fitted[0], fitted[2])


def test_far_from_the_data_doubt_only_grows_with_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidential_heads, "MIN_STEPS", 200)
    errors, _ = heteroscedastic(2000)
    heads = Heads(3, 2, EvidentialConfig(epochs=40))
    fit_heads(heads, errors, 0)
    centre, spread = errors.latent.mean(0), errors.latent.std(0)
    direction = torch.from_numpy(generator(0, "away").normal(size=(50, 3)))
    direction = direction / direction.norm(dim=1, keepdim=True)
    species = torch.zeros(50, dtype=torch.int64)
    along = [
        heads.distributions(centre + spread * step * direction, species).total.numpy() for step in (4.0, 8.0, 40.0)
    ]
    assert np.all(along[1] > along[0]) and np.all(along[2] > along[1])
    assert np.all(along[2] > 5 * along[0])


def test_a_loss_without_bound_is_refused() -> None:
    with pytest.raises(ValidationError, match="without bound"):
        EvidentialConfig(regulariser=0.01, uncertainty_regulariser=0.02)
    # So it would be: the likelihood of a certain Gaussian is bounded below by nothing the evidence costs.
    norm, raw = torch.ones(1).double(), torch.tensor([[0.0, 1e3, 0.0]]).double()
    given = from_activations(raw)
    assert float(0.01 * evidence_penalty(given, norm) + 0.02 * flatness_penalty(raw, norm)) < -9


def test_a_trained_copy_needs_the_training_set() -> None:
    with pytest.raises(ValidationError, match="fit_on: train"):
        EvidentialConfig(backbone="trained", fit_on="unseen")


# --- distance ---------------------------------------------------------------------------------


def test_reach_is_the_mahalanobis_distance_of_the_element() -> None:
    rng = generator(0, "reach")
    mix = rng.normal(size=(4, 4))
    latent = rng.normal(size=(4000, 4)) @ mix
    species = rng.integers(0, 2, size=4000)
    latent[species == 1] += 30.0
    reach = Reach(4, 2)
    reach.fit(torch.from_numpy(latent), torch.from_numpy(species))
    _, ratio = reach(torch.from_numpy(latent), torch.from_numpy(species))
    for z in (0, 1):
        mine = latent[species == z]
        away = mine - mine.mean(axis=0)
        m2 = np.einsum("ni,ij,nj->n", away, np.linalg.inv(np.cov(mine.T, bias=True)), away)
        np.testing.assert_allclose(ratio[species == z], np.maximum(m2 / 4, 1e-3), rtol=0.02)
    # An atom at home for one element is far out for the other.
    _, wrong = reach(torch.from_numpy(latent[species == 1][:5]), torch.zeros(5, dtype=torch.int64))
    assert float(wrong.min()) > 50


def test_outsiders_are_drawn_back_to_the_surface_and_insiders_left_alone() -> None:
    latent = torch.from_numpy(generator(0, "surface").normal(size=(3000, 4)))
    species = torch.zeros(3000, dtype=torch.int64)
    reach = Reach(4, 1)
    reach.fit(latent, species)
    x, ratio = reach(latent, species)
    inside = ratio * 4 <= reach.radius[0] ** 2
    assert float(inside.double().mean()) == pytest.approx(0.9, abs=0.01)
    np.testing.assert_allclose(x[inside], reach.standardised(latent)[inside], atol=1e-12)
    lengths = ((x - reach.centre[0]) @ reach.whitening[0]).norm(dim=1)
    np.testing.assert_allclose(lengths[~inside], float(reach.radius[0]), rtol=1e-9)


def test_rare_and_absent_elements_and_dead_latents_stay_finite() -> None:
    latent = torch.from_numpy(generator(0, "rare").normal(size=(200, 6)))
    latent[:, 2] = 7.0
    species = torch.zeros(200, dtype=torch.int64)
    species[:3] = 1
    reach = Reach(6, 3)
    reach.fit(latent, species)
    for z in range(3):
        x, ratio = reach(latent, torch.full((200,), z))
        assert torch.isfinite(x).all() and torch.isfinite(ratio).all()
