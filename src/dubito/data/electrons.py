"""Which charges and multiplicities exist: electrons are whole, and each unpaired one adds a half to the spin."""

from __future__ import annotations

import numpy as np

from dubito.data.structures import Array, Structures


def n_electrons(structures: Structures) -> Array:
    """Return the number of electrons of each structure, (n,) int64."""
    protons = np.concatenate([[0], np.cumsum(structures.atomic_numbers, dtype="i8")])
    out: Array = np.diff(protons[structures.ptr]) - structures.charge
    return out


def state_exists(structures: Structures) -> Array:
    """Return whether each structure has electrons enough, and of the right parity, for its multiplicity, (n,) bool.

    A multiplicity 2S+1 takes 2S unpaired electrons; the others come in pairs. Nothing is said of periodic structures,
    whose electrons are counted per cell and may be shared between cells.
    """
    unpaired = structures.multiplicity.astype("i8") - 1
    paired = n_electrons(structures) - unpaired
    out: Array = structures.pbc.any(axis=1) | ((unpaired >= 0) & (paired >= 0) & (paired % 2 == 0))
    return out
