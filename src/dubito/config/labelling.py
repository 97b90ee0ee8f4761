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
    failing_fraction: float = Field(
        0.0, ge=0, le=1, description="Pretend that the SCF of this share of the structures of each batch fails."
    )


class DatasetConfig(Section):
    """Labels looked up in labelled files: studies on benchmark data."""

    kind: Literal["dataset"] = Field(..., description="dataset: look labels up in labelled files.")
    files: list[str] = Field(..., min_length=1, description="Labelled files (h5, extxyz, npz).")


class LabelChecksConfig(Section):
    """What a finished label must pass before it enters a dataset; the label cache keeps those that are refused."""

    gradient: Literal["first", "all", "none"] = Field(
        "first",
        description="Compare forces with differences of energies: for the first structure under these settings, for "
        "all (three times the cost), or not at all.",
    )
    gradient_tolerance_ev_per_angstrom: float = Field(
        0.02, gt=0, description="Difference that is no fault, besides 2 % of the force itself."
    )
    max_net_force_ev_per_angstrom: float = Field(
        0.1, gt=0, description="Length of the sum of a label's forces, whoever made it."
    )
    max_net_torque_ev_per_angstrom: float = Field(
        0.1, gt=0, description="Molecules: largest torque of the forces, per distance of the outermost atom."
    )
    max_force_ev_per_angstrom: float = Field(1000.0, gt=0, description="A label with a larger force is refused.")
    refuse_outliers: bool = Field(
        True, description="Refuse labels that contradict the ensemble which selected the structures."
    )
    outlier_factor: float = Field(
        5.0,
        gt=1,
        description="By how many times the batch's spread (or the predicted uncertainty) a label may contradict.",
    )
    outlier_floor_ev_per_atom: float = Field(0.002, gt=0, description="Energies: a smaller spread is not believed.")
    outlier_floor_ev_per_angstrom: float = Field(0.1, gt=0, description="Forces: a smaller spread is not believed.")


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
    reuse_from: list[str] = Field(
        [],
        description="Labelled files (h5, such as the dataset.h5 of other campaigns) whose labels are taken where "
        "geometry and settings are the same; changing it reruns nothing.",
    )

    checks: LabelChecksConfig = Field(
        default_factory=LabelChecksConfig, description="What a label must pass; changing it reruns nothing."
    )

    @field_validator("structures_per_shard", mode="before")
    @classmethod
    def _size(cls, value: object) -> object:
        if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            return value
        raise ValueError(f"found {value!r}, expected a whole number of 1 or more, or 'auto'")
