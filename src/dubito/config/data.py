"""Section ``data``: where the campaign starts from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dubito.config.base import Section


class RattledStart(Section):
    """Random displacements of one equilibrium geometry."""

    kind: Literal["rattle"] = Field("rattle", description="rattle: displace one geometry at random.")
    molecule: str | None = Field(
        "NH3", description="Name of a molecule known to ase.build.molecule; or give `file` instead."
    )
    file: str | None = Field(None, description="Structure file (anything ASE reads) to displace instead.")
    n_structures: int = Field(12, ge=2, description="How many displaced structures to label first.")
    displacement_angstrom: float = Field(
        0.04, gt=0, le=1.0, description="Standard deviation of each Cartesian displacement."
    )
    charge: int = Field(0, description="Total charge in elementary charges.")
    multiplicity: int = Field(1, ge=1, description="Spin multiplicity 2S+1.")

    @model_validator(mode="after")
    def _one_origin(self) -> RattledStart:
        if (self.molecule is None) == (self.file is None):
            raise ValueError("give exactly one of `molecule` and `file`, and set the other to null")
        return self


class FilesStart(Section):
    """Structures from files, labelled by the campaign like any other."""

    kind: Literal["files"] = Field(..., description="files: take the structures of these files.")
    files: list[str] = Field(..., min_length=1, description="Structure files (extxyz, npz, h5).")
    n_structures: int | None = Field(None, ge=2, description="Take this many at random (seeded); null: all of them.")
    charge: int = Field(0, description="Total charge, where the file gives none.")
    multiplicity: int = Field(1, ge=1, description="Spin multiplicity, where the file gives none.")


class DataConfig(Section):
    """Where the campaign starts from and how data are split."""

    initial: Annotated[RattledStart | FilesStart, Field(discriminator="kind")] = Field(
        default_factory=RattledStart, description="The structures labelled in iteration 0."
    )
    validation_fraction: float = Field(
        0.15, gt=0, lt=0.9, description="Share of all labels kept for validation; once there, for ever."
    )
    allow_model_labels: bool = Field(
        False, description="Also train on labels that a model made (provenance kind 'model')."
    )
