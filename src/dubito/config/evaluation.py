"""Section ``evaluation``: what the model is measured on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from dubito.config.base import Section


class InversionProfile(Section):
    """Energy along the inversion of an atom with three neighbours (ammonia's umbrella)."""

    kind: Literal["inversion"] = Field("inversion", description="inversion: an atom swings through a plane.")
    name: str = Field("inversion", pattern=r"^[a-z][a-z0-9_]{0,31}$", description="Name in the results.")
    center_atom: int = Field(0, ge=0, description="Index of the atom that swings.")
    plane_atoms: list[int] = Field([1, 2, 3], description="Indices of its three neighbours.")
    n_points: int = Field(
        11,
        ge=3,
        description="Points from beyond one minimum to beyond the other, made odd; mirror images are not labelled.",
    )
    relax: bool = Field(
        True,
        description="Relax both end points (minimum and planar) with the labeller, so that the barrier is its own.",
    )

    @field_validator("plane_atoms")
    @classmethod
    def _three(cls, value: list[int]) -> list[int]:
        if len(value) != 3 or len(set(value)) != 3 or min(value) < 0:
            raise ValueError(f"plane_atoms must name three different atoms (indices from 0), found {value}")
        return value


class EvaluationConfig(Section):
    """Fixed battery that every iteration is measured on; never trained on."""

    test_files: list[str] = Field([], description="Labelled files that serve as fixed test sets.")
    profiles: list[InversionProfile] = Field(
        default_factory=lambda: [InversionProfile()], description="Energy profiles labelled by the labeller."
    )
