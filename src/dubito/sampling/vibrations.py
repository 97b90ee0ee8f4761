"""Normal modes of a structure from the forces of a model, and thermal displacements along them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dubito.core.units import ANGSTROM_SQRT_U_PER_EV_FS, BOLTZMANN_EV_PER_K
from dubito.data.structures import Array

# Angular frequency in 1/fs to wavenumber in 1/cm: 1 / (2 pi c).
_PER_CM_FS = 1 / (2 * math.pi * 2.99792458e-5)


@dataclass(frozen=True)
class NormalModes:
    """The modes of one structure of ``a`` atoms, in mass-weighted coordinates sqrt(m) x.

    Attributes
    ----------
    masses : (a,) atomic mass units
    curvatures : (m,) eV/(Å² u), eigenvalues of the mass-weighted Hessian, ascending; negative where imaginary
    vectors : (3a, m) orthonormal eigenvectors, free of translation and (without a cell) rotation
    """

    masses: Array
    curvatures: Array
    vectors: Array

    @property
    def wavenumbers(self) -> Array:
        """Wavenumbers, (m,) 1/cm; imaginary ones as negative numbers."""
        omega = np.sqrt(np.abs(self.curvatures)) / ANGSTROM_SQRT_U_PER_EV_FS
        out: Array = np.sign(self.curvatures) * omega * _PER_CM_FS
        return out

    def displacement(self, temperature: float, min_wavenumber: float, rng: np.random.Generator) -> Array:
        """Draw a classical thermal displacement, (a, 3) Å.

        The amplitude of mode i is normal with variance kT / curvature, so that it holds kT/2 of potential energy in the
        mean (equipartition; as in https://doi.org/10.1039/C6SC05720A, whose random shares of an energy it
        replaces). Modes softer than ``min_wavenumber`` (1/cm), imaginary ones among them, would leave the harmonic
        region at any temperature: they get the amplitude of that wavenumber
        (https://doi.org/10.1021/jp205508z does the same to partition functions).
        """
        floor = (min_wavenumber / _PER_CM_FS * ANGSTROM_SQRT_U_PER_EV_FS) ** 2
        width = np.sqrt(BOLTZMANN_EV_PER_K * temperature / np.maximum(self.curvatures, floor))
        weighted = self.vectors @ (width * rng.normal(size=len(width)))
        out: Array = weighted.reshape(-1, 3) / np.sqrt(self.masses)[:, None]
        return out


def displaced(positions: Array, step: float) -> Array:
    """Return the geometries of the central differences, (6a, a, 3) Å: each coordinate up, then each down."""
    a = len(positions)
    units = step * np.eye(3 * a).reshape(3 * a, a, 3)
    return np.concatenate([positions + units, positions - units])


def normal_modes(positions: Array, masses: Array, forces: Array, step: float, *, is_periodic: bool) -> NormalModes:
    """Return the modes from the forces (6a, a, 3) eV/Å at the geometries of :func:`displaced`."""
    n = 3 * len(positions)
    up, down = forces.reshape(2, n, n)
    hessian = (down - up) / (2 * step)
    root = np.repeat(np.sqrt(masses), 3)
    weighted = 0.5 * (hessian + hessian.T) / np.outer(root, root)
    free = _internal(positions, masses, is_periodic=is_periodic)
    curvatures, vectors = np.linalg.eigh(free.T @ weighted @ free)
    return NormalModes(masses, curvatures, free @ vectors)


def _internal(positions: Array, masses: Array, *, is_periodic: bool) -> Array:
    """Return an orthonormal basis (3a, m) of the motions that neither shift nor (without a cell) turn the whole.

    A molecule in a line has five of the others, one atom three: what does not move does not count.
    """
    root = np.sqrt(masses)[:, None]
    centred = positions - (masses[:, None] * positions).sum(axis=0) / masses.sum()
    rigid = [np.broadcast_to(root * axis, positions.shape).ravel() for axis in np.eye(3)]
    if not is_periodic:
        rigid += [(root * np.cross(axis, centred)).ravel() for axis in np.eye(3)]
    u, size, _ = np.linalg.svd(np.stack(rigid, axis=1), full_matrices=True)
    # 0.05 Å off a line is still a line: turning about it would need huge angles for a thermal amplitude.
    rank = int((size > 0.05 * math.sqrt(float(masses.min()))).sum())
    return u[:, rank:]
