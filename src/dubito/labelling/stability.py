"""Is a converged SCF a minimum? Second-order steps may end on a saddle point: a state above the ground state.

The lowest eigenvalue of the orbital Hessian tells (https://doi.org/10.1063/1.434318). When it is negative, the orbitals
are turned along its eigenvector and the SCF goes down from there. Only instabilities that keep the kind of the SCF are
followed: a restricted calculation stays restricted, so that labels of one campaign remain of one level.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from dubito.core.logs import get_logger

log = get_logger(__name__)

BROKEN = (np.linalg.LinAlgError, ArithmeticError, ValueError, RuntimeError, IndexError)
"""What PySCF raises at singular matrices, numbers that are not finite, guesses that do not fit the molecule."""
STEPS = 3
"""So often an unstable solution is followed down, at most."""
LOWER_HARTREE = 1e-5
"""A step that gains less found the same solution."""


def settled(scf: Any, make: Callable[[], Any], go_on: Callable[[Any], bool]) -> tuple[Any, int]:
    """Follow a converged calculation down until it is stable.

    Parameters
    ----------
    scf : converged
    make : gives a fresh calculation
    go_on : converges a calculation from the orbitals put into it; says whether it did

    Returns
    -------
    The stable calculation, or the lowest one found, and how many steps down it took.
    """
    steps = 0
    while steps < STEPS:
        turned = _turned(scf)
        if turned is None:
            break
        lower = make()
        lower.mo_coeff, lower.mo_occ = turned, scf.mo_occ
        if not _goes_on(lower, go_on) or lower.e_tot > scf.e_tot - LOWER_HARTREE:
            break
        log.info("an unstable SCF solution was followed %.4f Hartree down", scf.e_tot - lower.e_tot)
        scf, steps = lower, steps + 1
    return scf, steps


def _goes_on(lower: Any, go_on: Callable[[Any], bool]) -> bool:
    try:
        return go_on(lower)
    except BROKEN as error:
        log.info("the way down from an unstable solution broke: %s", error)
        return False


def _turned(scf: Any) -> Any:
    """Return orbitals turned along the instability, None when there is none or it can't be told."""
    try:
        # PySCF prints its verdict whatever its verbosity is.
        with contextlib.redirect_stdout(io.StringIO()):
            internal, _, is_stable, _ = scf.stability(return_status=True)
    except BROKEN as error:
        log.info("the stability of the SCF can't be told: %s", error)
        return None
    return None if is_stable else internal
