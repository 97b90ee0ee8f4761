"""The names of the arrays of a structures file, with shape, unit and meaning.

One table, read by the store (datasets and unit attributes), the conformance tests and the docs.
``n`` counts structures, ``N`` atoms (all structures concatenated, delimited by ``ptr``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from dubito.core import units


@dataclass(frozen=True)
class Field:
    """One array: HDF5 path, level, trailing shape (-1: any), numpy dtype, unit (None: no unit), meaning."""

    path: str
    level: Literal["structure", "atom"]
    shape: tuple[int, ...]
    dtype: str
    unit: str | None
    meaning: str


GEOMETRY: Final = (
    Field("atomic_numbers", "atom", (), "u1", None, "atomic number of each atom"),
    Field("positions", "atom", (3,), "f8", units.ANGSTROM, "Cartesian positions"),
    Field("cell", "structure", (3, 3), "f8", units.ANGSTROM, "cell vectors as rows; zeros without a cell"),
    Field("pbc", "structure", (3,), "?", None, "periodic along each cell vector"),
    Field("charge", "structure", (), "i4", None, "total charge in elementary charges"),
    Field("multiplicity", "structure", (), "i4", None, "spin multiplicity 2S+1"),
)
LABELS: Final = (
    Field("labels/energy", "structure", (), "f8", units.EV, "total energy"),
    Field("labels/forces", "atom", (3,), "f8", units.EV_PER_ANGSTROM, "forces, minus the energy gradient"),
    Field("labels/stress", "structure", (6,), "f8", units.EV_PER_ANGSTROM3, "Voigt xx yy zz yz xz xy, ASE sign"),
    Field("labels/mask", "structure", (), "?", None, "true where the structure is labelled"),
)
ORIGIN: Final = (
    Field("origin/source", "structure", (), "S64", None, "file or stage the structure came from"),
    Field(
        "origin/iteration",
        "structure",
        (),
        "i4",
        None,
        "iteration that produced it; -1 if outside a campaign",
    ),
    Field("origin/parent", "structure", (), "S32", None, "id of the structure it was derived from"),
    Field("origin/sampler", "structure", (), "S24", None, "sampler that made it"),
    Field("origin/trajectory", "structure", (), "S48", None, "trajectory id; frames of one are correlated"),
    Field("origin/reason", "structure", (), "S32", None, "why it was selected"),
    Field("origin/split", "structure", (), "S8", None, "train, valid or control; empty: not assigned"),
)
PROVENANCE: Final = (
    Field("provenance/kind", "structure", (), "S12", None, "reference (computed) or model (predicted) label"),
    Field("provenance/method", "structure", (), "S64", None, "labelling method, e.g. pyscf PBE/def2-svp"),
    Field("provenance/code_version", "structure", (), "S32", None, "code and version that made the label"),
    Field("provenance/settings_hash", "structure", (), "S16", None, "hash of all settings that change the label"),
    Field("provenance/attempts", "structure", (), "i4", None, "SCF attempts needed"),
    Field("provenance/wall_time", "structure", (), "f8", units.SECOND, "wall time of the label"),
)
SCORING: Final = (
    Field("scoring/escalated", "structure", (), "?", None, "true where all members were evaluated, not one alone"),
)
ALL: Final = GEOMETRY + LABELS + ORIGIN + PROVENANCE + SCORING

PREDICTIONS: Final = (
    Field("energy", "structure", (), "f8", units.EV, "total energy"),
    Field("forces", "atom", (3,), "f8", units.EV_PER_ANGSTROM, "forces"),
    Field("energies", "atom", (), "f8", units.EV, "energy of each atom"),
    Field("energy_uncertainty", "structure", (), "f8", units.EV, "standard deviation of the energy"),
    Field("energies_uncertainty", "atom", (), "f8", units.EV, "standard deviation of each atom's energy"),
    Field(
        "forces_uncertainty",
        "atom",
        (3,),
        "f8",
        units.EV_PER_ANGSTROM,
        "standard deviation of each force component",
    ),
    Field("energy_ensemble", "structure", (-1,), "f8", units.EV, "total energy by each member"),
    Field("energy_score", "structure", (), "f8", None, "unitless, higher is more doubtful"),
    Field("energies_score", "atom", (), "f8", None, "unitless, higher is more doubtful"),
    Field("forces_score", "atom", (), "f8", None, "unitless, higher is more doubtful"),
)
PREDICTION_FIELDS: Final = {f.path: f for f in PREDICTIONS}
