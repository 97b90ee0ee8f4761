"""Section ``selection``: which candidates are worth a label."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from dubito.config.base import Section
from dubito.core.errors import unknown_name
from dubito.core.plugins import known_names

KNOWN_SELECTORS = (
    "top_uncertainty",
    "random",
    "threshold_window",
    "clustered_top",
    "farthest_point",
    "max_det",
    "lcmd",
)
LOOK_AT_NO_SCORES = ("random", "threshold_window", "max_det", "lcmd")
"""Selectors that choose the same whatever the scores are, as long as the acceptance window is the same."""


class SelectionConfig(Section):
    """How a batch is chosen from the pool."""

    selector: str = Field(
        "top_uncertainty",
        description="top_uncertainty; clustered_top (the most doubtful of each cluster); farthest_point (diverse among "
        "the doubtful); max_det (greedy determinant) and lcmd (largest cluster, farthest point), which look at "
        "features alone; threshold_window (random among those that the certificate does not trust, or above "
        "min_score); random.",
    )
    n_select: int = Field(16, ge=1, description="Structures selected per iteration, control slice apart.")
    control_fraction: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Random control slice, as a share of n_select: labelled too, it measures the error on "
        "the pool without bias, and is trained on from the next iteration on.",
    )
    min_control_labels: int = Field(
        20, ge=0, description="The control slice has at least so many structures, however small its share."
    )
    force_tolerance_ev_per_angstrom: float = Field(
        0.3, gt=0, description="Largest force error on an atom that still counts as right."
    )
    risk: float = Field(
        0.05, gt=0, lt=1, description="Accepted share of structures above the tolerance among those trusted."
    )
    min_accepted_fraction: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Certified: at least this share of the pool is accepted while the risk is kept.",
    )
    min_score: float = Field(
        0.0,
        ge=0,
        description="Candidates whose score is below this are not selected (score of acquire_with).",
    )
    skip_top_fraction: float = Field(
        0.0, ge=0, lt=1, description="Share of the most doubtful candidates left out: often unphysical."
    )
    max_score: float | None = Field(
        None,
        gt=0,
        description="Candidates whose score is above this are not selected (unit of acquire_with); null: no limit.",
    )
    skip_accepted: bool = Field(
        False, description="Select nothing that the certificate of the iteration before accepts."
    )
    features: Literal["fingerprints", "latent", "gradient"] = Field(
        "fingerprints",
        description="What diversity is measured with: fingerprints (sorted distances), latent (of the network) or "
        "gradient (of the energy by the last layer's weights).",
    )
    stratify_by_sampler: bool = Field(False, description="Share the batch between samplers and temperatures.")
    duplicate_distance_angstrom: float = Field(
        0.01,
        ge=0,
        description="Two structures whose sorted interatomic distances differ by less (rms) are the same.",
    )

    @property
    def n_control(self) -> int:
        """Structures of the control slice, as far as pool and budget allow."""
        if not self.control_fraction:
            return 0
        return max(1, self.min_control_labels, round(self.control_fraction * self.n_select))

    @property
    def batch_size(self) -> int:
        """Structures of a batch, as far as pool and budget allow: those selected and the control slice."""
        return self.n_select + self.n_control

    @property
    def heeds_certificate(self) -> bool:
        """Whether what is selected follows from the certificate of the iteration before."""
        return self.skip_accepted or (self.selector == "threshold_window" and not self.min_score)

    @field_validator("risk", mode="before")
    @classmethod
    def _possible(cls, value: object) -> object:
        if isinstance(value, int | float) and not 0 < value < 1:
            what = (
                "no finite number of labels can show that an error never happens"
                if value <= 0
                else "a risk is a share of structures, and to accept anything needs no campaign"
            )
            raise ValueError(
                f"found {value:g}, expected a number above 0 and below 1: {what}. Type 0.05 for one accepted structure "
                "in twenty above the tolerance"
            )
        return value

    @model_validator(mode="after")
    def _window_is_open(self) -> SelectionConfig:
        if self.max_score is not None and self.max_score <= self.min_score:
            raise ValueError(
                f"selection.max_score ({self.max_score:g}) must be above selection.min_score ({self.min_score:g}); "
                "between them lies what is selected"
            )
        return self

    @field_validator("selector")
    @classmethod
    def _known(cls, value: str) -> str:
        known = known_names(KNOWN_SELECTORS, "dubito.selectors")
        if value not in known:
            raise ValueError(unknown_name("selector", value, known))
        return value
