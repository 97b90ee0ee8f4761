"""Molecular dynamics as a sampler."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from dubito.config.sampler_base import SamplerSection, positive_kelvin


class LangevinConfig(SamplerSection):
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
        return positive_kelvin(value)

    @property
    def batch_size(self) -> int:
        """All walkers of a job."""
        return self.n_walkers

    @property
    def n_rounds(self) -> int:
        """One prediction each step."""
        return self.n_steps

    @property
    def candidates_per_job(self) -> int:
        """What is saved on the way, and where a walker stops."""
        return self.n_walkers * (self.n_steps // self.save_every_steps + 1)

    @property
    def words(self) -> str:
        """Kind and temperatures."""
        return f"{self.kind} at {', '.join(f'{t:g}' for t in self.temperatures_K)} K"
