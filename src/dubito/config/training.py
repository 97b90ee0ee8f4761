"""Section ``training``: the ensemble's training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from dubito.config.base import Section


class TrainingConfig(Section):
    """How the members of the ensemble are trained.

    The loss of one member is
    ``energy_weight * mean_s[((E_s - E_s^ref) / (n_s s_F 1 A))^2]
    + force_weight * mean_{i,k}[((F_ik - F_ik^ref) / s_F)^2]``
    with ``n_s`` atoms in structure s and ``s_F`` the rms force component of the first training set.
    """

    n_members: int = Field(4, ge=1, le=64, description="Members of the ensemble.")
    members_per_job: int = Field(
        4, ge=1, le=64, description="Members trained together, vectorised, in one job; fewer: more jobs."
    )
    batch_size: int = Field(5, ge=1, description="Structures per optimiser step.")
    max_epochs: int = Field(200, ge=1, description="Passes over the training set, at most.")
    min_steps: int = Field(
        0, ge=0, description="Optimiser steps, at least: small sets get more than max_epochs passes."
    )
    learning_rate: float = Field(0.005, gt=0, lt=1, description="Initial learning rate of Adam.")
    min_learning_rate: float = Field(1e-5, gt=0, lt=1, description="Training of a member ends below this rate.")
    schedule: Literal["plateau", "cosine"] = Field(
        "plateau",
        description="plateau: lower the rate when validation stalls; cosine: lower it to a hundredth over "
        "all epochs, for trainings of known length.",
    )
    amsgrad: bool = Field(True, description="AMSGrad variant of Adam.")
    plateau_patience_epochs: int = Field(
        20, ge=1, description="Epochs without a better validation loss before the rate is lowered."
    )
    plateau_factor: float = Field(0.5, gt=0, lt=1, description="Factor that lowers the rate.")
    early_stopping_epochs: int = Field(
        80, ge=1, description="Epochs without a better validation loss before a member stops."
    )
    ema_decay: float = Field(0.99, ge=0, lt=1, description="Decay of the exponential average of the weights.")
    energy_weight: float = Field(1.0, ge=0, description="Weight of the per-atom energy term of the loss.")
    force_weight: float = Field(1.0, ge=0, description="Weight of the force term of the loss.")
    gradient_clip: float = Field(10.0, gt=0, description="Largest gradient norm of a member; longer ones are cut.")
    warm_start: bool = Field(True, description="Start from the weights of the previous iteration.")
    checkpoint_every_epochs: int = Field(10, ge=1, description="A killed training repeats at most this many epochs.")

    @model_validator(mode="after")
    def _consistent(self) -> TrainingConfig:
        if self.energy_weight == 0 and self.force_weight == 0:
            raise ValueError("energy_weight and force_weight are both 0, so there is nothing to learn; raise one")
        if self.min_learning_rate >= self.learning_rate:
            raise ValueError(
                f"min_learning_rate ({self.min_learning_rate}) must be below learning_rate ({self.learning_rate})"
            )
        return self
