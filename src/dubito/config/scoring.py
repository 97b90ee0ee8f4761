"""Section ``scoring``: how much of the ensemble each candidate is worth."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dubito.config.base import Section


class ScoringConfig(Section):
    """A cheap score first; the full ensemble only where it could change the decision."""

    adaptive: bool = Field(
        False,
        description="Score all candidates with one member, only the doubtful ones with all (acquire_with: ensemble).",
    )
    recall: float = Field(
        0.95, gt=0, lt=1, description="Share of the candidates that matter which must get the full score, at least."
    )
    decision: Literal["selection", "tolerance"] = Field(
        "selection",
        description="Which candidates matter: selection (the most doubtful share, which the selector takes from) or "
        "tolerance (full score of selection.force_tolerance_ev_per_angstrom at least).",
    )
    top_fraction: float | None = Field(
        None,
        gt=0,
        le=1,
        description="That share of the pool; null: from the selector, n_select and skip_top_fraction.",
    )
