"""What makes a structure unfit for a label, whoever makes the label."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.core.errors import LabelError
from dubito.data.structures import Structures

# Below this share of the sum of covalent radii no method gives anything worth having (H-H: 0.22 Å).
OVERLAP_FACTOR = 0.35


def symbols(numbers: NDArray[Any]) -> list[str]:
    """Return chemical symbols of atomic numbers."""
    from ase.data import chemical_symbols

    return [chemical_symbols[int(z)] for z in numbers]


def describe(structures: Structures, index: int) -> str:
    """Name a structure for a message, e.g. ``structure 3 (N H H H, from a.xyz)``."""
    names = symbols(structures[index].atomic_numbers)
    text = " ".join(names[:8]) + (" ..." if len(names) > 8 else "")
    source = structures.text("origin/source")[index]
    return f"structure {index} ({text}{', from ' + source if source else ''})"


def refuse_overlap(structures: Structures) -> None:
    """Raise LabelError when two atoms of a structure, or of its nearest images, sit on top of each other."""
    from ase.data import covalent_radii

    for i, one in enumerate(structures):
        radii = covalent_radii[one.atomic_numbers]
        difference = one.positions[:, None] - one.positions[None]
        if one.pbc.any():
            # Rounding finds the nearest image whenever that is much closer than half a cell, as overlaps are.
            fractional = difference @ np.linalg.pinv(one.cell[0])
            difference = difference - (np.round(fractional) * one.pbc[0]) @ one.cell[0]
        distance = np.sqrt((difference**2).sum(-1)) + np.diag(np.full(len(radii), np.inf))
        ratio = distance / (radii[:, None] + radii[None])
        if ratio.size and ratio.min() < OVERLAP_FACTOR:
            a, b = np.unravel_index(int(ratio.argmin()), ratio.shape)
            raise LabelError(
                f"In {describe(structures, i)} the atoms {min(a, b)} and {max(a, b)} overlap: they are "
                f"{distance[a, b]:.3f} Å apart. Mend or remove this structure; "
                "if it came from a file, check that its positions are in Å."
            )


def refuse_periodic(structures: Structures, labeller: str) -> None:
    """Raise LabelError when a structure is periodic and the labeller takes molecules only."""
    for i in np.flatnonzero(structures.pbc.any(axis=1))[:1]:
        raise LabelError(
            f"{describe(structures, int(i))} is periodic, but the labeller '{labeller}' takes molecules only. "
            "Remove the cell, or choose another kind in labelling.labeller."
        )


def refuse_impossible_multiplicity(structures: Structures) -> None:
    """Raise LabelError when charge and multiplicity do not fit the number of electrons.

    2S+1 needs 2S unpaired electrons, so 2S and the number of electrons are both odd or both even.
    """
    for i, one in enumerate(structures):
        charge, multiplicity = int(one.charge[0]), int(one.multiplicity[0])
        electrons = int(one.atomic_numbers.astype(int).sum()) - charge
        unpaired = multiplicity - 1
        if electrons < 1 or unpaired < 0 or unpaired > electrons or (electrons - unpaired) % 2:
            possible = [m for m in range(1, 7) if m - 1 <= electrons and (electrons - m + 1) % 2 == 0]
            remedy = f"multiplicity {' or '.join(str(m) for m in possible[:2])}" if possible else "another charge"
            raise LabelError(
                f"{describe(structures, i)} has {electrons} electrons at charge {charge:+d}, which can't have "
                f"multiplicity {multiplicity}. Set {remedy} in data.initial (multiplicity, charge) or in the file."
            )
