"""The sparse Gaussian process in closed form: what its rows are, tiny sets, what must not matter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dubito.config.methods import SparseGpConfig
from dubito.config.model import ModelConfig
from dubito.config.uncertainty import UncertaintyConfig
from dubito.core.errors import ModelError
from dubito.core.random import generator
from dubito.data.statistics import fit_statistics
from dubito.data.structures import Structures
from dubito.model.potential import Potential
from dubito.testing.structures import rattled, toy_labels
from dubito.uncertainty import gaussian_process, sparse_gp
from dubito.uncertainty.latent_kernels import LatentKernel
from dubito.uncertainty.latents import member_graph
from dubito.uncertainty.sparse_gp import Evidence, Observed, SparseGpUncertainty, _Data, largest_evidence, log_evidence
from dubito.uncertainty.sparse_posterior import covariance_factor
from dubito.uncertainty.standardiser import Standardiser

KINDS = ("linear", "rbf", "matern")


@pytest.fixture(scope="module")
def potential() -> Potential:
    config = ModelConfig(n_features=8, n_layers=2, dtype="float64", r_max_angstrom=3.5)
    out = Potential(config, fit_statistics(toy_labels(rattled(20, seed=1)), 3.5), 1)
    out.initialise(0, [0])
    return out.requires_grad_(False)


def fit(potential: Potential, train: Structures, **settings: Any) -> SparseGpUncertainty:
    own = SparseGpConfig(**{"n_inducing": 40, "n_force_samples": 4, **settings})
    unseen = toy_labels(rattled(6, seed=2))
    return SparseGpUncertainty.fit(potential, train, unseen, seed=0, config=UncertaintyConfig(sparse_gp=own))


def kernel_of(kind: Any) -> LatentKernel:
    return LatentKernel(kind, torch.tensor(1.5, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))


class TestTinySets:
    """Nelder-Mead goes where next to nothing is left of the prior: it must not get lost there."""

    @pytest.mark.parametrize("kernel", KINDS)
    @pytest.mark.parametrize(
        ("n", "displacement"), [(1, 0.08), (1, 0.001), (2, 0.001), (3, 0.001), (3, 0.3), (5, 0.001), (5, 0.02)]
    )
    def test_gives_finite_deviations(self, potential: Potential, kernel: Any, n: int, displacement: float) -> None:
        fitted = fit(potential, toy_labels(rattled(n, seed=1, displacement=displacement)), kernel=kernel)
        prediction = fitted.predict(rattled(4, seed=9))
        for target in ("energy", "energies", "forces"):
            sigma = prediction.uncertainty[target]
            assert np.all(np.isfinite(sigma))
            assert np.all(sigma > 0)

    @pytest.mark.parametrize("kernel", KINDS)
    def test_copies_have_the_scale_of_forces(self, potential: Potential, kernel: Any) -> None:
        """Their energies differ by rounding alone, which is no scale."""
        copies = toy_labels(rattled(1, seed=1))[np.zeros(10, int)]
        copies = copies.with_columns(labels__energy=copies.energy + 1e-12 * np.arange(10))
        assert copies.energy.std() > 0
        fitted = fit(potential, copies, kernel=kernel)
        assert fitted.scale_ev == potential.statistics.force_scale_ev_per_angstrom
        assert np.all(np.isfinite(fitted.predict(rattled(4, seed=9)).uncertainty["forces"]))

    def test_no_evidence_where_rounding_hides_the_prior(self) -> None:
        """Two rows that are nearly the same, of labels all but free of noise."""
        energy, noisy = Observed.none(3), Observed.none(3)
        energy.add(np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0 + 1e-9]]), np.array([1.0, 2.0]))
        found = [log_evidence(energy, noisy, Evidence(0.0, 1.0, noise, 1.0)) for noise in (1e-2, 1e-20, 1e-30)]
        assert np.isfinite(found[0])
        assert found[1:] == [-np.inf, -np.inf]

    def test_what_is_not_finite_is_said(self) -> None:
        energy, forces = Observed.none(3), Observed.none(3)
        energy.add(np.eye(3), np.array([1.0, np.nan, 2.0]))
        with pytest.raises(ModelError, match="not a finite number"):
            largest_evidence(energy, forces)

    def test_a_precision_that_is_none_is_said(self) -> None:
        with pytest.raises(ModelError, match="n_inducing"):
            covariance_factor(torch.diag(torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)))


def test_covariance_factor_is_the_cholesky_factor_of_the_inverse() -> None:
    a = generator(0, "a").normal(size=(6, 6))
    precision = np.eye(6) + a @ a.T
    expected = np.linalg.cholesky(np.linalg.inv(precision))
    np.testing.assert_allclose(covariance_factor(torch.as_tensor(precision)), expected, rtol=1e-9, atol=1e-14)


class TestRows:
    @pytest.fixture(scope="class")
    @classmethod
    def data(cls, potential: Potential) -> _Data:
        return _Data.of(potential, toy_labels(rattled(12, seed=1)), np.array([7, 0, 3, 10, 4]))

    @pytest.mark.parametrize("kind", KINDS)
    def test_forces_are_derivatives_of_energies(self, data: _Data, potential: Potential, kind: Any) -> None:
        inducing = torch.as_tensor(np.eye(data.latent.shape[1]) if kind == "linear" else data.latent[:40])
        kernel, one, step = kernel_of(kind), data.train[[3]], 1e-4
        forces = data._force_rows(np.array([3]), kernel, inducing).reshape(len(inducing), -1, 3)
        shift = np.zeros_like(one.positions)
        shift[1, 2] = step

        def rows(positions: Any) -> torch.Tensor:
            latent = data.standardiser.apply(potential.predict(replace(one, positions=positions)).latent)
            return kernel(torch.as_tensor(latent), inducing).sum(dim=0)

        numeric = -(rows(one.positions + shift) - rows(one.positions - shift)) / (2 * step)
        np.testing.assert_allclose(forces[:, 1, 2], numeric, rtol=1e-5, atol=2e-6 * float(forces.abs().max()))

    @pytest.mark.parametrize("kind", KINDS)
    def test_sums_do_not_depend_on_the_chunks(self, data: _Data, monkeypatch: Any, kind: Any) -> None:
        inducing = torch.as_tensor(np.eye(data.latent.shape[1]) if kind == "linear" else data.latent[:40])
        whole = data.observe(kernel_of(kind), inducing)
        monkeypatch.setattr(sparse_gp, "KERNEL_VALUES", 5 * len(inducing))
        monkeypatch.setattr(sparse_gp, "FUNCTIONS", 3)
        monkeypatch.setattr("dubito.uncertainty.sparse_posterior.KERNEL_VALUES", 2 * len(inducing))
        for a, b in zip(whole, data.observe(kernel_of(kind), inducing), strict=True):
            scale = np.abs(a.gram).max()
            np.testing.assert_allclose(a.gram, b.gram, rtol=1e-6, atol=1e-8 * scale)
            np.testing.assert_allclose(a.moment, b.moment, rtol=1e-6, atol=1e-8 * np.abs(a.moment).max())
            assert a.square == pytest.approx(b.square)
            assert a.count == b.count > 0

    def test_forces_of_fewer_are_those_of_some(self, data: _Data) -> None:
        few = data.fewer(2)
        np.testing.assert_array_equal(few.with_forces, [0, 10])
        inducing = torch.as_tensor(data.latent[:10])
        assert few.observe(kernel_of("rbf"), inducing)[1].count == 3 * int(data.train.n_atoms[[0, 10]].sum())


def test_an_energy_per_atom_does_not_matter(potential: Potential) -> None:
    """A reference of energies that differs by so much for each atom is not doubt."""
    train, test = toy_labels(rattled(20, seed=1)), rattled(4, seed=9)
    moved = train.with_columns(labels__energy=train.energy + 7.0 * train.n_atoms)
    a, b = (fit(potential, x) for x in (train, moved))
    assert a.scale_ev == pytest.approx(b.scale_ev, rel=1e-9)
    for target in ("energy", "forces"):
        np.testing.assert_allclose(*(m.predict(test).uncertainty[target] for m in (a, b)), rtol=1e-4)


def test_each_structure_is_evaluated_once(potential: Potential, monkeypatch: Any) -> None:
    train, seen = toy_labels(rattled(20, seed=1)), []
    evaluate = Potential.evaluate

    def counted(self: Potential, graph: Any, **settings: Any) -> Any:
        seen.append(graph.n_atoms)
        return evaluate(self, graph, **settings)

    monkeypatch.setattr(Potential, "evaluate", counted)
    SparseGpUncertainty(potential).learn(train, train, seed=0, config=UncertaintyConfig())
    assert sum(seen) == len(train.atomic_numbers)


def test_graph_and_slopes_are_where_the_member_is(potential: Potential, monkeypatch: Any) -> None:
    """The device without memory stands in for an accelerator; both processes and both their fits go this way."""
    member, structures = potential.member(0).to("meta"), rattled(1, seed=1)
    seen = []

    def forces(member: Potential, graph: Any, slopes: torch.Tensor) -> torch.Tensor:
        seen.append((graph.vectors.device.type, slopes.device.type, slopes.dtype))
        return torch.zeros(len(slopes), graph.n_atoms, 3)

    monkeypatch.setattr(gaussian_process, "latent_forces", forces)
    graph = member_graph(member, structures)
    slopes = torch.ones(2, graph.n_atoms, 16, dtype=torch.float64)
    out = gaussian_process.function_forces(member, graph, slopes, Standardiser.identity(16))
    assert seen == [("meta", "meta", torch.float64)]
    assert (out.device.type, out.dtype) == ("cpu", torch.float64)


@pytest.mark.parametrize("name", ["svgp", "sparse_gp"])
def test_both_fits_make_forces_in_one_place(potential: Potential, monkeypatch: Any, name: str) -> None:
    from dubito.config.methods import SvgpConfig
    from dubito.uncertainty.registry import method_class

    train, graphs = toy_labels(rattled(4, seed=1)), []

    def no_network(member: Potential, graph: Any, slopes: torch.Tensor) -> torch.Tensor:
        graphs.append(graph)
        return slopes.sum(dim=2, keepdim=True).expand(-1, -1, 3)

    monkeypatch.setattr(gaussian_process, "latent_forces", no_network)
    config = UncertaintyConfig(
        svgp=SvgpConfig(steps=2, n_inducing=8), sparse_gp=SparseGpConfig(n_inducing=8, n_force_samples=2)
    )
    method: Any = method_class(name)(potential)
    method.learn(train, train, seed=0, config=config)
    before = len(graphs)
    assert before > 0
    method.raw(train)
    assert len(graphs) == before + 1
