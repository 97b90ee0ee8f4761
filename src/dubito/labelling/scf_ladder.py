"""The rungs an SCF climbs until it converges, and the look at what it converged to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dubito.core.logs import get_logger
from dubito.labelling.base import SCF_NOT_CONVERGED, LabellingFailure
from dubito.labelling.early_abort import Watch, patience_for, watched
from dubito.labelling.stability import BROKEN, settled

log = get_logger(__name__)

LADDER = 2
"""Raised when labels from the second rung on change: those that the cache holds from an older ladder are made again.
0: second-order steps from the last cycle, which led torn molecules into states many eV too high.
1: saddle points were taken for ground states; singular matrices were crashes."""

# Third rung: a fresh start, damped and level-shifted, then second order.
DAMPING = 0.5
LEVEL_SHIFT_HARTREE = 0.3
DAMPED_CYCLES = 40
# Fourth rung: electrons spread over near-degenerate orbitals by temperature, then second order.
SMEARING_HARTREE = 0.02
SMEARED_CYCLES = 40
# Fifth rung: other guesses of the density, a few cycles of DIIS each, then second order.
GUESSES = ("huckel", "vsap", "atom")
GUESS_CYCLES = 25

Make = Callable[[], Any]
Start = tuple[Any, Any]
"""Orbital coefficients and occupations."""


@dataclass(frozen=True)
class Climb:
    """A converged calculation, the rungs it took, and what became of the others.

    ``stopped`` names rungs that were stopped early (``diis:stalled@47``), and how often the solution of a later rung
    was found unstable and followed down (``unstable:1``), separated by spaces.
    """

    scf: Any
    attempts: int
    stopped: str = ""


@dataclass
class _Rung:
    """A way to orbitals from which second-order steps set out; what it says of itself when they lead nowhere."""

    words: str
    start: Callable[[], Start | None]


def climb(make: Make, max_cycle: int, *, early_abort: bool = True) -> Climb:
    """Climb the ladder with calculations that ``make`` returns.

    Plain DIIS; then second-order steps (co-iterative augmented Hessian, https://arxiv.org/abs/1610.08423) from better
    and better starts: its orbitals of lowest energy; a fresh start with damping and level shift; one with fractional
    occupations (https://doi.org/10.1063/1.478177); other guesses. In that order because, in trials on awkward
    molecules, second-order steps rescued what defeated DIIS, and damping with a level shift did not.

    Where DIIS fails the SCF has several solutions, and second-order steps may end on a saddle point between them. What
    the second rung and later ones find is therefore followed down until it is stable
    (:mod:`dubito.labelling.stability`). What plain DIIS finds is left as it is.

    Parameters
    ----------
    max_cycle : cycles of a rung, at most
    early_abort : stop plain DIIS when it goes nowhere

    Raises
    ------
    LabellingFailure
        When no rung converges; the message names each.
    """
    watch = Watch(patience=patience_for(max_cycle) if early_abort else None)
    scf = make()
    broke = _broke(scf, watch)
    if not broke and scf.converged:
        return Climb(scf, 1)
    stopped = f"diis:{watch.code}" if watch.code else ""
    log.info("plain SCF not converged in %d cycles (%s); trying second-order SCF", watch.cycles, watch.code or "all")
    why = f", where it {f'broke ({broke})' if broke else f'was stopped ({watch.reason})'}" if stopped else ""
    said = [f"not with DIIS in {watch.cycles} cycles{why}"]
    rungs = [
        _Rung("not with second-order steps from there", lambda: watch.orbitals),
        _Rung("not with damping and level shift", lambda: _damped(make)),
        _Rung("not with fractional occupations", lambda: _smeared(make)),
        *[_Rung(f"not from the guess '{guess}'", partial(_guessed, make, guess)) for guess in GUESSES],
    ]
    for number, rung in enumerate(rungs, start=2):
        try:
            found = _second_order_from(make, rung.start, max_cycle)
        except BROKEN as error:
            said.append(f"{rung.words} ({_one_line(error)})")
            continue
        if found is not None:
            scf, steps = settled(found, make, lambda other: second_order(other, max_cycle))
            return Climb(scf, number, " ".join(filter(None, [stopped, f"unstable:{steps}" if steps else ""])))
        said.append(rung.words)
    raise LabellingFailure(
        SCF_NOT_CONVERGED,
        f"The SCF did not converge to {scf.conv_tol:g} Hartree: {', '.join(said)}. Raise labelling.labeller.max_cycle, "
        "or check charge and multiplicity of this structure.",
        attempts=1 + len(rungs),
    )


def second_order(scf: Any, max_cycle: int) -> bool:
    """Go on from the orbitals of ``scf`` with second-order steps; the result is put into ``scf``."""
    newton = scf.newton()
    newton.max_cycle = max_cycle
    newton.kernel(scf.mo_coeff, scf.mo_occ)
    for name in ("converged", "e_tot", "mo_coeff", "mo_occ", "mo_energy"):
        setattr(scf, name, getattr(newton, name))
    return bool(scf.converged) and bool(np.isfinite(scf.e_tot))


def _second_order_from(make: Make, start: Callable[[], Start | None], max_cycle: int) -> Any:
    """Return a converged calculation, or None."""
    orbitals = start()
    if orbitals is None:
        return None
    scf = make()
    scf.mo_coeff, scf.mo_occ = orbitals
    return scf if second_order(scf, max_cycle) else None


def _broke(scf: Any, watch: Watch) -> str:
    """Run an SCF; return the error that ended it, empty when it came to its end, converged or not.

    Functions of the basis that all but depend on each other make matrices singular, which no diagonalisation survives.
    """
    try:
        watched(scf, scf.kernel, watch)
    except BROKEN as error:
        watch.reason = "broken"
        return _one_line(error)
    return ""


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"


def _damped(make: Make) -> Start | None:
    scf = make()
    scf.damp, scf.level_shift, scf.max_cycle = DAMPING, LEVEL_SHIFT_HARTREE, DAMPED_CYCLES
    return _best(scf)


def _smeared(make: Make) -> Start | None:
    """Return orbitals of an SCF at a finite temperature, the lowest of them filled."""
    from pyscf.scf.addons import smearing

    plain = make()
    scf = smearing(plain, sigma=SMEARING_HARTREE, method="fermi", fix_spin=bool(plain.mol.spin))
    scf.max_cycle = SMEARED_CYCLES
    scf.kernel()
    return scf.mo_coeff, make().get_occ(scf.mo_energy, scf.mo_coeff)


def _guessed(make: Make, guess: str) -> Start | None:
    scf = make()
    scf.init_guess, scf.max_cycle = guess, GUESS_CYCLES
    return _best(scf)


def _best(scf: Any) -> Start | None:
    """Run an SCF and return its orbitals: converged ones, or those of lowest energy."""
    watch = Watch()
    return watch.orbitals if _broke(scf, watch) else (scf.mo_coeff, scf.mo_occ)
