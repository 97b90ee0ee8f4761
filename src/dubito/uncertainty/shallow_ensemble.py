"""Shallow ensemble: several readouts on one trunk, trained with the likelihood of energies and forces.

Kellner and Ceriotti 2024 (https://doi.org/10.1088/2632-2153/ad594a); that the likelihood must hold forces too, and
that a Laplace approximation is a good start: https://arxiv.org/abs/2602.15747. Here the trunk is the first member as
it was trained and stays fixed, and the readouts deviate from its readout by ``delta_s`` with ``sum_s delta_s = 0``:
the mean prediction is not changed, and training costs one pass for the rows and then no network at all. What is
learnt is the covariance of the readout, of rank ``n_heads - 1``, that explains the residuals best, where
:mod:`dubito.uncertainty.last_layer` derives it from the rows alone.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from dubito.config.methods import ShallowEnsembleConfig
from dubito.config.uncertainty import UncertaintyConfig
from dubito.core.random import generator
from dubito.data.prediction import Array, Prediction
from dubito.data.structures import Structures
from dubito.uncertainty.deviations import Deviations
from dubito.uncertainty.last_layer import linear_deviations, linear_doubt, matrix_root, readout_covariance
from dubito.uncertainty.method import Doubt, FittedMethod, Tensors
from dubito.uncertainty.rows import Readout, Rows

# Standard deviations below this share of the rms residual are not told apart.
_FLOOR = 0.01


class ShallowEnsembleUncertainty(FittedMethod):
    """See :class:`dubito.uncertainty.base.UncertaintyMethod`."""

    name: ClassVar[str] = "shallow_ensemble"
    targets: ClassVar[frozenset[str]] = frozenset({"energy", "energies", "forces"})
    is_sigma: ClassVar[bool] = True

    # Set by learn or restore: (d, n_heads) deviations over the root of n_heads - 1.
    root: Array
    readout: Readout
    about: dict[str, Any]

    def learn(self, train: Structures, unseen: Structures, *, seed: int, config: UncertaintyConfig) -> Structures:
        """Train the readouts from a draw of the Laplace approximation."""
        settings = config.shallow_ensemble
        order = generator(seed, self.name, "structures").permutation(len(train))
        part = train[np.sort(order[: settings.max_structures])]
        self.readout = Readout.of(self.member, train)
        covariance, about = readout_covariance(self.readout, part, len(part), seed)
        draw = generator(seed, self.name, "heads").normal(size=(len(covariance), settings.n_heads))
        data = _join(list(self.readout.pieces(part)))
        self.root, history = train_heads(matrix_root(covariance) @ draw, data, part.n_atoms, settings)
        self.extra_evaluations = float(settings.n_heads)
        self.about = {"laplace": about, "nll_first": history[0], "nll_last": history[-1]}
        return unseen

    def doubt(self, structures: Structures, prediction: Prediction) -> Doubt:
        """Return the spread of the readouts."""
        return linear_doubt(self.readout, structures, prediction, self.root, self.root)

    def doubt_and_deviations(self, structures: Structures, prediction: Prediction) -> tuple[Doubt, Deviations]:
        """Return the spread of the readouts, and their calibrated deviations."""
        rows = self.readout.force_rows(structures, self.root)
        doubt = linear_doubt(self.readout, structures, prediction, self.root, self.root, rows)
        return doubt, linear_deviations(self.readout, structures, prediction, self.root, rows, self._fitted().factor)

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Return the heads and the centres of the features."""
        return {"root": self.root, "centers": self.readout.centers}, self.about

    def restore(self, tensors: Tensors, settings: dict[str, Any]) -> None:
        """Take them back."""
        self.root, self.readout = tensors["root"], Readout(self.member, tensors["centers"])
        self.about = settings
        self.extra_evaluations = float(self.root.shape[1])


def train_heads(start: Array, rows: Rows, n_atoms: Array, settings: ShallowEnsembleConfig) -> tuple[Array, list[float]]:
    """Return the deviations of the readouts over the root of ``n_heads - 1``, (d, n_heads), and the losses.

    The loss is the negative log-likelihood of residuals as Gaussian: each energy with the variance of its heads, each
    force with that of its heads pooled over the three components. All rows at once (they are few), Adam.
    """
    heads = start.shape[1]
    forces = torch.as_tensor(rows.forces.reshape(-1, len(start)))
    energy, e2 = torch.as_tensor(rows.energy), torch.as_tensor(rows.energy_residual**2)
    f2 = torch.as_tensor(np.sum(rows.force_residual**2, axis=1))
    floor = _FLOOR**2 * torch.stack([e2.mean(), f2.mean() / 3]) + torch.finfo(torch.float64).tiny
    # In units of the draw, which is first given the size of the residuals: one learning rate fits every model.
    size = float(np.sqrt(np.mean(start**2))) or 1.0
    free = torch.as_tensor(start / size).clone().requires_grad_()
    log_scale = torch.zeros((), dtype=torch.float64, requires_grad=True)

    def root() -> Tensor:
        centred = free - free.mean(1, keepdim=True)
        return torch.as_tensor(centred * (size * log_scale.exp() / (heads - 1) ** 0.5))

    with torch.no_grad():
        spread = (forces @ root()).square().sum(1).mean()
        log_scale.copy_(0.5 * torch.log(f2.mean() / 3 / spread.clamp_min(1e-300)))
    optimizer = torch.optim.Adam([free, log_scale], lr=settings.learning_rate)

    history = []
    for _ in range(settings.epochs):
        spread = root()
        of_forces = (forces @ spread).square().sum(1).view(-1, 3).mean(1) + floor[1]
        of_energy = (energy @ spread).square().sum(1) + floor[0]
        nll_forces = 0.5 * (f2 / of_forces) + 1.5 * of_forces.log()
        nll_energy = 0.5 * (e2 / of_energy) + 0.5 * of_energy.log()
        loss = (nll_forces.sum() + nll_energy.sum()) / (3 * float(n_atoms.sum()) + len(n_atoms))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        history.append(float(loss.detach()))
    out: Array = root().detach().numpy()
    return out, history


def _join(parts: list[Rows]) -> Rows:
    names = ("atoms", "energy", "forces", "energy_residual", "force_residual")
    return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
