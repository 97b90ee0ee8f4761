"""Labels from an analytic potential: a whole campaign rehearsed in seconds."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from dubito.config.base import Section
from dubito.config.labelling import TeacherConfig
from dubito.core.hashing import hash_json
from dubito.data.structures import Structures
from dubito.labelling.base import SCF_NOT_CONVERGED, Label, Labeller, LabellingFailure, verified
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

    def effort(self) -> dict[str, Any]:
        """Return the share that is pretended to fail: another share tries the failures again and keeps the labels."""
        share = self.config.failing_fraction
        return {"failing_fraction": share} if share else {}

    def check(self, structures: Structures) -> None:
        """Raise LabelError for overlapping atoms or a structure the potential does not know."""
        self.potential.check(structures)
        refuse_overlap(structures)

    def label(self, structure: Structures) -> Label:
        """Evaluate the potential.

        Raises
        ------
        LabellingFailure
            For the share of structures that is pretended to fail.
        """
        time.sleep(self.config.seconds_per_label)
        self._rehearse_failure(structure.ids[0])
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

    def _rehearse_failure(self, structure_id: str) -> None:
        share = self.config.failing_fraction
        if _draw(structure_id) < share:
            raise LabellingFailure(
                SCF_NOT_CONVERGED,
                f"A rehearsed failure (labelling.labeller.failing_fraction: {share:g}).",
                attempts=_RUNGS,
            )


_RUNGS = 3
"""Attempts of a rehearsed failure: as many as the SCF ladder makes before it gives up."""


def without_rehearsed_failures(config: Section) -> Section:
    """Return a labeller's settings with nothing made to fail, for what can't do without a single label."""
    return config.model_copy(update={"failing_fraction": 0.0}) if isinstance(config, TeacherConfig) else config


def _draw(structure_id: str) -> float:
    """Return a number in [0, 1) that belongs to a structure: whatever the order, and a lower share fails fewer of
    the same structures."""
    return int(hash_json(["rehearsed failure", structure_id]), 16) / 16**16
