"""Heads that turn an atom's invariant latents into the parameters of its force error, and how they are fitted.

All in force units of the network (its rms force component), so that nothing depends on the unit of energy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from dubito.config.methods import EvidentialConfig
from dubito.core.random import generator, seed_for
from dubito.uncertainty.evidential_loss import (
    NormalInverseGamma,
    error_norm,
    evidence_penalty,
    flatness_penalty,
    from_activations,
    negative_log_likelihood,
)
from dubito.uncertainty.evidential_reach import Reach

# Atoms of one optimiser step, and steps at least: small sets get more epochs than asked for.
BATCH, MIN_STEPS = 1024, 2000
# Decay of the average of the weights, which is what is kept.
EMA_DECAY = 0.98
# Share of the structures that decide when to stop; with fewer than this many structures none do.
HELD_OUT_SHARE, MIN_STRUCTURES_TO_HOLD_OUT = 0.2, 10
# softplus of it is one.
ONE = math.log(math.e - 1)


@dataclass(frozen=True)
class ForceErrors:
    """What heads are fitted to, N atoms, float64.

    Attributes
    ----------
    latent : (N, d)
    species : (N,) int64, index into the network's species; structure : (N,) int64, which one the atom belongs to
    squared : (N,) squared length of the force error, in squared force units of the network
    """

    latent: Tensor
    species: Tensor
    structure: Tensor
    squared: Tensor

    def take(self, rows: Tensor) -> ForceErrors:
        """Return some atoms."""
        return ForceErrors(self.latent[rows], self.species[rows], self.structure[rows], self.squared[rows])


class Heads(nn.Module):
    """Three numbers per atom from its latents, float64.

    With ``config.mind_distance`` they know how far the training atoms are: :mod:`dubito.uncertainty.evidential_reach`.
    """

    def __init__(self, n_latent: int, n_species: int, config: EvidentialConfig) -> None:
        super().__init__()
        self.config, self.reach = config, Reach(n_latent, n_species)
        hidden = config.hidden
        self.inner = nn.Linear(n_latent, hidden, dtype=torch.float64) if hidden else None
        self.outer = nn.Linear(hidden or n_latent, 3, dtype=torch.float64)

    def initialise(self, errors: ForceErrors, seed: int) -> None:
        """Take the distribution of the latents and the mean variance of the data; draw the weights."""
        self.reach.fit(errors.latent, errors.species)
        random = torch.Generator().manual_seed(seed_for(seed, "evidential", "heads"))
        with torch.no_grad():
            if self.inner is not None:
                draw = torch.randn(self.inner.weight.shape, generator=random, dtype=torch.float64)
                self.inner.weight.copy_(draw / math.sqrt(draw.shape[1]))
                self.inner.bias.zero_()
            self.outer.weight.zero_()
            # nu = 1 and alpha = 2 at the start: the total is 2 beta, which beta makes the data's.
            variance = float(errors.squared.mean()) / 3
            self.outer.bias.copy_(torch.tensor([ONE, ONE, _inverse_softplus(variance / 2)], dtype=torch.float64))

    def place(self, latent: Tensor, species: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the heads read, (N, d), and what nu is divided by, (N,); no weight is in it."""
        if self.config.mind_distance:
            out: tuple[Tensor, Tensor] = self.reach(latent, species)
            return out
        x = self.reach.standardised(latent)
        return x, x.new_ones(len(x))

    def forward(self, x: Tensor, ratio: Tensor) -> tuple[Tensor, NormalInverseGamma]:
        """Return pre-activations (N, 3), and the distributions of the force errors in force units."""
        if self.inner is not None:
            x = silu(self.inner(x))
        raw: Tensor = self.outer(x)
        given = from_activations(raw, tie_nu_to_alpha=self.config.tie_nu_to_alpha)
        return raw, replace(given, nu=given.nu / ratio)

    def distributions(self, latent: Tensor, species: Tensor) -> NormalInverseGamma:
        """Return the distributions, not to be differentiated."""
        with torch.no_grad():
            out: tuple[Tensor, NormalInverseGamma] = self(*self.place(latent, species))
        return out[1]

    def prior(self) -> Tensor:
        """Return the negative log density of the weights under a unit Gaussian, but for a constant.

        What it costs is shared by the atoms: it keeps heads quiet that few atoms speak for.
        """
        layers = [layer for layer in (self.inner, self.outer) if layer is not None]
        return 0.5 * torch.stack([layer.weight.square().sum() for layer in layers]).sum()

    def loss(self, x: Tensor, ratio: Tensor, squared: Tensor) -> Tensor:
        """Return the loss of each atom (N,) with squared error (N,) in squared force units, from :meth:`place`."""
        raw, given = self(x, ratio)
        norm = error_norm(squared)
        loss = negative_log_likelihood(given, squared) + self.config.regulariser * evidence_penalty(given, norm)
        if self.config.uncertainty_regulariser:
            loss = loss + self.config.uncertainty_regulariser * flatness_penalty(raw, norm)
        return loss


def _inverse_softplus(value: float) -> float:
    # Below, softplus is the exponential to double precision.
    return math.log(math.expm1(value)) if value > 1e-12 else math.log(max(value, 1e-12))


def fit_heads(heads: Heads, errors: ForceErrors, seed: int) -> None:
    """Fit heads to force errors; their weights are averaged over the steps, and the best average is kept.

    A fifth of the structures decides which is best, by the likelihood alone; of few structures none are spared, and
    the last average is kept. Adam (https://arxiv.org/abs/1412.6980), the rate along half a cosine to zero.
    """
    config = heads.config
    heads.initialise(errors, seed)
    fitted, watched = _hold_out(errors, seed)
    parameters = list(heads.parameters())
    adam = torch.optim.Adam(parameters, lr=config.learning_rate)
    average = [p.detach().clone() for p in parameters]
    best, kept = math.inf, average
    per_epoch = math.ceil(len(fitted.squared) / BATCH)
    epochs = max(config.epochs, math.ceil(MIN_STEPS / per_epoch))
    steps, total = 0, epochs * per_epoch
    x, ratio = heads.place(fitted.latent, fitted.species)
    for epoch in range(epochs):
        order = torch.from_numpy(generator(seed, "evidential", "batches", epoch).permutation(len(fitted.squared)))
        for rows in torch.split(order, BATCH):
            for group in adam.param_groups:
                group["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * steps / total))
            adam.zero_grad()
            loss = heads.loss(x[rows], ratio[rows], fitted.squared[rows]).mean() + heads.prior() / len(x)
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            steps += 1
            follow(average, parameters, steps)
        if watched is not None:
            now = _likelihood(heads, average, watched)
            if now < best:
                best, kept = now, [p.clone() for p in average]
    put(parameters, average if watched is None else kept)


def follow(average: list[Tensor], parameters: list[nn.Parameter], steps: int, decay: float = EMA_DECAY) -> None:
    """Move the average towards the parameters; early on it must not remember the start."""
    share = 1 - min(decay, (1 + steps) / (10 + steps))
    for mean, parameter in zip(average, parameters, strict=True):
        mean.lerp_(parameter.detach(), share)


def put(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    """Give parameters their values."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data.copy_(value)


def _hold_out(errors: ForceErrors, seed: int) -> tuple[ForceErrors, ForceErrors | None]:
    names = torch.unique(errors.structure).numpy()
    if len(names) < MIN_STRUCTURES_TO_HOLD_OUT:
        return errors, None
    shuffled = generator(seed, "evidential", "held out").permutation(names)
    out = torch.from_numpy(np.isin(errors.structure.numpy(), shuffled[: int(HELD_OUT_SHARE * len(names))]))
    return errors.take(torch.nonzero(~out)[:, 0]), errors.take(torch.nonzero(out)[:, 0])


def _likelihood(heads: Heads, values: list[Tensor], errors: ForceErrors) -> float:
    """Return the mean negative log likelihood with other weights than the present ones."""
    parameters = list(heads.parameters())
    present = [p.detach().clone() for p in parameters]
    put(parameters, values)
    loss = float(negative_log_likelihood(heads.distributions(errors.latent, errors.species), errors.squared).mean())
    put(parameters, present)
    return loss
