"""Which geometries still count as sane: the region that samplers stay in and that selection takes from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dubito.config.base import Section


class SanityConfig(Section):
    """The region in which a geometry is worth a DFT calculation. Used by samplers and by selection."""

    min_distance_factor: float = Field(
        0.6,
        gt=0,
        lt=1.2,
        description="Atoms closer than this times the sum of their covalent radii are too close.",
    )
    max_bond_factor: float = Field(
        1.6,
        gt=1,
        le=4,
        description="Atoms farther apart than this times the sum of covalent radii are not bonded.",
    )
    max_fragments: int = Field(1, ge=1, description="A geometry with more bonded fragments is rejected.")
    max_energy_above_min_ev_per_atom: float = Field(
        1.0, gt=0, description="Predicted energy above the lowest label, per atom, that is still sane."
    )
    max_force_ev_per_angstrom: float = Field(
        30.0, gt=0, description="Largest predicted force on an atom that is still sane."
    )
    spin_parity: bool = Field(
        True,
        description="Reject molecules whose electrons can't have their charge and multiplicity, where the labeller "
        "solves for electrons (pyscf).",
    )
    bond_graph: Literal["any", "as_labelled"] = Field(
        "any",
        description="as_labelled: bonds must be those of a labelled structure of the same formula, like atoms being "
        "alike; any: reactions are welcome.",
    )
