"""Samplers that look for doubt: molecular dynamics with a bias, and displacements to a target error."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dubito.config.base import Section
from dubito.config.langevin import LangevinConfig


class BiasedLangevinConfig(LangevinConfig):
    """Langevin dynamics on the energy less a multiple of its uncertainty (https://doi.org/10.1038/s41524-024-01254-1)."""

    kind: Literal["biased_langevin"] = Field(  # type: ignore[assignment]
        "biased_langevin", description="biased_langevin: molecular dynamics pulled towards doubt."
    )
    bias_fraction: float = Field(
        0.25, gt=0, le=2, description="Size of the bias force, as a share of the root mean square force."
    )


class AdversarialConfig(Section):
    """Displacements up the uncertainty until it reaches a target (arXiv:2502.18314)."""

    kind: Literal["adversarial"] = Field("adversarial", description="adversarial: displaced to a target error.")
    target_error_ev_per_angstrom: float = Field(
        0.6, gt=0, description="Calibrated force uncertainty of the worst atom that a displacement is to reach."
    )
    n_structures: int = Field(32, ge=1, description="Labelled structures that each job displaces.")
    n_jobs: int = Field(1, ge=1, description="Jobs (explore_structures).")
    n_steps: int = Field(40, ge=1, description="Steps at most.")
    step_angstrom: float = Field(0.02, gt=0, le=0.2, description="Longest displacement of an atom in one step.")
