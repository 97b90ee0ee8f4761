"""Latents of atoms, streamed, and those of training atoms drawn: what methods on latents start from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dubito.core.errors import DataError, ModelError
from dubito.core.random import generator
from dubito.data.graphs import Graph, build_graph
from dubito.data.prediction import Array
from dubito.data.structures import Structures
from dubito.model.potential import Potential
from dubito.model.predict import chunks

ATOMS_PER_CHUNK = 4096


@dataclass(frozen=True)
class TrainingAtoms:
    """Atoms of a training set, N in all.

    Attributes
    ----------
    latent : (N, d) float64
    atomic_numbers : (N,)
    structure : (N,) int64, the structure each belongs to
    """

    latent: Array
    atomic_numbers: Array
    structure: Array

    def __len__(self) -> int:
        return len(self.latent)

    def of_element(self, number: int) -> TrainingAtoms:
        """Return the atoms of one element."""
        rows = self.atomic_numbers == number
        return TrainingAtoms(self.latent[rows], self.atomic_numbers[rows], self.structure[rows])


def member_graph(member: Potential, structures: Structures) -> Graph:
    """Return the graph of structures on the device of a member, as it wants it."""
    device = next(member.parameters()).device
    return build_graph(structures, member.species, member.config.r_max_angstrom, member.dtype, device)


def latents_of(member: Potential, structures: Structures) -> Array:
    """Return the latents (N, d) of all atoms as float64; the network is evaluated without forces, in chunks."""
    parts = [_latents(member, structures[rows]) for rows in chunks(structures.n_atoms, ATOMS_PER_CHUNK)]
    return np.concatenate([np.zeros((0, member.config.n_latent)), *parts])


def training_atoms(member: Potential, train: Structures, *, max_atoms: int, seed: int) -> TrainingAtoms:
    """Return the latents of training atoms; beyond ``max_atoms`` they are drawn at random.

    The network is evaluated without forces, in chunks, and only the rows drawn are kept.

    Parameters
    ----------
    member : potential of one member
    train : the structures it was trained on

    Raises
    ------
    DataError
        When there is no atom.
    ModelError
        When a latent is not a finite number.
    """
    if not len(train.atomic_numbers):
        raise DataError("There are no training structures whose latents could be compared with; label some first.")
    keep = draw_atoms(train.atomic_numbers, max_atoms, generator(seed, "training atoms"))
    kept = np.zeros(len(train.atomic_numbers), bool)
    kept[keep] = True
    parts = []
    for rows in chunks(train.n_atoms, ATOMS_PER_CHUNK):
        span = slice(train.ptr[rows[0]], train.ptr[rows[-1] + 1])
        if kept[span].any():
            parts.append(_latents(member, train[rows])[kept[span]])
    latent = np.concatenate(parts)
    broken = ~np.isfinite(latent).all(axis=1)
    if broken.any():
        raise ModelError(
            f"{int(broken.sum())} of {len(latent)} training atoms have latents that are not finite numbers; densities "
            "and distances need finite ones. Look for atoms on top of each other, or for a broken model."
        )
    return TrainingAtoms(latent, train.atomic_numbers[keep], train.structure_of_atom[keep])


def draw_atoms(atomic_numbers: Array, max_atoms: int, rng: np.random.Generator) -> Array:
    """Return sorted indices of at most about ``max_atoms`` atoms.

    Each element keeps its share, but a rare one at least ``max_atoms / (2 n_elements)`` atoms where it has them:
    what it would be compared with should not be thinned out along with the hydrogens.
    """
    if len(atomic_numbers) <= max_atoms:
        return np.arange(len(atomic_numbers))
    numbers, counts = np.unique(atomic_numbers, return_counts=True)
    rare = np.minimum(counts, max_atoms // (2 * len(numbers)))
    # What the rare ones are given comes from the common ones, in proportion to what they have beyond it.
    beyond = counts - rare
    quota = rare + (beyond * ((max_atoms - rare.sum()) / max(beyond.sum(), 1))).astype(int)
    drawn = [
        rng.choice(np.flatnonzero(atomic_numbers == number), n, replace=False)
        for number, n in zip(numbers, quota, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def _latents(member: Potential, structures: Structures) -> Array:
    with torch.no_grad():
        out: Array = member.evaluate(member_graph(member, structures), forces=False).latent[0].cpu().double().numpy()
    return out
