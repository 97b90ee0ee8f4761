"""Molecular dynamics as a sampler."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from dubito.config.base import Section


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
