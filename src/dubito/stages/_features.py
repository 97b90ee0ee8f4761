"""Features of whole structures, which diversity is measured with, by the network of the iteration before."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from dubito.data.structures import Array, Structures
from dubito.model.artifact import load_potential
from dubito.model.potential import Potential
from dubito.model.predict import chunks
from dubito.uncertainty.latents import ATOMS_PER_CHUNK, member_graph

Kind = Literal["latent", "gradient"]
# Dimensions that vary less than this, relative to the one that varies most, are not blown up to unit variance.
_FLOOR = 1e-3


def batch_features(
    ensemble: Path, kind: Kind, pool: Structures, labelled: Structures, *, threads: int
) -> tuple[Array, Array]:
    """Return features of the pool (n, d) and of labelled structures (m, d), each dimension of unit variance.

    - ``latent``: the mean over atoms of the invariant latents of the first member.
    - ``gradient``: the derivative of the energy by the weights of its linear readout, ``sum_i s_i f_i`` with the
      species' scales ``s_i`` and the last features ``f_i``; what a label teaches a linear model is a matter of these
      alone (Holzmüller et al. 2023, https://arxiv.org/abs/2203.09410).

    The network is evaluated without forces, a piece at a time; only the features are kept. Candidates come in the order
    of their ids, so that the pieces, and with them the rounding, don't depend on the order of the pool. Broken
    geometries may give features that are not finite.
    """
    torch.set_num_threads(threads)
    return features_of(load_potential(ensemble), kind, pool, labelled)


def features_of(potential: Potential, kind: Kind, pool: Structures, labelled: Structures) -> tuple[Array, Array]:
    """Return the same by a potential at hand."""
    member = potential if potential.n_members == 1 else potential.member(0)
    order = np.argsort(np.array(pool.ids, dtype="S64"), kind="stable")
    found = np.zeros((len(pool), _width(member, kind)))
    found[order] = _features(member, pool, kind, order)
    known = _features(member, labelled, kind, np.arange(len(labelled)))
    both = np.concatenate([found[order], known])
    both = both[np.isfinite(both).all(axis=1)]
    if not len(both):
        return found, known
    spread = both.std(axis=0)
    largest = float(spread.max(initial=0.0))
    scale = np.maximum(spread, _FLOOR * largest if largest > 0 else 1.0)
    return (found - both.mean(axis=0)) / scale, (known - both.mean(axis=0)) / scale


def _width(member: Potential, kind: Kind) -> int:
    return member.config.n_latent if kind == "latent" else member.config.n_features


def _features(member: Potential, structures: Structures, kind: Kind, order: Array) -> Array:
    """Return the features (n, d) of structures, taken in this order."""
    parts = [np.zeros((0, _width(member, kind)))]
    for rows in chunks(structures.n_atoms[order], ATOMS_PER_CHUNK):
        piece = structures[order[rows]]
        graph = member_graph(member, piece)
        with torch.no_grad():
            said = member.evaluate(graph, forces=False)
            is_latent = kind == "latent"
            atoms = said.latent[0] if is_latent else said.features[0] * member.scale[graph.species][:, None]
        sums = np.add.reduceat(atoms.cpu().double().numpy(), piece.ptr[:-1])
        parts.append(sums / piece.n_atoms[:, None] if is_latent else sums)
    return np.concatenate(parts)
