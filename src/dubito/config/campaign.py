"""Section ``campaign``: its name, its seed and its budget."""

from __future__ import annotations

from pydantic import Field, field_validator

from dubito.config.base import Section


class CampaignConfig(Section):
    """What the campaign is called and how far it may go."""

    name: str = Field(
        "ammonia",
        pattern=r"^[a-z0-9][a-z0-9_-]{0,47}$",
        description="Folder under results/; lower-case letters, digits, - and _.",
    )
    seed: int = Field(2026, ge=0, lt=2**31, description="Every random choice follows from this number.")
    max_iterations: int = Field(
        4,
        ge=0,
        le=999,
        description="How often new structures may be selected and labelled; iteration 0, which labels "
        "the initial structures, does not count.",
    )
    max_labels: int | None = Field(
        None,
        ge=1,
        description="Stop when labels of this many structures were computed, failed ones included; null: no limit.",
    )

    @field_validator("name")
    @classmethod
    def _free(cls, value: str) -> str:
        if value == "label_cache":
            raise ValueError("results/label_cache is where labels are kept; choose another name")
        return value
