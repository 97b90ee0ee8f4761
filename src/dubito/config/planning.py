"""Section ``planning``: what a label has to be worth, and the error to aim at."""

from __future__ import annotations

from pydantic import Field

from dubito.config.base import Section


class PlanningConfig(Section):
    """When another batch is no longer worth its labels."""

    target_force_rmse_ev_per_angstrom: float | None = Field(
        None,
        gt=0,
        description="Force error (RMSE by component) to forecast labels for; null: where the tolerance would hold.",
    )
    worth_percent_per_100_labels: float = Field(
        5.0,
        ge=0,
        le=100,
        description="A certified campaign goes on as long as 100 more labels are expected to lower the force error by "
        "this much.",
    )
