"""Labels from an analytic potential: a whole campaign rehearsed in seconds."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from dubito.config.labelling import TeacherConfig
from dubito.data.structures import Structures
from dubito.labelling.base import Label, Labeller, verified
from dubito.labelling.checks import refuse_overlap
from dubito.labelling.potentials import POTENTIALS

VERSION = 1
"""Raised when a change alters labels."""


class TeacherLabeller(Labeller):
    """An analytic potential in the place of density functional theory.

    Its labels count as ``reference``: within a rehearsal the potential is the truth, not a model of it.
    """

    name: ClassVar[str] = "teacher"

    def __init__(self, config: TeacherConfig, *, threads: int = 1) -> None:
        del threads  # numpy on a handful of atoms has no use for more than one
        self.config = config
        self.potential = POTENTIALS[config.potential]()

    def settings(self) -> dict[str, Any]:
        """Return the potential and its constants; the pretended duration changes no label."""
        return {
            "labeller": self.name,
            "version": VERSION,
            "potential": self.config.potential,
            **self.potential.settings(),
        }

    def check(self, structures: Structures) -> None:
        """Raise LabelError for overlapping atoms or a structure the potential does not know."""
        self.potential.check(structures)
        refuse_overlap(structures)

    def label(self, structure: Structures) -> Label:
        """Evaluate the potential."""
        time.sleep(self.config.seconds_per_label)
        energy, forces, stress = self.potential.evaluate(structure)
        return verified(
            Label(
                energy=energy,
                forces=forces,
                stress=stress,
                method=f"teacher {self.config.potential}",
                code_version=f"teacher {VERSION}",
            )
        )
