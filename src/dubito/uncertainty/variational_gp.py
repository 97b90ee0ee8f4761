"""Sparse variational Gaussian process of atoms' energies on the latents of one member (deep kernel, frozen network).

Trained by :mod:`dubito.uncertainty.variational_training`; what it says then is in
:mod:`dubito.uncertainty.gaussian_process`.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from dubito.config.methods import SvgpConfig
from dubito.config.uncertainty import UncertaintyConfig
from dubito.core.logs import get_logger
from dubito.core.random import generator
from dubito.data.prediction import Array, Prediction
from dubito.data.structures import Structures
from dubito.uncertainty.gaussian_process import (
    N_FEATURES,
    GaussianProcessUncertainty,
    about_their_mean,
    energies_of_atoms_removed,
    energy_scale,
)
from dubito.uncertainty.inducing import choose_inducing, initial_lengthscale, random_inducing
from dubito.uncertainty.latent_kernels import LatentKernel
from dubito.uncertainty.sparse_posterior import SparsePosterior
from dubito.uncertainty.standardiser import Standardiser

log = get_logger(__name__)
# The first lengthscale over the distance of atoms about one inducing point, which are finer than environments: what is
# learnt must carry from one point to the next. Chosen on 60 calibration frames of 3BPA from 1, 3 and 6.
REACH = 3.0


class VariationalGpUncertainty(GaussianProcessUncertainty):
    """See the module and :class:`dubito.uncertainty.base.UncertaintyMethod`."""

    name: ClassVar[str] = "svgp"

    def learn(self, train: Structures, unseen: Structures, *, seed: int, config: UncertaintyConfig) -> Structures:
        """Train; the unseen structures are left to calibration.

        Raises
        ------
        ModelError
            When training diverges.
        DataError
            When there are no atoms or latents are not finite.
        """
        from dubito.uncertainty.variational_training import AtomGp, Observations, VariationalTrainer

        own = config.svgp
        prediction = self.member.predict(train)
        features = np.asarray(prediction.latent, "f8")
        whole = Standardiser.fit(features)
        self.standardiser = whole if own.standardise else Standardiser.identity(features.shape[1])
        latent = self.standardiser.apply(features)
        energy, forces = self._targets(train, prediction, own)
        spread = energy_scale(energy, self.potential)
        self.scale_ev = spread if own.scale_target else 1.0
        data = Observations(train, latent, self.standardiser, energy / self.scale_ev, forces / self.scale_ev)
        points, lengthscale = self._inducing(latent, train, own, seed)
        model = AtomGp(points, own.kernel, learn_inducing=own.learn_inducing)
        # A sum of N atoms has N times the variance of one, were they independent.
        variance = (spread / self.scale_ev) ** 2 / float(train.n_atoms.mean())
        model.start(lengthscale=lengthscale, outputscale=variance if own.initialise_scales else None)
        losses = VariationalTrainer(self.member, data, model, own, seed=seed).run()
        with torch.no_grad():
            p = model.posterior()
            kernel = LatentKernel(p.kernel.kind, p.kernel.lengthscale.clone(), p.kernel.outputscale.clone())
            self.posterior = SparsePosterior(kernel, p.inducing.clone(), p.mean.clone(), p.factor.clone())
            self.draws = self.posterior.draw(own.n_force_samples, N_FEATURES, generator(seed, "svgp", "draws"))
        self.extra_evaluations = float(own.n_force_samples)
        self.about = {"kernel": own.kernel, "scale_ev": self.scale_ev, "n_draws": own.n_force_samples,
                      "first_lengthscale": lengthscale, "last_loss": losses[-1]}  # fmt: skip
        log.info("svgp: %d inducing points, lengthscale %.3g, loss %.4g", len(points), float(kernel.lengthscale),
                 losses[-1])  # fmt: skip
        return unseen

    def _targets(self, train: Structures, prediction: Prediction, config: SvgpConfig) -> tuple[Array, Array]:
        """Return what is learnt: energies (n,) in eV about their mean per atom, and forces (N, 3) in eV/Å."""
        if config.target == "residual":
            energy, forces = train.energy - prediction.energy, train.forces - prediction.forces
        else:
            energy, forces = energies_of_atoms_removed(train, self.potential), train.forces
        return about_their_mean(energy, train.n_atoms), forces

    @staticmethod
    def _inducing(latent: Array, train: Structures, config: SvgpConfig, seed: int) -> tuple[Array, float | None]:
        """Return the inducing points, and the first lengthscale where the data choose it."""
        if config.kernel == "linear":
            return np.eye(latent.shape[1]), None
        spread = choose_inducing(latent, train.atomic_numbers, config.n_inducing, seed)
        lengthscale = REACH * initial_lengthscale(latent, train.atomic_numbers, spread)
        points = spread if config.inducing == "spread" else random_inducing(latent, config.n_inducing, seed)
        return points, lengthscale if config.lengthscale == "data" else None
