"""Section ``labelling``: who computes the reference."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from dubito.config.base import Section


class PyscfConfig(Section):
    """Kohn-Sham DFT with PySCF (https://doi.org/10.1063/5.0006074), molecules."""

    kind: Literal["pyscf"] = Field("pyscf", description="pyscf: density functional theory.")
    xc: str = Field("PBE", min_length=1, description="Exchange-correlation functional, as PySCF names it.")
    basis: str = Field("def2-svp", min_length=1, description="Basis set.")
    density_fit: bool = Field(True, description="Density fitting: the larger the molecule, the more time it saves.")
    auxbasis: str | None = Field(
        "def2-universal-jkfit",
        description="Auxiliary basis of the density fitting. This one leaves forces of ammonia within 1 meV/A (rms) of "
        "those without fitting; null, PySCF's smaller choice for pure functionals, within 4.",
    )
    grid_level: int = Field(3, ge=0, le=9, description="Integration grid; below 2 forces are noisy.")
    conv_tol_hartree: float = Field(1e-9, gt=0, le=1e-4, description="SCF energy convergence.")
    max_cycle: int = Field(80, ge=1, description="SCF cycles, at most.")
    early_abort: bool = Field(
        True, description="Stop an SCF that goes nowhere, so that the next rung of the ladder starts earlier."
    )
    device: Literal["cpu", "gpu", "auto"] = Field(
        "cpu", description="gpu: through gpu4pyscf; auto: on a GPU where there is one that agrees with the CPU."
    )
    max_net_force_ev_per_angstrom: float = Field(
        0.1, gt=0, description="A label whose forces don't sum to zero within this is refused."
    )


class TeacherConfig(Section):
    """An analytic potential in place of DFT: rehearsals and tests in seconds."""

    kind: Literal["teacher"] = Field(..., description="teacher: an analytic potential, for rehearsals.")
    potential: Literal["double_well_ammonia", "morse"] = Field(
        "double_well_ammonia", description="The analytic potential."
    )
    seconds_per_label: float = Field(0.0, ge=0, description="Pretend that a label takes this long.")


class DatasetConfig(Section):
    """Labels looked up in labelled files: studies on benchmark data."""

    kind: Literal["dataset"] = Field(..., description="dataset: look labels up in labelled files.")
    files: list[str] = Field(..., min_length=1, description="Labelled files (h5, extxyz, npz).")


class LabellingConfig(Section):
    """How labels are made."""

    labeller: Annotated[PyscfConfig | TeacherConfig | DatasetConfig, Field(discriminator="kind")] = Field(
        default_factory=PyscfConfig, description="The labeller and its settings."
    )
    structures_per_shard: int | Literal["auto"] = Field(
        8,
        description="Structures labelled by one job; auto: so many that starting jobs costs little, from the time "
        "that labels have taken so far.",
    )
    max_failed_fraction: float = Field(
        0.5, ge=0, le=1, description="Pause the campaign when more than this share of a batch fails."
    )

    @field_validator("structures_per_shard", mode="before")
    @classmethod
    def _size(cls, value: object) -> object:
        if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            return value
        raise ValueError(f"found {value!r}, expected a whole number of 1 or more, or 'auto'")
