"""Section ``scoring``: how much of the ensemble each candidate is worth."""

from __future__ import annotations

from pydantic import Field

from dubito.config.base import Section


class ScoringConfig(Section):
    """A cheap score first; the full ensemble only where it could change the decision."""

    adaptive: bool = Field(False, description="Score all candidates with one member, only the doubtful ones with all.")
    recall: float = Field(
        0.95, gt=0, lt=1, description="Share of the candidates that matter which must get the full score, at least."
    )
