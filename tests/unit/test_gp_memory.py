"""Gaussian processes of large structures: nothing is made that grows with the square of their atoms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dubito.core.random import generator
from dubito.uncertainty import sparse_posterior
from dubito.uncertainty.latent_kernels import LatentKernel
from dubito.uncertainty.sparse_posterior import SparsePosterior, atom_pairs, prior_of_sums, summed_covariances

MB = 2**20


class Largest(TorchDispatchMode):
    """Keeps the size of the largest tensor that is made."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.bytes = max(self.bytes, leaf.untyped_storage().nbytes())
        return out


def atoms(n: int, seed: int = 0) -> torch.Tensor:
    return torch.as_tensor(generator(seed, "atoms").normal(size=(n, 16)))


def kernel_of(kind: Any) -> LatentKernel:
    length, scale = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (3.0, 0.7))
    return LatentKernel(kind, length, scale)


@pytest.mark.parametrize("kind", ["linear", "rbf", "matern"])
def test_prior_of_a_large_structure(kind: Any) -> None:
    """All pairs of 1000 atoms have 128 MB of latents. By the definition, it is the sum of all covariances."""
    x, kernel = atoms(1000), kernel_of(kind)
    with torch.no_grad(), Largest() as made:
        found = prior_of_sums(kernel, x, torch.tensor([0, 1000]))
    assert made.bytes < 3 * MB
    np.testing.assert_allclose(found, kernel(x, x).sum()[None].detach(), rtol=1e-9)


@pytest.mark.parametrize("kind", ["rbf", "matern"])
def test_blocks_change_nothing(kind: Any, monkeypatch: Any) -> None:
    """Nor their gradient; one structure is empty, and with the fewest values each stands alone, row by row."""
    ptr, found = torch.tensor([0, 7, 7, 8, 30]), []
    for values in (10**9, 16 * 40, 1):
        monkeypatch.setattr(sparse_posterior, "PAIR_VALUES", values)
        x, kernel = atoms(30).requires_grad_(), kernel_of(kind)
        prior = prior_of_sums(kernel, x, ptr)
        slopes = torch.autograd.grad(prior.square().sum(), (x, kernel.lengthscale, kernel.outputscale))
        found.append([prior.detach(), *slopes])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)
    assert float(found[0][0][1]) == 0.0


def test_covariances_of_a_large_structure() -> None:
    """With 400 inducing points those of 12000 atoms have 38 MB."""
    x, z, kernel = atoms(12000), atoms(400, 1), kernel_of("rbf")
    with torch.no_grad(), Largest() as made:
        found = summed_covariances(kernel, x, z, torch.tensor([0, 12000]))
    assert made.bytes < 17 * MB
    with torch.no_grad():
        np.testing.assert_allclose(found[0], kernel(x, z).sum(dim=0), rtol=1e-9)


def test_pairs_stay_within_their_structure() -> None:
    first, second, owner = atom_pairs(torch.tensor([0, 2, 2, 3]))
    assert [tuple(row) for row in torch.stack([first, second, owner], 1).tolist()] == [
        (0, 0, 0),
        (0, 1, 0),
        (1, 0, 0),
        (1, 1, 0),
        (2, 2, 2),
    ]


def test_posterior_of_a_large_structure() -> None:
    """Sums, atoms and slopes of draws: with 400 inducing points 16 draws at once would take 100 MB for 2000 atoms."""
    m = 400
    kernel = LatentKernel("rbf", *(torch.tensor(x, dtype=torch.float64) for x in (3.0, 0.7)))
    posterior = SparsePosterior(
        kernel, atoms(m, 1), torch.zeros(m, dtype=torch.float64), torch.eye(m, dtype=torch.float64)
    )
    x, ptr = atoms(2000), torch.tensor([0, 2000])
    draws = posterior.draw(16, 64, generator(0, "draws"))
    with torch.no_grad(), Largest() as made:
        posterior.sums(x, ptr)
        posterior.atoms(x)
        draws.slopes(posterior, x)
    assert made.bytes < 17 * MB
