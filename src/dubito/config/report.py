"""Section ``report``."""

from __future__ import annotations

from pydantic import Field

from dubito.config.base import Section


class ReportConfig(Section):
    """The HTML report."""

    title: str | None = Field(None, max_length=120, description="Title; null: the campaign's name.")
    max_points: int = Field(
        3000, ge=100, description="Scatter plots with more points than this are drawn as counts per bin."
    )
