"""Samplers without dynamics: normal modes, rattling, dihedral scans."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dubito.config.base import Section


class NormalModesConfig(Section):
    """Thermal displacements along the normal modes of relaxed structures."""

    kind: Literal["normal_modes"] = Field("normal_modes", description="normal_modes: thermal, harmonic displacements.")
    temperatures_K: list[float] = Field(  # noqa: N815 (kelvin is a capital)
        [300.0, 600.0, 1200.0], min_length=1, description="Structures are spread over these temperatures."
    )
    n_structures: int = Field(60, ge=1, description="Structures that each job makes.")
    n_jobs: int = Field(1, ge=1, description="Jobs (explore_structures).")


class RattleSamplerConfig(Section):
    """Random displacements of labelled structures: the cheap baseline."""

    kind: Literal["rattle"] = Field("rattle", description="rattle: random displacements.")
    displacements_angstrom: list[float] = Field(
        [0.05, 0.1, 0.2], min_length=1, description="Standard deviations of Cartesian displacements."
    )
    n_structures: int = Field(60, ge=1, description="Structures that each job makes.")
    n_jobs: int = Field(1, ge=1, description="Jobs (explore_structures).")


class DihedralScanConfig(Section):
    """Rotations about single bonds of labelled structures."""

    kind: Literal["dihedral_scan"] = Field("dihedral_scan", description="dihedral_scan: turned about single bonds.")
    step_degrees: float = Field(30.0, gt=0, le=120, description="Angles between the points of a scan.")
    n_structures: int = Field(60, ge=1, description="Structures that each job makes, at most.")
    n_jobs: int = Field(1, ge=1, description="Jobs (explore_structures).")
