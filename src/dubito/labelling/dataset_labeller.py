"""Labels looked up in labelled files: studies on benchmark data without a single SCF."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dubito.config.labelling import DatasetConfig
from dubito.core.errors import LabelError
from dubito.core.hashing import hash_file
from dubito.data.structures import REFERENCE, Structures
from dubito.labelling.base import NOT_FOUND, Label, Labeller, LabellingFailure, verified

VERSION = 1
"""Raised when a change alters which label is found."""
MATCH_ANGSTROM = 1e-4
"""Positions that agree this well are the same: what single precision or a short text format loses."""


class DatasetLabeller(Labeller):
    """Finds a structure's label by its id, or by its geometry within rounding.

    Reading the files is left to the first look-up. A label keeps its provenance kind.
    """

    name: ClassVar[str] = "dataset"
    cached: ClassVar[bool] = False

    def __init__(self, config: DatasetConfig, *, threads: int = 1) -> None:
        """Name the files.

        Raises
        ------
        LabelError
            When a file does not exist.
        """
        del threads
        self.config = config
        for file in config.files:
            if not Path(file).is_file():
                raise LabelError(
                    f"labelling.labeller.files: '{file}' does not exist (looked for from {Path.cwd()}). "
                    "Mend the path, or fetch the file."
                )

    @cached_property
    def data(self) -> Structures:
        """All structures of the files that have labels."""
        from dubito.data.formats import read_any

        parts = [read_any(Path(file)) for file in self.config.files]
        for file, part in zip(self.config.files, parts, strict=True):
            if not part.is_labelled.any():
                raise LabelError(
                    f"labelling.labeller.files: '{file}' holds {len(part)} structures and not one label. "
                    "Name a labelled file, or label it first."
                )
        joined = Structures.concatenate([part[part.is_labelled] for part in parts])
        joined.require_labels(", ".join(self.config.files))
        return joined

    @cached_property
    def _row_of_id(self) -> dict[str, int]:
        # Reversed, so that of two equal structures the first counts.
        return {key: i for i, key in reversed(list(enumerate(self.data.ids)))}

    @cached_property
    def _rows_of_composition(self) -> dict[tuple[bytes, int, int], NDArray[Any]]:
        rows: dict[tuple[bytes, int, int], list[int]] = {}
        for i, one in enumerate(self.data):
            rows.setdefault(_composition(one), []).append(i)
        return {key: np.array(value) for key, value in rows.items()}

    @cached_property
    def _file_hashes(self) -> list[str]:
        return [hash_file(Path(file)) for file in self.config.files]

    def settings(self) -> dict[str, Any]:
        """Return the content hashes of the files: another path with the same content is the same."""
        return {"labeller": self.name, "version": VERSION, "files": self._file_hashes}

    def check(self, structures: Structures) -> None:
        """Raise LabelError when a structure has elements that no structure of the files has."""
        unknown = np.setdiff1d(structures.atomic_numbers, self.data.atomic_numbers)
        if len(unknown):
            from dubito.labelling.checks import symbols

            raise LabelError(
                f"The structures contain {', '.join(symbols(unknown))}, which none of the labelled files "
                f"({', '.join(self.config.files)}) does. Name the right files in labelling.labeller.files."
            )

    def label(self, structure: Structures) -> Label:
        """Look one structure up."""
        row = self._row_of_id.get(structure.ids[0], -1)
        if row < 0:
            row = self._nearest(structure)
        found = self.data[row]
        stress = found.column("labels/stress")[0]
        return verified(
            Label(
                energy=float(found.energy[0]),
                forces=found.forces.copy(),
                stress=stress if np.all(np.isfinite(stress)) else None,
                method=found.text("provenance/method")[0] or "dataset",
                code_version=found.text("provenance/code_version")[0] or f"dataset {VERSION}",
                kind=found.text("provenance/kind")[0] or REFERENCE,
            )
        )

    def _nearest(self, one: Structures) -> int:
        """Return the row with the same composition and the same positions and cell within rounding."""
        rows = self._rows_of_composition.get(_composition(one), np.zeros(0, int))
        if len(rows):
            n = len(one.atomic_numbers)
            atoms = self.data.ptr[rows][:, None] + np.arange(n)
            distance = np.abs(self.data.positions[atoms] - one.positions).max(axis=(1, 2))
            if one.pbc.any():
                distance = np.maximum(distance, np.abs(self.data.cell[rows] - one.cell).max(axis=(1, 2)))
            distance[(self.data.pbc[rows] != one.pbc).any(axis=1)] = np.inf
            best = int(np.argmin(distance))
            if distance[best] <= MATCH_ANGSTROM:
                return int(rows[best])
            near = f"the closest of {len(rows)} with these atoms is {distance[best]:.2g} Å off"
        else:
            near = "none has these atoms, charge and multiplicity"
        raise LabellingFailure(
            NOT_FOUND,
            f"No structure of {', '.join(self.config.files)} has this geometry ({near}). "
            "Take candidates from the labelled files only, or choose a labeller that computes.",
        )


def _composition(one: Structures) -> tuple[bytes, int, int]:
    return one.atomic_numbers.tobytes(), int(one.charge[0]), int(one.multiplicity[0])
