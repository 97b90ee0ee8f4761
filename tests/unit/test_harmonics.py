"""Harmonics and radial basis against e3nn, finite differences and closed forms."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from e3nn import o3

from dubito.core.errors import ModelError
from dubito.model import tables
from dubito.model.harmonics import SphericalHarmonics
from dubito.model.linear import NORMALISED_SILU, NORMALISED_TANH
from dubito.model.radial import BesselBasis, RadialNetwork, SplineGrid


@pytest.mark.parametrize("l_max", [0, 1, 2, 3, 4])
def test_values_equal_e3nn(l_max: int) -> None:
    vectors = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    length = vectors.norm(dim=1)
    ours, _ = SphericalHarmonics(l_max, torch.float64)(vectors / length[:, None], length)
    reference = o3.spherical_harmonics(list(range(l_max + 1)), vectors, normalize=True, normalization="component")
    torch.testing.assert_close(ours, reference, atol=1e-11, rtol=0)


@pytest.mark.parametrize("l_max", [1, 2, 3, 4])
def test_jacobian_equals_finite_differences(l_max: int) -> None:
    harmonics = SphericalHarmonics(l_max, torch.float64)
    vectors = torch.randn(10, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def at(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        length = x.norm(dim=1)
        given: tuple[torch.Tensor, torch.Tensor] = harmonics(x / length[:, None], length)
        return given

    _, jacobian = at(vectors)
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = 1e-6
        numeric = (at(vectors + step)[0] - at(vectors - step)[0]) / 2e-6
        torch.testing.assert_close(jacobian[:, :, axis], numeric, atol=1e-7, rtol=1e-6)


def test_radial_basis() -> None:
    basis = BesselBasis(4.0, 8, 6)
    r = torch.linspace(0.3, 3.999, 60, dtype=torch.float64)
    x = float(r[5]) / 4.0
    cutoff = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
    expected = math.sqrt(2 / 4.0) * math.sin(2 * math.pi * x) / float(r[5]) * cutoff
    assert float(basis(r)[5, 1]) == pytest.approx(expected, rel=1e-12)
    at_ends = basis(torch.tensor([0.0, 4.0, 5.0], dtype=torch.float64))
    assert float(at_ends[0, 2]) == pytest.approx(math.sqrt(2 / 4.0) * 3 * math.pi / 4.0, rel=1e-12)
    assert float(at_ends[1:].abs().max()) == 0.0


def test_splines_reproduce_polynomials_and_their_slope() -> None:
    """Cubic B-splines make any straight line exactly, sum to one, and their slopes are derivatives."""
    grid = SplineGrid(4.0, 32)
    r = torch.linspace(0.0, 3.9999, 101, dtype=torch.float64)
    places = (torch.arange(grid.n_knots, dtype=torch.float64) - 1) * grid.width
    torch.testing.assert_close(grid.matrix(r) @ places, r, atol=1e-12, rtol=0)
    torch.testing.assert_close(grid.matrix(r).sum(1), torch.ones_like(r), atol=1e-12, rtol=0)
    inside = r[1:-1]
    _, _, slope = grid.locate(inside)
    numeric = (grid.matrix(inside + 1e-6) - grid.matrix(inside - 1e-6)) / 2e-6
    knot = grid.locate(inside)[0].long()
    for k in range(4):
        torch.testing.assert_close(slope[:, k], numeric[torch.arange(len(inside)), knot + k], atol=1e-6, rtol=0)
    torch.testing.assert_close(grid.free_knots(), places[: grid.n_intervals])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_radial_functions_vanish_smoothly_at_the_cutoff(dtype: torch.dtype) -> None:
    """Value, slope and curvature; and with fine splines they are the network itself."""
    grid = SplineGrid(4.0, 2048)
    network = RadialNetwork(2, 8, [16], 3, 5, dtype)
    torch.manual_seed(0)
    for weight in network.weights:
        torch.nn.init.normal_(weight.value)
    basis = BesselBasis(4.0, 8, 6)
    table = network(basis(grid.free_knots()).to(dtype))
    assert table.shape == (2, 3, grid.n_knots, 5)
    r = torch.tensor([4.0 - 2e-3, 4.0 - 1e-3, 4.0], dtype=dtype)
    values = grid.matrix(r) @ table[0, 0]
    scale = float(table.detach().abs().max())
    assert float(values[2].detach().abs().max()) == 0.0
    assert float(values[0].detach().abs().max()) < 1e-5 * scale
    x = torch.linspace(0.5, 3.5, 50, dtype=dtype)
    direct = network(basis(x.double()).to(dtype))[:, :, :50]
    torch.testing.assert_close(grid.matrix(x) @ table, direct, atol=1e-4 * scale, rtol=0)


def test_activations_keep_the_second_moment() -> None:
    z = np.random.default_rng(0).normal(size=2_000_000)
    assert np.mean((NORMALISED_SILU * z / (1 + np.exp(-z))) ** 2) == pytest.approx(1, abs=0.01)
    assert np.mean((NORMALISED_TANH * np.tanh(z)) ** 2) == pytest.approx(1, abs=0.01)


def test_tables_are_those_of_e3nn(tmp_path: Path) -> None:
    """The shipped file equals what e3nn gives here; to regenerate it: python -m dubito.model.tables."""
    tables.generate(tmp_path / "tables.npz")
    with np.load(tmp_path / "tables.npz") as fresh, np.load(tables.PATH) as shipped:
        assert set(fresh.files) == set(shipped.files)
        for name in fresh.files:
            np.testing.assert_allclose(shipped[name], fresh[name], atol=1e-10, err_msg=name)


def test_a_degree_without_a_table_is_refused() -> None:
    with pytest.raises(ModelError, match=r"up to degree 4.*model\.l_max"):
        tables.harmonic_coefficients(5)


def test_the_network_does_not_import_e3nn() -> None:
    """It costs every job a second or more; only the reference kernel needs it."""
    code = "import sys, dubito.model.potential, dubito.model.kernels.dense; sys.exit('e3nn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
