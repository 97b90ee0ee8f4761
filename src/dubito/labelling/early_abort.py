"""Watch an SCF: remember its best orbitals, and stop it when it goes nowhere.

A callback looks at energy and orbital gradient after each cycle. It stops the SCF when one of them is not a finite
number, or when it has stalled: for ``patience`` cycles the gradient has not come below ``GRADIENT_PROGRESS`` times the
smallest before, nor the energy below the lowest before by ``ENERGY_PROGRESS``. SCFs that wander for long and converge
by chance exist, so the patience is long; ``benchmarks/labelling.py`` counts those it stops and compares their labels.
A rung that is stopped costs a rung of the ladder, never a label.

Whether stopped or not, the next rung starts from the orbitals of lowest energy. The energy of any orbitals is an upper
bound of the ground state's, and an SCF that oscillates passes through states many electronvolts above it: second-order
steps from the last cycle find the nearest stationary point, which is then an excited state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

STALLED = "stalled"
NOT_FINITE = "not_finite"

PATIENCE = 40
"""Cycles without progress, at least; half of the cycles allowed when these are more than twice as many."""
GRADIENT_PROGRESS = 0.9
"""A gradient below this times the smallest before counts as progress."""
ENERGY_PROGRESS = 1e-3
"""Hartree: so does an energy that much below the lowest before."""


def patience_for(max_cycle: int) -> int:
    """Return the cycles to wait for progress: who allows more cycles wants more patience."""
    return max(PATIENCE, max_cycle // 2)


class Stopped(Exception):  # no fault: it is how a callback of PySCF ends the cycles
    """Raised within the SCF; never leaves :func:`watched`."""


@dataclass
class Watch:
    """Callback of PySCF's SCF.

    Attributes
    ----------
    patience : cycles without progress after which the SCF is stopped; None: never
    reason : ``stalled`` or ``not_finite`` once stopped, else empty
    cycles : cycles seen
    orbitals : coefficients and occupations of lowest energy, None before the first finite cycle
    """

    patience: int | None = None
    reason: str = ""
    cycles: int = 0
    orbitals: tuple[Any, Any] | None = None
    lowest_energy: float = field(default=math.inf, repr=False)
    milestone: float = field(default=math.inf, repr=False)
    smallest_gradient: float = field(default=math.inf, repr=False)
    progressed_at: int = field(default=0, repr=False)

    def __call__(self, state: dict[str, Any]) -> None:
        """Look at one cycle, of which PySCF hands over all local variables.

        Raises
        ------
        Stopped
            When going on is hopeless.
        """
        energy = float(state["e_tot"])
        if energy < self.lowest_energy:
            self.lowest_energy, self.orbitals = energy, (state["mo_coeff"], state["mo_occ"])
        self.see(energy, float(state["norm_gorb"]), converged=bool(state["scf_conv"]))
        if self.reason:
            raise Stopped(self.reason)

    def see(self, energy: float, gradient: float, *, converged: bool = False) -> None:
        """Take in energy (Hartree) and gradient norm of a cycle; set ``reason`` when it is time to stop."""
        self.cycles += 1
        if not (math.isfinite(energy) and math.isfinite(gradient)):
            self.reason = NOT_FINITE
            return
        if gradient < GRADIENT_PROGRESS * self.smallest_gradient:
            self.smallest_gradient, self.progressed_at = gradient, self.cycles
        if energy < self.milestone - ENERGY_PROGRESS:
            self.milestone, self.progressed_at = energy, self.cycles
        if self.patience is not None and not converged and self.cycles - self.progressed_at >= self.patience:
            self.reason = STALLED

    @property
    def code(self) -> str:
        """How the SCF was stopped, e.g. ``stalled@47``; empty when it was not."""
        return f"{self.reason}@{self.cycles}" if self.reason else ""


def watched(scf: Any, start: Callable[[], object], watch: Watch) -> None:
    """Run ``start`` (an SCF of ``scf``) under the watch.

    An SCF that was stopped counts as not converged; one that did not converge holds the orbitals of lowest energy.
    """
    scf.callback = watch
    try:
        start()
    except Stopped:
        scf.converged = False
    finally:
        scf.callback = None  # second-order SCF would copy it
    if not scf.converged and watch.orbitals is not None:
        (scf.mo_coeff, scf.mo_occ), scf.e_tot = watch.orbitals, watch.lowest_energy
