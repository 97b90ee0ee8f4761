"""Samplers that look for doubt: molecular dynamics with a bias, and displacements to a target error."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from dubito.config.langevin import LangevinConfig
from dubito.config.sampler_base import NAMED, SamplerSection

# Kinds of samplers that need to tell members apart.
FOLLOW_MEMBERS = ("biased_langevin", "adversarial")
# Points that are tried between the last two of a climb, at most.
MAX_SEARCH = 16


class BiasedLangevinConfig(LangevinConfig):
    """Langevin dynamics on the energy less a multiple of its uncertainty (https://doi.org/10.1038/s41524-024-01254-1)."""

    model_config = NAMED

    kind: Literal["biased_langevin"] = Field(  # type: ignore[assignment]
        "biased_langevin", description="biased_langevin: molecular dynamics pulled towards doubt."
    )
    bias_fraction: float = Field(
        0.25, ge=0, le=2, description="Size of the pull towards doubt, as a share of the root mean square force."
    )
    burn_in_steps: int = Field(50, ge=0, description="Steps without the pull, in which its size is found.")
    bias_hydrogen: bool = Field(True, description="Whether hydrogen atoms are pulled too.")

    @model_validator(mode="after")
    def _pulled_at_all(self) -> BiasedLangevinConfig:
        if self.burn_in_steps >= self.n_steps:
            raise ValueError(
                f"burn_in_steps is {self.burn_in_steps} and n_steps {self.n_steps}, so walkers would never be pulled; "
                "raise n_steps or lower burn_in_steps"
            )
        return self


class AdversarialConfig(SamplerSection):
    """Displacements up the uncertainty until it reaches a target (arXiv:2502.18314)."""

    model_config = NAMED

    kind: Literal["adversarial"] = Field("adversarial", description="adversarial: displaced to a target error.")
    target_error_ev_per_angstrom: float = Field(
        0.6, gt=0, description="Calibrated force uncertainty of the worst atom that a displacement is to reach."
    )
    n_structures: int = Field(32, ge=1, description="Labelled structures that each job displaces.")
    n_jobs: int = Field(1, ge=1, description="Jobs (explore_structures).")
    n_steps: int = Field(80, ge=1, description="Steps at most.")
    step_angstrom: float = Field(0.04, gt=0, le=0.2, description="Longest displacement of an atom in one step.")
    temperature_K: float = Field(  # noqa: N815 (kelvin is a capital)
        5000.0,
        gt=0,
        le=1e6,
        description="Energy counts against doubt as at this temperature, doubled where that stops it.",
    )

    @property
    def batch_size(self) -> int:
        """All structures of a job."""
        return self.n_structures

    @property
    def n_rounds(self) -> int:
        """The labelled structures, one prediction each step, and the search of the last one."""
        return self.n_steps + MAX_SEARCH + 1

    @property
    def candidates_per_job(self) -> int:
        """One for each structure."""
        return self.n_structures

    @property
    def words(self) -> str:
        """Kind and target."""
        return f"{self.kind} displacement to {self.target_error_ev_per_angstrom:g} eV/Å"
