"""Walkers that are propagated as one batch and leave it one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from dubito.core.random import generator
from dubito.data.structures import Array, Structures
from dubito.sampling.baoab import Baoab, maxwell_velocities

# Random numbers are drawn in blocks of so many steps.
_BLOCK = 64


class Noise:
    """Normal random numbers, one stream per walker: who else is in the batch does not change them."""

    def __init__(self, streams: Sequence[np.random.Generator], sizes: Sequence[int]) -> None:
        self._streams, self._sizes = list(streams), list(sizes)
        self._blocks: list[Array] = [np.zeros((0, n, 3)) for n in sizes]
        self._used = 0

    def next(self) -> Array:
        """Return the numbers of one step, (N, 3)."""
        if self._used == len(self._blocks[0]):
            pairs = zip(self._streams, self._sizes, strict=True)
            self._blocks = [stream.normal(size=(_BLOCK, n, 3)) for stream, n in pairs]
            self._used = 0
        self._used += 1
        return np.concatenate([block[self._used - 1] for block in self._blocks])

    def take(self, rows: Array) -> Noise:
        """Return the streams of some walkers, where they stand."""
        out = Noise([self._streams[i] for i in rows], [self._sizes[i] for i in rows])
        out._blocks, out._used = [self._blocks[i] for i in rows], self._used
        return out


@dataclass
class Walkers:
    """The walkers still in the batch: ``n`` structures with ``N`` atoms.

    Attributes
    ----------
    structures : where they are; without labels
    previous : (N, 3) Å, where they were a step ago
    velocities : (N, 3) Å/fs
    forces : (N, 3) eV/Å
    number : (n,) number of each walker within its job
    """

    structures: Structures
    previous: Array
    velocities: Array
    forces: Array
    number: Array
    integrator: Baoab
    noise: Noise

    @classmethod
    def start(
        cls,
        structures: Structures,
        temperatures: Sequence[float],
        *,
        timestep_fs: float,
        friction_per_fs: float,
        scope: tuple[int, str | int, str | int, str | int],
    ) -> Self:
        """Put walkers at ``structures`` with Maxwell velocities; ``scope`` is the seed and what it is for."""
        from ase.data import atomic_masses

        masses = atomic_masses[structures.atomic_numbers]
        streams = [generator(*scope, "walker", w) for w in range(len(structures))]
        velocities = [
            maxwell_velocities(masses[a:b], temperature, stream)
            for a, b, temperature, stream in zip(
                structures.ptr[:-1], structures.ptr[1:], temperatures, streams, strict=True
            )
        ]
        bath = np.repeat(np.asarray(temperatures, "f8"), structures.n_atoms)
        return cls(
            structures=replace(structures, columns={}),
            previous=structures.positions,
            velocities=np.concatenate(velocities),
            forces=np.zeros_like(structures.positions),
            number=np.arange(len(structures)),
            integrator=Baoab(masses, bath, timestep_fs=timestep_fs, friction_per_fs=friction_per_fs),
            noise=Noise(streams, structures.n_atoms.tolist()),
        )

    def __len__(self) -> int:
        return len(self.number)

    def drift(self) -> Array:
        """Do all of a step but its last kick; return the new positions, (N, 3) Å, not yet taken."""
        positions, self.velocities = self.integrator.advance(
            self.structures.positions, self.velocities, self.forces, self.noise.next()
        )
        return positions

    def move(self, positions: Array) -> None:
        """Take new positions."""
        self.previous = self.structures.positions
        self.structures = replace(self.structures, positions=positions)

    def kick(self, forces: Array) -> None:
        """Do the last kick of a step with the forces at the new positions."""
        self.velocities = self.integrator.finish(self.velocities, forces)
        self.forces = forces

    def keep(self, which: Array) -> None:
        """Let all walkers but those of the mask ``which`` (n,) leave the batch."""
        atoms = which[self.structures.structure_of_atom]
        self.structures = self.structures[which]
        self.previous, self.velocities, self.forces = (
            self.previous[atoms],
            self.velocities[atoms],
            self.forces[atoms],
        )
        self.number, self.integrator = self.number[which], self.integrator.take(atoms)
        self.noise = self.noise.take(np.flatnonzero(which))
