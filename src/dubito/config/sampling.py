"""Section ``sampling``: how the configuration space is explored, and what still counts as sane."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

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


class LangevinConfig(Section):
    """Langevin molecular dynamics (BAOAB, https://doi.org/10.1093/amrx/abs010), many walkers as one batch."""

    kind: Literal["langevin"] = Field("langevin", description="langevin: molecular dynamics with a thermostat.")
    temperatures_K: list[float] = Field(  # noqa: N815 (kelvin is a capital)
        [300.0, 600.0, 1200.0], min_length=1, description="Walkers are spread over these temperatures."
    )
    n_walkers: int = Field(12, ge=1, description="Walkers per job, propagated together.")
    n_jobs: int = Field(1, ge=1, description="Jobs (explore_structures) that each run n_walkers walkers.")
    timestep_fs: float = Field(0.5, gt=0, le=5, description="Time step.")
    friction_per_fs: float = Field(0.01, gt=0, le=1, description="Friction of the thermostat.")
    n_steps: int = Field(1000, ge=1, description="Steps of each walker, at most.")
    save_every_steps: int = Field(20, ge=1, description="A candidate is saved this often.")
    stop_uncertainty_ev_per_angstrom: float = Field(
        1.0, gt=0, description="A walker stops where the force uncertainty of an atom exceeds this."
    )

    @field_validator("temperatures_K")
    @classmethod
    def _positive(cls, value: list[float]) -> list[float]:
        if any(t <= 0 or t > 20000 for t in value):
            raise ValueError(f"temperatures must lie between 0 and 20000 K, found {value}")
        return value


class SamplingConfig(Section):
    """How candidates are found."""

    sampler: Annotated[LangevinConfig, Field()] = Field(
        default_factory=LangevinConfig, description="The sampler and its settings."
    )
    sanity: SanityConfig = Field(default_factory=SanityConfig, description="The sane region.")
