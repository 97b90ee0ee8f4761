"""The rungs an SCF climbs until it converges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dubito.core.logs import get_logger
from dubito.labelling.base import SCF_NOT_CONVERGED, LabellingFailure
from dubito.labelling.early_abort import Watch, patience_for, watched

log = get_logger(__name__)

LADDER = 1
"""Raised when labels from the second rung on change: those that the cache holds from an older ladder are made again.
0: second-order steps from the last cycle, which led torn molecules into states many eV too high."""

# Third rung, after plain DIIS and second-order SCF from its orbitals.
DAMPING = 0.5
LEVEL_SHIFT_HARTREE = 0.3
DAMPED_CYCLES = 40


@dataclass(frozen=True)
class Climb:
    """A converged calculation, the rungs it took, and which of them were stopped early (``diis:stalled@47``)."""

    scf: Any
    attempts: int
    stopped: str = ""


def climb(make: Callable[[], Any], max_cycle: int, *, early_abort: bool = True) -> Climb:
    """Climb the ladder with calculations that ``make`` returns.

    Plain DIIS; second-order steps (co-iterative augmented Hessian, https://arxiv.org/abs/1610.08423) from its orbitals
    of lowest energy; a fresh start with damping and level shift, then second-order steps from there. In that order
    because, in trials on awkward molecules (torn ammonia, singlet oxygen, FeO), second-order steps rescued what
    defeated DIIS, and damping with a level shift did not.

    Parameters
    ----------
    max_cycle : cycles of a rung, at most
    early_abort : stop plain DIIS when it goes nowhere

    Raises
    ------
    LabellingFailure
        When no rung converges.
    """
    watch = Watch(patience=patience_for(max_cycle) if early_abort else None)
    scf = make()
    watched(scf, scf.kernel, watch)
    if scf.converged:
        return Climb(scf, 1)
    stopped = f"diis:{watch.code}" if watch.code else ""
    log.info("plain SCF not converged in %d cycles (%s); trying second-order SCF", watch.cycles, watch.code or "all")
    if watch.orbitals is not None and second_order(scf, max_cycle):
        return Climb(scf, 2, stopped)
    damped = make()
    damped.damp, damped.level_shift, damped.max_cycle = DAMPING, LEVEL_SHIFT_HARTREE, DAMPED_CYCLES
    watched(damped, damped.kernel, Watch())
    scf = make()
    scf.mo_coeff, scf.mo_occ, scf.e_tot = damped.mo_coeff, damped.mo_occ, damped.e_tot
    if second_order(scf, max_cycle):
        return Climb(scf, 3, stopped)
    raise LabellingFailure(
        SCF_NOT_CONVERGED,
        f"The SCF did not converge to {scf.conv_tol:g} Hartree: not with DIIS in {watch.cycles} cycles"
        f"{', where it was stopped (' + watch.reason + ')' if stopped else ''}, not with second-order steps, not with "
        "damping and level shift. Raise labelling.labeller.max_cycle, or check charge and multiplicity of this "
        "structure.",
        attempts=3,
    )


def second_order(scf: Any, max_cycle: int) -> bool:
    """Go on from the orbitals of ``scf`` with second-order steps; the result is put into ``scf``."""
    newton = scf.newton()
    newton.max_cycle = max_cycle
    newton.kernel(scf.mo_coeff, scf.mo_occ)
    for name in ("converged", "e_tot", "mo_coeff", "mo_occ", "mo_energy"):
        setattr(scf, name, getattr(newton, name))
    return bool(scf.converged)
