"""The error of forces that comes with a coarse grid or a loose SCF.

Measured by ``benchmarks/labelling.py`` (``numerics``) on displaced ammonia and ethanol, PBE/def2-SVP; the larger of the
two is kept here. It is a figure of the settings, not of a structure: heavy elements and meta-GGAs may be noisier.
"""

from __future__ import annotations

from math import hypot

from dubito.config.labelling import PyscfConfig

GRID_NOISE = {0: 0.27, 1: 0.0042, 2: 0.00056, 3: 0.00057, 4: 0.00008}
"""grid_level: rms error of a force component against grid 5, eV/Å. Finer ones have that of level 4 at most."""
CONVERGENCE_NOISE = {1e-9: 0.00001, 1e-8: 0.00005, 1e-7: 0.0003, 1e-6: 0.0013, 1e-5: 0.002}
"""conv_tol_hartree: rms error of a force component against 1e-12 Hartree, eV/Å."""


def force_noise(config: PyscfConfig) -> float | None:
    """Return the rms error of forces to expect from the numerical settings, eV/Å; None where nobody measured it."""
    reached = [noise for tolerance, noise in CONVERGENCE_NOISE.items() if config.conv_tol_hartree <= 1.0001 * tolerance]
    if not reached:
        return None
    return hypot(GRID_NOISE[min(config.grid_level, max(GRID_NOISE))], min(reached))
