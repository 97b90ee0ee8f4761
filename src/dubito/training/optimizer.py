"""Adam over flat rows: one row of parameters per member, each with its own learning rate."""

from __future__ import annotations

import torch
from torch import Tensor

from dubito.model.potential import Potential


class FlatParameters:
    """All parameters of a potential as views of one (M, P) tensor.

    One optimiser step, clipping, averaging and a checkpoint are then a handful of operations whatever
    the number of layers, and never mix members.
    """

    def __init__(self, potential: Potential) -> None:
        self._parameters = parameters = list(potential.parameters())
        members = potential.n_members
        self.rows = torch.cat([p.detach().reshape(members, -1) for p in parameters], dim=1).contiguous()
        self.gradient = torch.zeros_like(self.rows)
        start = 0
        for p in parameters:
            stop = start + p[0].numel()
            p.data = self.rows[:, start:stop].view(p.shape)
            p.requires_grad_()
            start = stop

    def differentiate(self, loss: Tensor) -> None:
        """Put the gradient of a loss (summed over members) into ``gradient``."""
        parts = torch.autograd.grad(loss, self._parameters)
        torch.cat([g.reshape(len(self.rows), -1) for g in parts], dim=1, out=self.gradient)

    def clip(self, largest: float) -> Tensor:
        """Cut the gradient of each member to a norm; return the norms before, (M,)."""
        norm: Tensor = torch.linalg.vector_norm(self.gradient, dim=1)
        self.gradient.mul_((largest / (norm + 1e-12)).clamp(max=1.0)[:, None])
        return norm


class Adam:
    """Adam or AMSGrad (https://arxiv.org/abs/1412.6980, https://arxiv.org/abs/1904.09237) on flat rows."""

    def __init__(
        self,
        parameters: FlatParameters,
        *,
        amsgrad: bool,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ) -> None:
        self.parameters, self.amsgrad, self.betas, self.epsilon = parameters, amsgrad, betas, epsilon
        rows = parameters.rows
        self.first, self.second, self.largest = (torch.zeros_like(rows) for _ in range(3))
        self.steps = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)

    def step(self, learning_rate: Tensor) -> None:
        """Move each member by its learning rate (M,); a rate of 0 leaves it where it is."""
        beta1, beta2 = self.betas
        gradient = self.parameters.gradient
        self.steps += 1
        self.first.lerp_(gradient, 1 - beta1)
        self.second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        second = self.second
        if self.amsgrad:
            torch.maximum(self.largest, self.second, out=self.largest)
            second = self.largest
        corrected = (1 - beta2**self.steps).sqrt().to(second.dtype)[:, None]
        size = (learning_rate / (1 - beta1**self.steps)).to(second.dtype)[:, None]
        self.parameters.rows.sub_(size * self.first / (second.sqrt() / corrected + self.epsilon))

    def reset(self, members: Tensor) -> None:
        """Forget the moments of some members (boolean mask)."""
        for state in (self.first, self.second, self.largest, self.steps):
            state[members] = 0

    def state(self) -> dict[str, Tensor]:
        """Return the tensors a checkpoint needs."""
        return {"first": self.first, "second": self.second, "largest": self.largest, "steps": self.steps}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take the tensors of a checkpoint."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
