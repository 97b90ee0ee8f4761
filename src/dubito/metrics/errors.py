"""Sizes of errors: root mean square, mean and largest absolute value.

Forces are compared by Cartesian component (a force RMSE divides by ``3N``), energies per atom or per
structure as the name says. An empty comparison is NaN, never zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubito.core.errors import DataError

Array = NDArray[Any]


def difference(predicted: ArrayLike, reference: ArrayLike) -> Array:
    """Return ``predicted - reference`` as float64, any shape.

    Raises
    ------
    DataError
        When the shapes differ: broadcasting would compare what does not belong together.
    """
    a, b = np.asarray(predicted, "f8"), np.asarray(reference, "f8")
    if a.shape != b.shape:
        raise DataError(f"Predictions have shape {a.shape} but their reference has {b.shape}; they must be equal.")
    out: Array = a - b
    return out


def rmse(predicted: ArrayLike, reference: ArrayLike) -> float:
    """Return the root mean square error over all entries, in their unit."""
    error = difference(predicted, reference)
    return float(np.sqrt(np.mean(error**2))) if error.size else float("nan")


def rmse_relative_sd(predicted: ArrayLike, reference: ArrayLike, ptr: ArrayLike) -> float:
    """Return the relative sampling error of an RMSE over groups of rows, which are the independent units.

    The square of an RMSE is a ratio of sums over groups; its variance is that of a ratio estimator (Cochran, Sampling
    Techniques, 1977, section 6.4), and a square root halves the relative error. NaN for fewer than two groups.

    Parameters
    ----------
    predicted, reference : (N, ...) rows
    ptr : (n + 1,) where the rows of each group begin; the last is N
    """
    error, edges = difference(predicted, reference), np.asarray(ptr, int)
    groups = len(edges) - 1
    if groups < 2 or not error.size:
        return float("nan")
    rows = (error**2).reshape(len(error), -1)
    squares = np.add.reduceat(rows.sum(1), edges[:-1])
    counts = np.diff(edges) * rows.shape[1]
    total = squares.sum()
    if total == 0:
        return 0.0
    rest = squares - total / counts.sum() * counts
    return float(np.sqrt(groups / (groups - 1) * np.sum(rest**2)) / total / 2)


def mae(predicted: ArrayLike, reference: ArrayLike) -> float:
    """Return the mean absolute error over all entries, in their unit."""
    error = difference(predicted, reference)
    return float(np.mean(np.abs(error))) if error.size else float("nan")


def max_error(predicted: ArrayLike, reference: ArrayLike) -> float:
    """Return the largest absolute error over all entries, in their unit; NaN if any entry is NaN."""
    error = difference(predicted, reference)
    return float(np.max(np.abs(error))) if error.size else float("nan")


def per_atom(energy: ArrayLike, n_atoms: ArrayLike) -> Array:
    """Return total energies divided by the number of atoms of each structure, (n,) eV per atom."""
    out: Array = np.asarray(energy, "f8") / np.asarray(n_atoms, "f8")
    return out
