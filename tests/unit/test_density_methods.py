"""Mixtures, distances and controls: closed forms, planted structure, planted faults."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist, mahalanobis

from dubito.config.methods import CalibrationConfig, DistanceConfig, GmmConfig
from dubito.config.model import ModelConfig
from dubito.config.uncertainty import UncertaintyConfig
from dubito.core.errors import DataError, ModelError
from dubito.data.statistics import fit_statistics
from dubito.data.structures import Structures
from dubito.metrics.ranking import auroc
from dubito.model.potential import Potential
from dubito.testing.structures import crystal, random_orthogonal, rattled, toy_labels, transformed
from dubito.uncertainty import gaussian_mixture
from dubito.uncertainty.controls import ConstantControl, ForceNormControl, RandomControl, uniform
from dubito.uncertainty.distance import DistanceUncertainty, mean_distance
from dubito.uncertainty.element_gaussians import shrunk_covariance
from dubito.uncertainty.gaussian_mixture import GaussianMixture, fit_mixture
from dubito.uncertainty.latents import draw_atoms, training_atoms
from dubito.uncertainty.mixture import MixtureUncertainty

UNSEEN = toy_labels(rattled(12, seed=2))
AMMONIA = toy_labels(rattled(40, seed=1, molecules="ammonia"))


def potential_of(train: Structures) -> Potential:
    """Return an untrained network, whose latents are as good as any here."""
    out = Potential(ModelConfig(n_layers=2, dtype="float64", r_max_angstrom=3.5), fit_statistics(train, 3.5), 1)
    out.initialise(3, [0])
    return out.requires_grad_(False)


@pytest.fixture(scope="module")
def potential() -> Potential:
    return potential_of(toy_labels(rattled(20, seed=1)))


def spd(rng: np.random.Generator, d: int) -> Any:
    a = rng.normal(size=(d, d))
    return a @ a.T + 0.1 * np.eye(d)


def mixture_of(weights: Any, means: Any, covariances: Any) -> GaussianMixture:
    factors = np.stack([np.linalg.inv(np.linalg.cholesky(c)).T for c in covariances])
    return GaussianMixture(np.asarray(weights), np.asarray(means), factors)


# --- the mixture --------------------------------------------------------------------------------


def test_one_gaussian_is_the_normal_density() -> None:
    rng = np.random.default_rng(0)
    mean, covariance, x = rng.normal(size=6), spd(rng, 6), 3 * rng.normal(size=(50, 6))
    score = mixture_of([1.0], [mean], [covariance]).negative_log_likelihood(x)
    np.testing.assert_allclose(score, -stats.multivariate_normal(mean, covariance).logpdf(x), rtol=1e-12)


def test_mixture_is_that_of_scikit_learn_however_it_is_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.mixture import GaussianMixture as Estimator

    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(size=(300, 4)), 0.3 * rng.normal(size=(60, 4)) + 3, rng.normal(size=(20, 4)) - 6])
    model = Estimator(3, random_state=0).fit(x)
    ours = GaussianMixture(model.weights_, model.means_, model.precisions_cholesky_)
    # Far away too, where each component's density alone underflows.
    points = np.concatenate([x, 100 * rng.normal(size=(20, 4))])
    np.testing.assert_allclose(ours.negative_log_likelihood(points), -model.score_samples(points), rtol=1e-10)
    monkeypatch.setattr(gaussian_mixture, "PAIRS_PER_CHUNK", 20)
    np.testing.assert_allclose(ours.negative_log_likelihood(points), -model.score_samples(points), rtol=1e-10)


def test_density_integrates_to_one() -> None:
    """It would not with the weights left out."""
    mixture = mixture_of([0.8, 0.2], [[-1.0], [2.0]], [[[0.3]], [[1.7]]])
    x = np.linspace(-12, 14, 20001)
    density = np.exp(-mixture.negative_log_likelihood(x[:, None]))
    assert np.trapezoid(density, x) == pytest.approx(1.0, abs=1e-8)


def clusters(rng: np.random.Generator, n: int) -> tuple[Any, Any]:
    """Return points of five clusters with known weights, and the weights."""
    weights = np.array([0.35, 0.25, 0.2, 0.15, 0.05])
    centers = np.array([[0, 0], [6, 0], [0, 6], [6, 6], [3, 12]], float)
    which = rng.choice(5, n, p=weights)
    return centers[which] + rng.normal(size=(n, 2)) * np.array([0.5, 0.9]), weights


def test_planted_clusters_are_found() -> None:
    x, weights = clusters(np.random.default_rng(2), 1500)
    mixture, choice = fit_mixture(x, np.arange(1500) // 15, max_components=12, regularisation=1e-6, seed=0)
    assert (choice.n_components, choice.decided_by) == (5, "bic")
    np.testing.assert_allclose(np.sort(mixture.weights)[::-1], weights, atol=0.03)
    assert choice.regularisation == 1e-6 and choice.converged


def test_cap_is_recorded() -> None:
    x, _ = clusters(np.random.default_rng(2), 600)
    _, choice = fit_mixture(x, np.arange(600) // 15, max_components=3, regularisation=1e-6, seed=0)
    assert (choice.n_components, choice.decided_by) == (3, "cap")


def test_held_out_structures_stop_what_the_bic_would_not() -> None:
    """Atoms that repeat within a structure are no independent evidence; the BIC takes them for it."""
    rng = np.random.default_rng(3)
    structure = np.repeat(np.arange(40), 50)
    x = rng.normal(size=(40, 2))[structure] + 0.02 * rng.normal(size=(2000, 2))
    _, choice = fit_mixture(x, structure, max_components=40, regularisation=1e-6, seed=0)
    alone, _ = fit_mixture(x, structure % 2, max_components=40, regularisation=1e-6, seed=0)
    assert choice.decided_by == "held_out"
    assert choice.n_components <= 8
    assert len(alone.weights) >= 30


def test_chosen_mixture_does_not_learn_by_heart() -> None:
    """Structures trained on and structures held out, of one distribution: AUROC near one half."""
    rng = np.random.default_rng(4)
    means, covariance = 2 * rng.normal(size=(4, 8)), spd(rng, 8) / 4

    def draw(n: int) -> Any:
        noise = rng.multivariate_normal(np.zeros(8), covariance, size=8 * n)
        return means[rng.integers(4, size=8 * n)] + noise

    train, unseen, structure = draw(400), draw(400), np.repeat(np.arange(400), 8)

    def diagonal(mixture: GaussianMixture) -> float:
        score = [mixture.negative_log_likelihood(x).reshape(-1, 8).mean(axis=1) for x in (train, unseen)]
        return auroc(np.concatenate(score), np.repeat([0, 1], 400))

    chosen, choice = fit_mixture(train, structure, max_components=10, regularisation=1e-6, seed=0)
    assert 4 <= choice.n_components <= 6
    assert abs(diagonal(chosen) - 0.5) < 0.06
    model, _ = gaussian_mixture._expectation_maximisation(train, 60, 1e-6, 0)
    assert diagonal(GaussianMixture(model.weights_, model.means_, model.precisions_cholesky_)) > 0.7


def test_singular_covariance_is_regularised_and_recorded() -> None:
    rng = np.random.default_rng(5)
    flat = rng.normal(size=(400, 2))
    x = np.concatenate([flat, flat @ np.array([[1.0], [2.0]])], axis=1)
    mixture, choice = fit_mixture(x, np.arange(400) // 4, max_components=2, regularisation=1e-25, seed=0)
    assert choice.regularisation > 1e-20
    score = mixture.negative_log_likelihood(np.concatenate([x, x + [[0, 0, 1.0]]]))
    assert np.all(np.isfinite(score))
    assert score[400:].min() > score[:400].max()


def test_copies_of_one_atom_make_one_component() -> None:
    mixture, choice = fit_mixture(np.ones((100, 3)), np.arange(100), max_components=5, regularisation=1e-3, seed=0)
    assert choice.n_components == 1
    near, far = mixture.negative_log_likelihood(np.array([[1.0, 1, 1], [2, 1, 1]]))
    assert far - near == pytest.approx(0.5 / 1e-3, rel=1e-6)


def test_too_few_atoms_are_refused() -> None:
    with pytest.raises(DataError, match="at least 5 atoms"):
        fit_mixture(np.zeros((4, 4)), np.arange(4), max_components=3, regularisation=1e-6, seed=0)


def test_rare_element_is_judged_by_the_mixture_of_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One water among ammonia: its oxygen can't have a mixture of its own, nor can 41 nitrogens in 16 dimensions."""
    train = Structures.concatenate([AMMONIA, toy_labels(rattled(2, seed=7)[[1]])])
    potential = potential_of(train)
    config = UncertaintyConfig(gmm=GmmConfig(per_species=True, max_components=3))
    method = MixtureUncertainty.fit(potential, train, UNSEEN, seed=0, config=config)
    assert set(method.mixtures) == {"1", "pooled"}
    assert method.fallbacks == {"7": 40, "8": 1}
    assert "too few for a mixture of its own" in caplog.text
    method.save(tmp_path / "gmm.safetensors")
    assert MixtureUncertainty.load(tmp_path / "gmm.safetensors", potential).fallbacks == method.fallbacks
    # Each atom gets the density of its own mixture, not another's.
    latent = method.member.predict(UNSEEN).latent
    score, features = method.score(UNSEEN, latent), method.standardiser.apply(latent)
    for key, rows in (("1", UNSEEN.atomic_numbers == 1), ("pooled", UNSEEN.atomic_numbers > 1)):
        np.testing.assert_allclose(score[rows], method.mixtures[key].negative_log_likelihood(features[rows]))


def test_pooled_mixture_ignores_elements(potential: Potential) -> None:
    train = toy_labels(rattled(40, seed=1))
    method = MixtureUncertainty.fit(potential, train, UNSEEN, seed=0)
    assert set(method.mixtures) == {"pooled"} and not method.fallbacks
    assert method.choices["pooled"]["n_atoms"] == 140


# --- training atoms -----------------------------------------------------------------------------


def test_draw_is_seeded_bounded_and_spares_the_rare() -> None:
    numbers = np.array([1] * 9000 + [6] * 990 + [8] * 10)
    one, again, other = (draw_atoms(numbers, 300, np.random.default_rng(s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert 290 <= len(one) <= 300 and len(np.unique(one)) == len(one)
    # All ten oxygens are kept; the rest stay in proportion beyond their share.
    assert np.sum(numbers[one] == 8) == 10
    assert np.sum(numbers[one] == 1) > 2 * np.sum(numbers[one] == 6)
    np.testing.assert_array_equal(draw_atoms(numbers, 10000, np.random.default_rng(0)), np.arange(10000))


def test_training_atoms_are_the_latents_of_their_structures(
    potential: Potential, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = rattled(60, seed=1)
    full = potential.predict(train).latent
    assert full is not None
    monkeypatch.setattr("dubito.uncertainty.latents.ATOMS_PER_CHUNK", 30)
    everything = training_atoms(potential, train, max_atoms=1000, seed=0)
    np.testing.assert_allclose(everything.latent, full, atol=1e-12)
    some = training_atoms(potential, train, max_atoms=100, seed=0)
    rows = draw_atoms(train.atomic_numbers, 100, gaussian_mixture.generator(0, "training atoms"))
    np.testing.assert_allclose(some.latent, full[rows], atol=1e-12)
    np.testing.assert_array_equal(some.structure, train.structure_of_atom[rows])
    np.testing.assert_array_equal(some.atomic_numbers, train.atomic_numbers[rows])


@pytest.mark.parametrize("method", [MixtureUncertainty, DistanceUncertainty])
def test_broken_latents_are_refused(method: Any) -> None:
    train = toy_labels(rattled(20, seed=1))
    broken = potential_of(train)
    next(broken.to_latent.parameters()).data.fill_(np.nan)
    with pytest.raises(ModelError, match="not finite"):
        method.fit(broken, train, UNSEEN, seed=0)


def test_no_training_structures_are_refused(potential: Potential) -> None:
    with pytest.raises(DataError, match="no training structures"):
        training_atoms(potential, rattled(1)[np.zeros(0, int)], max_atoms=100, seed=0)


# --- distances ----------------------------------------------------------------------------------


@pytest.fixture(params=["mahalanobis", "neighbors"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fit_distance(potential: Potential, train: Structures, **settings: Any) -> DistanceUncertainty:
    config = UncertaintyConfig(distance=DistanceConfig(**settings))
    return DistanceUncertainty.fit(potential, train, UNSEEN, seed=0, config=config)


def test_mahalanobis_is_that_of_scipy_per_element(potential: Potential) -> None:
    train = toy_labels(rattled(60, seed=1))
    method = fit_distance(potential, train, kind="mahalanobis")
    assert not method.fallbacks
    known, latent = (potential.predict(s).latent for s in (train, UNSEEN))
    score = method.score(UNSEEN, latent)
    known, latent = method.standardiser.apply(known), method.standardiser.apply(latent)
    for z in (1, 7, 8):
        own = known[train.atomic_numbers == z]
        precision = np.linalg.inv(shrunk_covariance(own - own.mean(axis=0)))
        rows = UNSEEN.atomic_numbers == z
        expected = [mahalanobis(x, own.mean(axis=0), precision) for x in latent[rows]]
        np.testing.assert_allclose(score[rows], expected, rtol=1e-8)


def test_shrinkage_matters_for_few_and_vanishes_for_many() -> None:
    rng = np.random.default_rng(0)
    true = spd(rng, 10)
    many, few = (rng.multivariate_normal(np.zeros(10), true, size=n) for n in (20000, 12))
    np.testing.assert_allclose(shrunk_covariance(many), many.T @ many / 20000, rtol=0.02, atol=0.02)
    assert np.linalg.cond(shrunk_covariance(few)) < 0.1 * np.linalg.cond(few.T @ few / 12)
    # Twelve points in ten dimensions: new ones of the same law are not to seem far away.
    new = rng.multivariate_normal(np.zeros(10), true, size=500)
    for covariance, bound in ((shrunk_covariance(few), 3.0), (few.T @ few / 12, np.inf)):
        mean_square = np.einsum("ni,ij,nj->n", new, np.linalg.inv(covariance), new).mean() / 10
        assert mean_square < bound
    assert mean_square > 3.0


def test_neighbours_are_those_of_the_element(potential: Potential) -> None:
    train = toy_labels(rattled(60, seed=1))
    method = fit_distance(potential, train, kind="neighbors", n_neighbors=3)
    known, latent = (potential.predict(s).latent for s in (train, UNSEEN))
    score = method.score(UNSEEN, latent)
    known, latent = method.standardiser.apply(known), method.standardiser.apply(latent)
    for z in (1, 7, 8):
        table = np.sort(cdist(latent[UNSEEN.atomic_numbers == z], known[train.atomic_numbers == z]), axis=1)
        np.testing.assert_allclose(score[UNSEEN.atomic_numbers == z], table[:, :3].mean(axis=1), rtol=1e-10)


def test_small_distances_are_not_rounded_away() -> None:
    known = np.full((4, 16), 1e3) + np.arange(4)[:, None]
    assert mean_distance(known[:1] + 1e-7, cKDTree(known), 1)[0] == pytest.approx(4e-7, rel=1e-5)


def test_rare_and_unseen_elements_fall_back(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The potential knows oxygen and carbon; among the training atoms are one oxygen and no carbon."""
    train = Structures.concatenate([AMMONIA, toy_labels(rattled(2, seed=7)[[1]])])
    methane = Structures.build([[6, 1, 1]], [np.array([[0, 0, 0], [0, 0, 1.1], [1.0, 0, -0.4]])])
    known = Structures.concatenate([train, toy_labels(methane)])
    potential = potential_of(known)
    method = fit_distance(potential, train, kind=kind)
    assert set(method.fallbacks) == {"6", "8"}
    assert method.fallbacks["8"].startswith("1 atoms" if kind == "mahalanobis" else "mean over its 1")
    assert method.fallbacks["6"].startswith("0 atoms")
    assert "element 8 has few training atoms" in caplog.text
    given = method.predict(methane).scores["forces"]
    assert np.all(np.isfinite(given)) and given[0] > 0
    # The single oxygen is its own mean and its own nearest neighbour.
    at_home = method.predict(train).scores["forces"][train.atomic_numbers == 8]
    np.testing.assert_allclose(at_home, 0.0, atol=1e-6)
    method.save(tmp_path / "distance.safetensors")
    assert DistanceUncertainty.load(tmp_path / "distance.safetensors", potential).fallbacks == method.fallbacks


def test_max_atoms_bounds_what_is_kept(potential: Potential) -> None:
    train = toy_labels(rattled(60, seed=1))
    one, again = (fit_distance(potential, train, kind="neighbors", max_atoms=100) for _ in range(2))
    assert len(one.kept) <= 100
    np.testing.assert_array_equal(one.kept, again.kept)


# --- controls -----------------------------------------------------------------------------------


def test_force_norm_is_the_predicted_force(potential: Potential) -> None:
    method = ForceNormControl.fit(potential, toy_labels(rattled(20, seed=1)), UNSEEN, seed=0)
    given = method.predict(UNSEEN)
    expected = np.linalg.norm(given.forces, axis=1) / potential.statistics.force_scale_ev_per_angstrom
    np.testing.assert_allclose(given.scores["forces"], expected, rtol=1e-12)


def test_constant_doubts_all_alike(potential: Potential) -> None:
    unseen = toy_labels(rattled(100, seed=2))
    config = UncertaintyConfig(calibration=CalibrationConfig(strata="element"))
    method = ConstantControl.fit(potential, toy_labels(rattled(20, seed=1)), unseen, seed=0, config=config)
    sigma = method.predict(Structures.concatenate([rattled(3), rattled(3, displacement=0.3)])).uncertainty["forces"]
    assert np.ptp(sigma) == 0 and sigma[0, 0] > 0


def random_of(potential: Potential, seed: int, structures: Structures) -> Any:
    return RandomControl.fit(potential, UNSEEN, UNSEEN, seed=seed).raw(structures)[1].forces


def test_random_is_uniform_and_tells_nothing(potential: Potential) -> None:
    structures = toy_labels(rattled(700, seed=1))
    one, other = random_of(potential, 0, structures), random_of(potential, 1, structures)
    assert stats.kstest(one, "uniform").pvalue > 1e-3
    size = np.linalg.norm(structures.forces, axis=1)
    for what in (other, size, structures.atomic_numbers):
        assert abs(stats.spearmanr(one, what).statistic) < 0.06
    assert len(np.unique(one)) == len(one)


def test_random_is_invariant_in_crystals_too(potential: Potential) -> None:
    structures = crystal(3, seed=1)
    before = random_of(potential, 0, structures)
    turned = transformed(structures, random_orthogonal(1, proper=False), np.array([0.3, 2.0, -1.0]))
    np.testing.assert_array_equal(random_of(potential, 0, turned), before)
    moved = Structures.build(
        [structures.atomic_numbers[:8]], [structures.positions[:8] + 1e-3 * np.eye(8, 3)],
        cell=structures.cell[:1], pbc=True,
    )  # fmt: skip
    assert not np.any(random_of(potential, 0, moved) == before[:8])


def test_random_does_not_change_as_a_neighbour_crosses_the_cutoff(potential: Potential) -> None:
    r_max = potential.config.r_max_angstrom
    pairs = [np.array([[0, 0, 0], [0, 0, 1.0], [0, 0, 1.0 + r_max + shift]]) for shift in (-1e-9, 1e-9)]
    inside, outside = (random_of(potential, 0, Structures.build([[7, 1, 1]], [x])) for x in pairs)
    np.testing.assert_array_equal(inside[1:], outside[1:])


def test_hash_depends_on_every_key_and_the_seed() -> None:
    keys = np.arange(1000), np.zeros(1000)
    base = uniform(5, *keys)
    assert base.min() >= 0 and base.max() < 1
    for changed in (uniform(6, *keys), uniform(5, keys[0], keys[1] + 1), uniform(5, keys[1], keys[0])):
        assert not np.any(changed[1:] == base[1:])
    np.testing.assert_array_equal(uniform(5, *keys), base)
