"""The BAOAB integrator of Langevin dynamics for any number of atoms at once.

Leimkuhler and Matthews 2013, https://doi.org/10.1093/amrx/abs010: half a kick (B), half a drift (A),
the exact Ornstein-Uhlenbeck step (O), half a drift, half a kick. Its positions sample a harmonic well
exactly at any stable time step; without friction it is velocity Verlet.
"""

from __future__ import annotations

import numpy as np

from dubito.core.units import ANGSTROM_SQRT_U_PER_EV_FS, BOLTZMANN_EV_PER_K
from dubito.data.structures import Array


class Baoab:
    """Steps for ``N`` atoms; positions Å, velocities Å/fs, forces eV/Å.

    Parameters
    ----------
    masses : (N,) atomic mass units
    temperature : (N,) K, of the bath each atom is in
    timestep_fs, friction_per_fs : time step and friction of all atoms
    """

    def __init__(self, masses: Array, temperature: Array, *, timestep_fs: float, friction_per_fs: float) -> None:
        self.masses, self.temperature, self.timestep = masses, temperature, timestep_fs
        self._kick = (0.5 * timestep_fs / ANGSTROM_SQRT_U_PER_EV_FS**2 / masses)[:, None]
        self._thermal = thermal_velocity(masses, temperature)[:, None]
        self._keep = np.exp(-friction_per_fs * timestep_fs)
        # -expm1 keeps the digits of a friction close to zero.
        self._shake = np.sqrt(-np.expm1(-2 * friction_per_fs * timestep_fs)) * self._thermal

    def advance(self, positions: Array, velocities: Array, forces: Array, noise: Array) -> tuple[Array, Array]:
        """Do B, A, O, A; return new positions and velocities, still without the last kick.

        ``noise`` is (N, 3), independent standard normal numbers.
        """
        velocities = velocities + self._kick * forces
        positions = positions + 0.5 * self.timestep * velocities
        velocities = self._keep * velocities + self._shake * noise
        return positions + 0.5 * self.timestep * velocities, velocities

    def finish(self, velocities: Array, forces: Array) -> Array:
        """Do the last B with the forces at the new positions."""
        out: Array = velocities + self._kick * forces
        return out

    def take(self, atoms: Array) -> Baoab:
        """Return the integrator of some of the atoms."""
        out = object.__new__(Baoab)
        out.masses, out.temperature, out.timestep = self.masses[atoms], self.temperature[atoms], self.timestep
        out._kick, out._thermal = self._kick[atoms], self._thermal[atoms]
        out._keep, out._shake = self._keep, self._shake[atoms]
        return out


def thermal_velocity(masses: Array, temperature: Array) -> Array:
    """Return the standard deviation of a velocity component, sqrt(kT/m), in Å/fs."""
    out: Array = np.sqrt(BOLTZMANN_EV_PER_K * temperature / masses) / ANGSTROM_SQRT_U_PER_EV_FS
    return out


def maxwell_velocities(masses: Array, temperature: float, rng: np.random.Generator) -> Array:
    """Draw velocities (N, 3), Å/fs, of one structure, with no net momentum."""
    drawn = rng.normal(size=(len(masses), 3)) * thermal_velocity(masses, np.full(len(masses), temperature))[:, None]
    out: Array = drawn - (masses[:, None] * drawn).sum(axis=0) / masses.sum()
    return out


def kinetic_energy(masses: Array, velocities: Array) -> float:
    """Return the kinetic energy in eV."""
    return float(0.5 * ANGSTROM_SQRT_U_PER_EV_FS**2 * np.sum(masses[:, None] * velocities**2))
