"""Relax a structure on the energy surface of a predictor, inside the sane region."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dubito.core.logs import get_logger
from dubito.data.sanity import SanityCheck
from dubito.data.structures import Structures
from dubito.uncertainty.base import Predictor

log = get_logger(__name__)


@dataclass(frozen=True)
class Relaxed:
    """Where a relaxation ended.

    Attributes
    ----------
    structure : the last geometry, without labels
    energy : eV, predicted there
    reason : why it left the sane region; empty: it did not
    steps : predictions made
    """

    structure: Structures
    energy: float
    reason: str
    steps: int


class _LeftSanity(Exception):
    """The relaxation came to a place that is not sane."""


def relax_with_model(
    start: Structures, predictor: Predictor, check: SanityCheck, *, max_force: float, max_steps: int
) -> Relaxed:
    """Relax one structure with BFGS (ASE) until no atom feels more than ``max_force``, eV/Å; the cell stays.

    A model may have no minimum near: the relaxation ends where the geometry or what is predicted is not sane any more.
    One that does not converge in ``max_steps`` is taken as it is.
    """
    from ase import Atoms
    from ase.calculators.calculator import Calculator, all_changes
    from ase.optimize import BFGS

    current = replace(start, columns={})
    bound = check.bind(current)
    steps, energy = 0, float("nan")

    class Bridge(Calculator):  # type: ignore[misc]  # ASE is not typed
        """ASE asks, the predictor answers."""

        implemented_properties = ("energy", "forces")

        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
            nonlocal current, steps, energy
            super().calculate(atoms, properties, system_changes)
            positions = self.atoms.positions.copy()
            verdict = bound.geometry(positions)
            if not verdict.sane.all():
                raise _LeftSanity(verdict.reasons[0])
            current = replace(current, positions=positions)
            prediction = predictor.predict(current)
            steps, energy = steps + 1, float(prediction.energy[0])
            verdict = bound.values(prediction.energy, prediction.forces)
            if not verdict.sane.all():
                raise _LeftSanity(verdict.reasons[0])
            self.results = {"energy": energy, "forces": prediction.forces.copy()}

    atoms = Atoms(numbers=start.atomic_numbers, positions=start.positions, cell=start.cell[0], pbc=start.pbc[0])
    atoms.calc = Bridge()
    try:
        if not BFGS(atoms, logfile=None).run(fmax=max_force, steps=max_steps):
            log.info("a relaxation did not reach %g eV/Å in %d steps; it is taken as it is", max_force, max_steps)
    except _LeftSanity as left:
        return Relaxed(current, energy, str(left), steps)
    return Relaxed(current, energy, "", steps)
