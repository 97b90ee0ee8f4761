"""Learning rates and early stopping, member by member."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dubito.config.training import TrainingConfig


class Schedule:
    """Lower a member's rate, and stop it when nothing helps any more.

    ``plateau``: the rate is cut when the validation loss has not fallen for some epochs. ``cosine``: it follows half
    a cosine over all epochs to ``FINAL_SHARE`` of its start (https://arxiv.org/abs/1608.03983, without restarts).
    """

    FINAL_SHARE = 0.01

    def __init__(self, n_members: int, config: TrainingConfig, n_epochs: int) -> None:
        self.config, self.n_epochs = config, n_epochs
        self.epoch = 0
        self.best = torch.full((n_members,), torch.inf, dtype=torch.float64)
        self.since_best = torch.zeros(n_members, dtype=torch.int64)
        self.since_cut = torch.zeros(n_members, dtype=torch.int64)
        self.rate = torch.full((n_members,), config.learning_rate, dtype=torch.float64)
        self.active = torch.ones(n_members, dtype=torch.bool)

    def update(self, validation_loss: Tensor) -> Tensor:
        """Take the losses (M,) of an epoch; return which members improved (M,) bool."""
        loss = validation_loss.to(torch.float64).cpu()
        better = (loss < self.best) & self.active
        self.best = torch.where(better, loss, self.best)
        self.since_best = torch.where(better, 0, self.since_best + 1)
        self.since_cut = torch.where(better, 0, self.since_cut + 1)
        self.epoch += 1
        plateau = self.config.schedule == "plateau"
        cut = (self.since_cut >= self.config.plateau_patience_epochs) & plateau
        self.rate = torch.where(cut, self.rate * self.config.plateau_factor, self.rate)
        self.since_cut = torch.where(cut, 0, self.since_cut)
        exhausted = (self.rate < self.config.min_learning_rate) | (self.since_best >= self.config.early_stopping_epochs)
        self.active &= ~exhausted
        return better

    def slow_down(self, members: Tensor, factor: float = 0.5) -> None:
        """Lower the rate of some members (boolean mask), after a roll-back."""
        self.rate = torch.where(members, self.rate * factor, self.rate)

    def stop(self, members: Tensor) -> None:
        """End the training of some members (boolean mask)."""
        self.active &= ~members

    def learning_rate(self) -> Tensor:
        """Return the rate of each member, 0 for those that have stopped."""
        share = 1.0
        if self.config.schedule == "cosine":
            half = 0.5 * (1 + math.cos(math.pi * min(1.0, self.epoch / self.n_epochs)))
            share = self.FINAL_SHARE + (1 - self.FINAL_SHARE) * half
        return torch.where(self.active, self.rate * share, 0.0)

    def state(self) -> dict[str, Tensor]:
        """Return the tensors a checkpoint needs."""
        tensors = {name: getattr(self, name) for name in ("best", "since_best", "since_cut", "rate", "active")}
        return tensors | {"epoch": torch.tensor(self.epoch)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take the tensors of a checkpoint."""
        for name in ("best", "since_best", "since_cut", "rate", "active"):
            setattr(self, name, state[name].clone())
        self.epoch = int(state["epoch"])
