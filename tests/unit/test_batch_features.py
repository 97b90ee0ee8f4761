"""Features of whole structures: what they are, and what must not change them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dubito.config.model import ModelConfig
from dubito.config.selection import SelectionConfig
from dubito.core.random import generator
from dubito.data.statistics import fit_statistics
from dubito.data.structures import Array, Structures
from dubito.model.artifact import load_potential, save_potential
from dubito.model.potential import Potential
from dubito.stages import select_batch
from dubito.stages._features import Kind, batch_features
from dubito.testing.structures import random_orthogonal, rattled, toy_labels, transformed

SMALL = ModelConfig(l_max=1, n_layers=1, n_features=8, radial_hidden=[8], n_latent=6, dtype="float64")
KINDS = pytest.mark.parametrize("kind", ["latent", "gradient"])


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    train = toy_labels(rattled(8, displacement=0.1))
    potential = Potential(SMALL, fit_statistics(train, SMALL.r_max_angstrom), 2)
    potential.initialise(0, [0, 1])
    path = tmp_path_factory.mktemp("model") / "ensemble.safetensors"
    save_potential(path, potential, provenance={})
    return path


def features(ensemble: Path, kind: Kind, pool: Structures, known: Structures) -> tuple[Array, Array]:
    return batch_features(ensemble, kind, pool, known, threads=1)


@KINDS
def test_pool_and_labelled_share_one_scale(ensemble: Path, kind: Kind) -> None:
    pool, known = rattled(40, seed=1, displacement=0.1), rattled(10, seed=2, displacement=0.1)
    mine, theirs = features(ensemble, kind, pool, known)
    assert mine.shape == (40, 6 if kind == "latent" else 8)
    both = np.concatenate([mine, theirs])
    np.testing.assert_allclose(both.mean(axis=0), 0, atol=1e-9)
    assert both.std(axis=0).max() == pytest.approx(1.0)
    # The same structure has the same features, on whichever side it stands.
    swapped = Structures.concatenate([pool[:39], known[:1]]), Structures.concatenate([pool[39:], known[1:]])
    again, _ = features(ensemble, kind, *swapped)
    np.testing.assert_allclose(again[39], theirs[0], atol=1e-9)


@KINDS
def test_motion_and_order_of_atoms_change_nothing(ensemble: Path, kind: Kind) -> None:
    pool = rattled(12, seed=3, displacement=0.1, molecules="ammonia")
    turned = transformed(pool, random_orthogonal(4, proper=True), np.array([1.0, -2.0, 3.0]))
    order = (np.arange(12)[:, None] * 4 + np.array([0, 3, 1, 2])).ravel()
    other = Structures.build(turned.atomic_numbers[order].reshape(12, 4), turned.positions[order].reshape(12, 4, 3))
    mine, theirs = features(ensemble, kind, pool, other)
    np.testing.assert_allclose(mine, theirs, atol=1e-7)


@KINDS
def test_order_of_the_pool_changes_not_a_bit(ensemble: Path, kind: Kind) -> None:
    pool, known = rattled(30, seed=1, displacement=0.1), rattled(4, seed=2)
    order = generator(0, "order").permutation(30)
    np.testing.assert_array_equal(
        features(ensemble, kind, pool, known)[0][order], features(ensemble, kind, pool[order], known)[0]
    )


def test_gradient_is_the_derivative_of_the_energy_by_the_readout(ensemble: Path) -> None:
    import torch

    from dubito.uncertainty.latents import member_graph
    from dubito.uncertainty.rows import Readout

    pool = rattled(6, seed=5, displacement=0.1)
    member = load_potential(ensemble).member(0)
    readout = Readout(member, np.zeros((len(member.species), SMALL.n_features)))
    raw = np.add.reduceat(readout.atom_rows(pool, member.predict(pool).features), pool.ptr[:-1])
    with torch.no_grad():
        energy = member.evaluate(member_graph(member, pool), forces=False).energy[0].numpy()
    np.testing.assert_allclose(raw @ readout.weights, energy, atol=1e-9)
    mine, _ = features(ensemble, "gradient", pool, Structures.empty())
    spread = raw.std(axis=0)
    expected = (raw - raw.mean(axis=0)) / np.maximum(spread, 1e-3 * spread.max())
    np.testing.assert_allclose(mine, expected, atol=1e-6)


def test_fingerprints_need_no_network(tmp_path: Path) -> None:
    said = select_batch._features(
        tmp_path / "missing", SelectionConfig(features="fingerprints"), rattled(2), Structures.empty(), 1
    )
    assert said == (None, None)
