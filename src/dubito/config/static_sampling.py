"""Samplers without dynamics: normal modes, rattling, dihedral scans."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from dubito.config.sampler_base import NAMED, SamplerSection, positive_kelvin

# Displacements of a Hessian, of a molecule of thirty atoms: how many there are is not known before.
_HESSIAN = 180


class NormalModesConfig(SamplerSection):
    """Thermal displacements along the normal modes of structures that the model relaxed."""

    model_config = NAMED

    kind: Literal["normal_modes"] = Field("normal_modes", description="normal_modes: thermal, harmonic displacements.")
    temperatures_K: list[float] = Field(  # noqa: N815 (kelvin is a capital)
        [300.0, 600.0, 1200.0], min_length=1, description="Structures are spread over these temperatures."
    )
    n_structures: int = Field(60, ge=1, description="Structures that each job makes.")
    n_jobs: int = Field(1, ge=1, description="Jobs (explore_structures).")
    n_minima: int = Field(4, ge=1, description="Labelled structures that each job relaxes, the lowest in energy first.")
    max_relaxation_steps: int = Field(200, ge=1, description="Steps of a relaxation, at most.")
    max_force_ev_per_angstrom: float = Field(0.02, gt=0, description="Largest force on an atom of a relaxed structure.")
    displacement_angstrom: float = Field(
        0.01, gt=0, le=0.1, description="Displacement in the central differences of the forces."
    )
    min_wavenumber_per_cm: float = Field(
        100.0, gt=0, description="Softer and imaginary modes are displaced as if they were this stiff."
    )

    @field_validator("temperatures_K")
    @classmethod
    def _positive(cls, value: list[float]) -> list[float]:
        return positive_kelvin(value)

    @property
    def batch_size(self) -> int:
        """Structures made, and those of the Hessians."""
        return self.n_structures + self.n_minima * _HESSIAN

    @property
    def n_rounds(self) -> int:
        """Relaxations, one structure at a time, then the two batches."""
        return 2 + -(-self.n_minima * self.max_relaxation_steps // self.batch_size)

    @property
    def candidates_per_job(self) -> int:
        """One for each displacement."""
        return self.n_structures

    @property
    def words(self) -> str:
        """Kind and temperatures."""
        return f"{self.kind} at {', '.join(f'{t:g}' for t in self.temperatures_K)} K"


class RattleSamplerConfig(SamplerSection):
    """Random displacements of labelled structures: the cheap baseline."""

    model_config = NAMED

    kind: Literal["rattle"] = Field("rattle", description="rattle: random displacements.")
    displacements_angstrom: list[float] = Field(
        [0.05, 0.1, 0.2], min_length=1, description="Standard deviations of Cartesian displacements."
    )
    n_structures: int = Field(60, ge=1, description="Structures that each job makes.")
    n_jobs: int = Field(1, ge=1, description="Jobs (explore_structures).")

    @field_validator("displacements_angstrom")
    @classmethod
    def _in_reach(cls, value: list[float]) -> list[float]:
        if any(width <= 0 or width > 1 for width in value):
            raise ValueError(f"displacements must lie between 0 and 1 Å, found {value}")
        return value

    @property
    def batch_size(self) -> int:
        """All structures of a job."""
        return self.n_structures

    @property
    def n_rounds(self) -> int:
        """One batch."""
        return 1

    @property
    def candidates_per_job(self) -> int:
        """One for each displacement."""
        return self.n_structures

    @property
    def words(self) -> str:
        """Kind and widths."""
        return f"{self.kind} by {', '.join(f'{width:g}' for width in self.displacements_angstrom)} Å"


class DihedralScanConfig(SamplerSection):
    """Rotations about single bonds of labelled structures."""

    model_config = NAMED

    kind: Literal["dihedral_scan"] = Field("dihedral_scan", description="dihedral_scan: turned about single bonds.")
    step_degrees: float = Field(30.0, gt=0, le=120, description="Angles between the points of a scan.")
    n_structures: int = Field(60, ge=1, description="Structures that each job makes, at most.")
    n_jobs: int = Field(1, ge=1, description="Jobs (explore_structures).")
    max_bonds: int = Field(2, ge=1, le=4, description="Bonds that a scan turns together, at most.")

    @property
    def batch_size(self) -> int:
        """All structures of a job."""
        return self.n_structures

    @property
    def n_rounds(self) -> int:
        """One batch."""
        return 1

    @property
    def candidates_per_job(self) -> int:
        """One for each point of a scan."""
        return self.n_structures

    @property
    def words(self) -> str:
        """Kind and step."""
        return f"{self.kind} in steps of {self.step_degrees:g}°"
