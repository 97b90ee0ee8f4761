"""Structures as tensors: atoms, pairs and their vectors, for a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dubito.core.errors import ModelError
from dubito.data.neighbors import find_neighbors
from dubito.data.structures import Structures


@dataclass(frozen=True)
class Graph:
    """``n`` structures with ``N`` atoms and ``E`` directed pairs.

    Attributes
    ----------
    species : (N,) int64, index into the network's species
    structure : (N,) int64, structure of each atom
    center, neighbor : (E,) int64, sorted by center
    vectors : (E, 3), Å, from center to neighbour, in the network's precision
    volume : (n,) Å³, 0 without a cell
    atom_ptr, pair_ptr : (n + 1,) int64
    """

    species: Tensor
    structure: Tensor
    center: Tensor
    neighbor: Tensor
    vectors: Tensor
    volume: Tensor
    atom_ptr: Tensor
    pair_ptr: Tensor

    @property
    def n_structures(self) -> int:
        """Number of structures."""
        return len(self.atom_ptr) - 1

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.species)


def build_graph(
    structures: Structures,
    species: Sequence[int],
    r_max: float,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> Graph:
    """Build the graph of structures.

    Raises
    ------
    ModelError
        When an element is not among ``species``.
    """
    lookup = np.full(256, -1)
    lookup[list(species)] = np.arange(len(species))
    index = lookup[structures.atomic_numbers]
    if np.any(index < 0):
        unknown = sorted({int(z) for z in structures.atomic_numbers[index < 0]})
        raise ModelError(
            f"The structures hold elements with atomic numbers {unknown}; the model knows {list(species)} only. "
            "Train a model on structures with these elements first."
        )
    pairs = find_neighbors(structures, r_max)
    volume = np.where(structures.pbc.all(axis=1), np.abs(np.linalg.det(structures.cell)), 0.0)

    def integers(values: object) -> Tensor:
        return torch.as_tensor(np.asarray(values, "i8"), device=device)

    return Graph(
        species=integers(index),
        structure=integers(structures.structure_of_atom),
        center=integers(pairs.center),
        neighbor=integers(pairs.neighbor),
        vectors=torch.as_tensor(pairs.vectors, dtype=dtype, device=device),
        volume=torch.as_tensor(volume, dtype=dtype, device=device),
        atom_ptr=integers(structures.ptr),
        pair_ptr=integers(pairs.ptr),
    )


def ranges(start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
    """Return the concatenation of ``start[i]:stop[i]`` and the length of each."""
    length = stop - start
    ends = torch.cumsum(length, 0)
    offset = torch.repeat_interleave(start - (ends - length), length)
    return offset + torch.arange(int(ends[-1]) if len(ends) else 0, device=start.device), length


def select(graph: Graph, index: Tensor) -> tuple[Graph, Tensor, Tensor]:
    """Return the graph of some structures, and the indices of their atoms and pairs in ``graph``."""
    atoms, n_atoms = ranges(graph.atom_ptr[index], graph.atom_ptr[index + 1])
    pairs, n_pairs = ranges(graph.pair_ptr[index], graph.pair_ptr[index + 1])
    zero = n_atoms.new_zeros(1)
    atom_ptr = torch.cat([zero, torch.cumsum(n_atoms, 0)])
    shift = torch.repeat_interleave(atom_ptr[:-1] - graph.atom_ptr[index], n_pairs)
    chosen = Graph(
        species=graph.species[atoms],
        structure=torch.repeat_interleave(torch.arange(len(index), device=index.device), n_atoms),
        center=graph.center[pairs] + shift,
        neighbor=graph.neighbor[pairs] + shift,
        vectors=graph.vectors[pairs],
        volume=graph.volume[index],
        atom_ptr=atom_ptr,
        pair_ptr=torch.cat([zero, torch.cumsum(n_pairs, 0)]),
    )
    return chosen, atoms, pairs
