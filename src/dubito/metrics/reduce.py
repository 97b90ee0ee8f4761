"""From components to atoms to structures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def atom_norm(vectors: Array) -> Array:
    """Return the Euclidean norm of each atom's vector, (N, 3) -> (N,).

    Applied to component standard deviations it is the rms length of the error vector.
    """
    out: Array = np.sqrt(np.sum(np.asarray(vectors, "f8") ** 2, axis=-1))
    return out


def structure_max(values: Array, ptr: Array) -> Array:
    """Return the largest value of each structure, (N,) -> (n,)."""
    if len(ptr) == 1:
        return np.zeros(0)
    out: Array = np.maximum.reduceat(values, ptr[:-1])
    return out


def worst_atom(forces_uncertainty: Array, ptr: Array) -> Array:
    """Return the largest rms force-error length in each structure, (N, 3) -> (n,) eV/Å.

    The quantity that drives selection and that is compared with the force tolerance.
    """
    return structure_max(atom_norm(forces_uncertainty), ptr)
