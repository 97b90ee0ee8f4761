"""Rotations about single bonds: conformers that dynamics at a bearable temperature would wait long for."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from dubito.config.sanity import SanityConfig
from dubito.config.static_sampling import DihedralScanConfig
from dubito.core.errors import DataError
from dubito.core.random import generator
from dubito.data.sanity import SanityCheck
from dubito.data.structures import Array, Structures
from dubito.sampling.base import Sampled
from dubito.sampling.bonds import Turn, rotatable_bonds, turned
from dubito.sampling.made import Made
from dubito.sampling.starts import draw, sane_labelled
from dubito.uncertainty.base import Predictor


class DihedralScanSampler:
    """See :class:`dubito.sampling.base.Sampler`."""

    name: ClassVar[str] = "dihedral_scan"

    def __init__(self, config: DihedralScanConfig, sanity: SanityConfig) -> None:
        self.config, self.sanity = config, sanity

    def check_starts(self, structures: Structures) -> None:
        """Raise DataError when none of the structures that a campaign starts from has a bond to turn about."""
        if len(structures) and not any(_bonds_of(one) for one in structures):
            raise _nothing_to_turn(len(structures))

    def sample(self, predictor: Predictor, labelled: Structures, *, seed: int, iteration: int, job: int = 0) -> Sampled:
        """Scan full turns, each about one bond or several of a labelled structure, until enough structures are made.

        A scan of several bonds takes each of their angles once (a Latin hypercube,
        https://doi.org/10.1080/00401706.1979.10489755). Its first angle is a random part of a step, so that scans of
        one structure don't repeat each other. The points of a scan share a trajectory.

        Raises
        ------
        DataError
            When no labelled structure is sane enough to start from, or none has a bond to turn about.
        """
        check = SanityCheck(self.sanity, labelled)
        known = sane_labelled(labelled, check)
        rng = generator(seed, self.name, iteration, job)
        points = max(1, round(360 / self.config.step_degrees))
        n_scans = -(-self.config.n_structures // points)
        order, bonds = draw(known, len(known), rng), dict[int, list[Turn]]()
        for row, one in enumerate(order):
            # Molecules without such bonds (water among butane) only cost a look.
            if len(bonds) < n_scans and (found := _bonds_of(one)):
                bonds[row] = found
        if not bonds:
            raise _nothing_to_turn(len(known))
        rows, made = list(bonds), Made(order)
        for scan in range(n_scans):
            row = rows[scan % len(rows)]
            angles = self._angles(bonds[row], points, rng)
            start = order.positions[order.ptr[row] : order.ptr[row + 1]]
            for point in range(points):
                if len(made.parent) == self.config.n_structures:
                    break
                positions = start
                for turn, of_bond in angles:
                    positions = turned(positions, turn, float(of_bond[point]))
                made.add(row, positions, self.name, f"iter{iteration:03d}_job{job}_scan{scan}")
        return made.judged(predictor, check, iteration)

    def _angles(self, bonds: list[Turn], points: int, rng: np.random.Generator) -> list[tuple[Turn, Array]]:
        """Return the bonds that a scan turns, each with its angles in radians, (points,)."""
        count = int(rng.integers(1, min(self.config.max_bonds, len(bonds)) + 1))
        chosen = [bonds[int(k)] for k in rng.choice(len(bonds), count, replace=False)]
        step = 2 * np.pi / points
        return [(turn, step * (rng.permutation(points) + rng.uniform(0.05, 0.95))) for turn in chosen]


def _nothing_to_turn(n: int) -> DataError:
    return DataError(
        f"None of {n} structures has a single bond outside rings with more than one atom on both sides, so that the "
        "sampler 'dihedral_scan' has nothing to turn (periodic structures are left alone). Take it out of "
        "sampling.sampler or sampling.more_samplers."
    )


def _bonds_of(one: Structures) -> list[Turn]:
    # The images of a periodic structure may be bonded to it: what would turn is then not a side.
    return [] if one.pbc.any() else rotatable_bonds(one.atomic_numbers, one.positions)
