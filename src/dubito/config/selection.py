"""Section ``selection``: which candidates are worth a label."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from dubito.config.base import Section
from dubito.core.errors import unknown_name
from dubito.core.plugins import known_names

KNOWN_SELECTORS = ("top_uncertainty", "random", "farthest_point")


class SelectionConfig(Section):
    """How a batch is chosen from the pool."""

    selector: str = Field(
        "top_uncertainty",
        description="top_uncertainty, farthest_point (diverse among the doubtful) or random.",
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

    @field_validator("selector")
    @classmethod
    def _known(cls, value: str) -> str:
        known = known_names(KNOWN_SELECTORS, "dubito.selectors")
        if value not in known:
            raise ValueError(unknown_name("selector", value, known))
        return value
