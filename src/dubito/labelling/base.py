"""What every labeller takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from dubito.core.errors import DubitoError
from dubito.core.hashing import hash_json
from dubito.data.structures import REFERENCE, Structures

Array = NDArray[Any]

SCF_NOT_CONVERGED = "scf_not_converged"
NET_FORCE = "net_force"
NOT_FINITE = "not_finite"
CRASHED = "crashed"
NOT_FOUND = "not_found"
REFUSED = "refused"
NET_TORQUE = "net_torque"
ABSURD_FORCE = "absurd_force"
GRADIENT = "gradient"
OUTLIER = "outlier"
REASONS = {
    SCF_NOT_CONVERGED: "no rung of the SCF ladder converged",
    NET_FORCE: "the forces do not sum to zero, so the gradient is wrong or the grid too coarse",
    NOT_FINITE: "the energy or a force is not a finite number",
    CRASHED: "the program that makes the label raised an error",
    NOT_FOUND: "the labelled files do not hold this structure",
    REFUSED: "the labeller does not take such a structure",
    NET_TORQUE: "the forces would turn the molecule as a whole",
    ABSURD_FORCE: "a force is larger than any worth learning",
    GRADIENT: "the forces are not the derivative of the energy",
    OUTLIER: "the label contradicts the ensemble that selected its structure",
}


@dataclass(frozen=True)
class Label:
    """The label of one structure.

    Attributes
    ----------
    energy : total energy, eV
    forces : (n, 3) float64, eV/Å
    stress : (6,) float64, eV/Å³, Voigt, ASE sign; None for molecules
    attempts : calculations it took (rungs of the SCF ladder)
    wall_time_s, cpu_time_s : what it cost; set by the service, which measures all labellers alike
    method : e.g. ``pyscf PBE/def2-svp``
    code_version : e.g. ``pyscf 2.14.0``
    kind : ``reference`` (computed) or ``model`` (predicted by a potential)
    net_force : length of the sum of the forces before it was taken from them, eV/Å; None where it was not
    stopped : rungs of the SCF ladder that were stopped early and why, e.g. ``diis:stalled@47``; mostly empty
    ladder : version of the SCF ladder; it matters for labels that took more than one attempt
    force_noise : rms error of forces that goes with such numerical settings, eV/Å; None where it is not known
    """

    energy: float
    forces: Array
    method: str
    code_version: str
    stress: Array | None = None
    attempts: int = 1
    wall_time_s: float = 0.0
    cpu_time_s: float = 0.0
    kind: str = REFERENCE
    net_force: float | None = None
    stopped: str = ""
    ladder: int = 0
    force_noise: float | None = None


class LabellingFailure(DubitoError):
    """One structure could not be labelled; the others can. Recorded with its reason, never silent."""

    def __init__(self, reason: str, message: str, attempts: int = 1) -> None:
        super().__init__(message)
        self.reason = reason
        self.attempts = attempts


class Labeller(Protocol):
    """Makes labels. Subclass it, or write a class of the same shape.

    Attributes
    ----------
    name : the ``kind`` in the configuration
    cached : whether labels cost enough to be kept in the label cache
    """

    name: ClassVar[str]
    cached: ClassVar[bool] = True

    def settings(self) -> dict[str, Any]:
        """Return, as JSON, everything that changes a label, and nothing else (no threads, no paths)."""
        ...

    @property
    def settings_hash(self) -> str:
        """Hash of the settings: labels with the same hash are interchangeable."""
        return hash_json(self.settings())

    def effort(self) -> dict[str, Any]:
        """Return, as JSON, what decides whether a label is had but not what it is: a failure is tried again
        when it changes, labels are kept."""
        return {}

    def accepts(self, label: Label) -> LabellingFailure | None:
        """Return why a remembered label is no longer good enough under the present settings, None when it is."""
        return None

    def outdated(self, label: Label) -> bool:
        """Say whether a remembered label is known to be wrong, so that it has to be made again."""
        return False

    def check(self, structures: Structures) -> None:
        """Raise LabelError for a structure that can't be labelled, before anything is spent."""
        ...

    def label(self, structure: Structures) -> Label:
        """Label one structure (``len(structure) == 1``).

        Raises
        ------
        LabellingFailure
            When this structure can't be labelled; the service turns any other exception into one.
        """
        ...


def verified(label: Label, max_net_force: float | None = None) -> Label:
    """Return ``label`` when it is finite and, if a limit in eV/Å is given, its forces sum to zero within it.

    Raises
    ------
    LabellingFailure
        Otherwise.
    """
    if not (np.isfinite(label.energy) and np.all(np.isfinite(label.forces))):
        raise LabellingFailure(NOT_FINITE, "The energy or a force is not a finite number.", label.attempts)
    if max_net_force is not None:
        failure = excess_net_force(net_force_of(label), max_net_force, label.attempts)
        if failure is not None:
            raise failure
    return label


def net_force_of(label: Label) -> float:
    """Return the length of the sum of a label's forces, eV/Å."""
    return float(np.linalg.norm(label.forces.sum(axis=0)))


def excess_net_force(net: float, limit: float, attempts: int) -> LabellingFailure | None:
    """Return the failure of a label whose net force (eV/Å) exceeds the limit, None when it does not."""
    if net <= limit:
        return None
    return LabellingFailure(
        NET_FORCE,
        f"The forces sum to {net:.3g} eV/Å instead of 0 (limit {limit:g} eV/Å). "
        "Raise labelling.labeller.grid_level, or the limit max_net_force_ev_per_angstrom.",
        attempts,
    )
