"""Rows of the linear readout: what a change of its weights does to energies and forces.

The energy is linear in the last features, ``E = sum_i s_i f_i . w`` with the species' scale ``s_i`` in eV (the latents
between are linear in them too, and narrower). Its derivative by ``w`` is the energy row ``sum_i s_i f_i``, and that of
the forces the force row ``-d(sum_i s_i f_i)/dr``. Features are centred by the mean of their element: a constant is the
business of the elements' energies, and would make the rows all but parallel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from dubito.core.errors import DataError
from dubito.data.graphs import build_graph
from dubito.data.prediction import Array
from dubito.data.structures import Structures
from dubito.model.potential import Potential
from dubito.model.predict import chunks
from dubito.model.readouts import feature_forces

ATOMS_PER_CHUNK = 2048


@dataclass(frozen=True)
class Rows:
    """Rows and residuals of ``n`` structures with ``N`` atoms, float64.

    Attributes
    ----------
    atoms : (N, d) eV, centred features times the species' scale; energy : (n, d) eV, their sums
    forces : (N, 3, r) eV/Å, the force rows along r directions
    energy_residual : (n,) eV; force_residual : (N, 3) eV/Å; label minus prediction, NaN without labels
    """

    atoms: Array
    energy: Array
    forces: Array
    energy_residual: Array
    force_residual: Array


class Readout:
    """The linear readout of a one-member potential.

    Parameters
    ----------
    member : the potential
    centers : (n_species, d) mean features of each element
    """

    def __init__(self, member: Potential, centers: Array) -> None:
        self.member, self.centers = member, centers

    @classmethod
    def of(cls, member: Potential, train: Structures) -> Readout:
        """Centre the features on those of the training atoms.

        Raises
        ------
        DataError
            When there is no structure.
        """
        if not len(train):
            raise DataError("There are no training structures to learn the readout's rows from; label some first.")
        d, total = member.config.n_features, np.zeros((len(member.species), member.config.n_features))
        count = np.zeros(len(member.species))
        for rows in chunks(train.n_atoms, ATOMS_PER_CHUNK):
            part = train[rows]
            index, features = _species_index(member, part), member.predict(part).features
            np.add.at(total, index, np.zeros((len(index), d)) if features is None else features)
            np.add.at(count, index, 1.0)
        return cls(member, total / np.maximum(count, 1)[:, None])

    @property
    def weights(self) -> Array:
        """The weights (d,)."""
        product = self.member.to_latent()[0] @ self.member.to_energy()[0, :, 0]
        out: Array = product.detach().cpu().double().numpy()
        return out

    @property
    def width(self) -> int:
        """The number of weights d."""
        return self.member.config.n_features

    def atom_rows(self, structures: Structures, features: Array) -> Array:
        """Return centred features (N, d) times the species' scale, (N, d) eV."""
        index = _species_index(self.member, structures)
        scale = self.member.scale.detach().cpu().double().numpy()
        out: Array = (features - self.centers[index]) * scale[index][:, None]
        return out

    def force_rows(self, structures: Structures, directions: Array) -> Array:
        """Return the forces (N, 3, r) in eV/Å that weights along ``directions`` (d, r) would add."""
        member, parts = self.member, [np.zeros((0, 3, directions.shape[1]))]
        slopes = torch.as_tensor(directions.T.copy(), dtype=member.dtype, device=member.scale.device)
        for rows in chunks(structures.n_atoms, ATOMS_PER_CHUNK):
            graph = build_graph(
                structures[rows], member.species, member.config.r_max_angstrom, member.dtype, member.scale.device
            )
            scaled = slopes[:, None, :] * member.scale[graph.species][None, :, None]
            with torch.no_grad():
                forces = feature_forces(member, graph, scaled)
            parts.append(forces.permute(1, 2, 0).cpu().double().numpy())
        return np.concatenate(parts)

    def pieces(self, structures: Structures, *, forces: bool = True) -> Iterator[Rows]:
        """Yield the rows of labelled structures, a chunk at a time; ``forces``: with force rows (else width 0)."""
        d = self.width
        identity = np.eye(d) if forces else np.zeros((d, 0))
        for rows in chunks(structures.n_atoms, ATOMS_PER_CHUNK):
            part = structures[rows]
            said = self.member.predict(part)
            atoms = self.atom_rows(part, np.zeros((0, d)) if said.features is None else said.features)
            yield Rows(
                atoms,
                np.add.reduceat(atoms, part.ptr[:-1]),
                self.force_rows(part, identity) if forces else np.zeros((len(atoms), 3, 0)),
                part.energy - said.energy,
                part.forces - said.forces,
            )


def _species_index(member: Potential, structures: Structures) -> Array:
    lookup = np.zeros(256, dtype=int)
    lookup[list(member.species)] = np.arange(len(member.species))
    out: Array = lookup[structures.atomic_numbers]
    return out
