"""Units. Inside dubito everything is eV, Å, eV/Å, eV/Å³, fs, K and atomic mass units.

Constants are CODATA 2018 (https://doi.org/10.1103/RevModPhys.93.025010).
"""

from __future__ import annotations

from typing import Final

from dubito.core.errors import DataError, unknown_name

HARTREE_EV: Final = 27.211386245988
BOHR_ANGSTROM: Final = 0.529177210903
KCAL_PER_MOL_EV: Final = 0.04336410390059322
KJ_PER_MOL_EV: Final = 0.010364269574711572
BOLTZMANN_EV_PER_K: Final = 8.617333262e-5
# With masses in u, energies in eV and lengths in Å the natural time unit is 10.18 fs.
ANGSTROM_SQRT_U_PER_EV_FS: Final = 10.180505710774743

EV: Final = "eV"
ANGSTROM: Final = "Angstrom"
EV_PER_ANGSTROM: Final = "eV/Angstrom"
EV_PER_ANGSTROM3: Final = "eV/Angstrom^3"
SECOND: Final = "s"

_ENERGY = {
    "ev": 1.0,
    "mev": 1e-3,
    "hartree": HARTREE_EV,
    "ha": HARTREE_EV,
    "kcal/mol": KCAL_PER_MOL_EV,
    "kj/mol": KJ_PER_MOL_EV,
    "ry": HARTREE_EV / 2,
}
_LENGTH = {"angstrom": 1.0, "ang": 1.0, "a": 1.0, "å": 1.0, "bohr": BOHR_ANGSTROM, "nm": 10.0}


def _normal(unit: str) -> str:
    return unit.strip().lower().replace(" ", "").replace("kcalmol", "kcal/mol")


def energy_factor(unit: str) -> float:
    """Return the factor that turns an energy in ``unit`` into eV."""
    key = _normal(unit)
    if key not in _ENERGY:
        raise DataError(unknown_name("energy unit", unit, _ENERGY))
    return _ENERGY[key]


def length_factor(unit: str) -> float:
    """Return the factor that turns a length in ``unit`` into Å."""
    key = _normal(unit)
    if key not in _LENGTH:
        raise DataError(unknown_name("length unit", unit, _LENGTH))
    return _LENGTH[key]


def force_factor(unit: str) -> float:
    """Return the factor that turns a force in ``unit`` ("energy/length") into eV/Å."""
    energy, _, length = _normal(unit).rpartition("/")
    if not energy:
        raise DataError(f"The force unit '{unit}' is not of the form energy/length, e.g. 'eV/Angstrom'.")
    return energy_factor(energy) / length_factor(length)
