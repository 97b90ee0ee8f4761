"""Sparse variational Gaussian process of atoms' energies on the latents of one member (deep kernel, frozen network).

The energy of a structure is the sum of its atoms' values, with their joint covariance. Raw doubt: of an atom's energy
its posterior standard deviation, of a structure's energy that of the sum, of forces the spread of those of a few
fixed draws from the posterior (exact energy derivatives, one sweep of the network each).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from dubito.config.methods import SvgpConfig
from dubito.config.uncertainty import UncertaintyConfig
from dubito.core.logs import get_logger
from dubito.core.random import generator
from dubito.data.graphs import build_graph
from dubito.data.prediction import Array, Prediction
from dubito.data.statistics import composition
from dubito.data.structures import Structures
from dubito.model.predict import chunks
from dubito.model.readouts import latent_forces
from dubito.uncertainty.inducing import Standardiser, choose_inducing, initial_lengthscale, random_inducing
from dubito.uncertainty.latent_kernels import LatentKernel, RandomFeatures
from dubito.uncertainty.method import Doubt, FittedMethod, Tensors
from dubito.uncertainty.sparse_posterior import PosteriorDraws, SparsePosterior

log = get_logger(__name__)
# Cosines that a draw from the prior is made of.
N_FEATURES = 512
ATOMS_PER_CHUNK = 2048
# The first lengthscale over the distance of atoms about one inducing point, which are finer than environments: what is
# learnt must carry from one point to the next. Chosen on 60 calibration frames of 3BPA from 1, 3 and 6.
REACH = 3.0


class VariationalGpUncertainty(FittedMethod):
    """See the module and :class:`dubito.uncertainty.base.UncertaintyMethod`."""

    name: ClassVar[str] = "svgp"
    targets: ClassVar[frozenset[str]] = frozenset({"energy", "energies", "forces"})
    is_sigma: ClassVar[bool] = True
    standardiser: Standardiser
    posterior: SparsePosterior
    draws: PosteriorDraws
    scale_ev: float
    about: dict[str, Any]

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
        spread = float(energy.std())
        if spread <= 0:
            # One structure, or all alike: forces have a scale too.
            spread = self.potential.statistics.force_scale_ev_per_angstrom
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
            atoms = composition(train, self.potential.species) @ self.potential.statistics.atomic_energies_ev
            energy, forces = train.energy - atoms, train.forces
        return energy - train.n_atoms * (energy.sum() / train.n_atoms.sum()), forces

    @staticmethod
    def _inducing(latent: Array, train: Structures, config: SvgpConfig, seed: int) -> tuple[Array, float | None]:
        """Return the inducing points, and the first lengthscale where the data choose it."""
        if config.kernel == "linear":
            return np.eye(latent.shape[1]), None
        spread = choose_inducing(latent, train.atomic_numbers, config.n_inducing, seed)
        lengthscale = REACH * initial_lengthscale(latent, train.atomic_numbers, spread)
        points = spread if config.inducing == "spread" else random_inducing(latent, config.n_inducing, seed)
        return points, lengthscale if config.lengthscale == "data" else None

    def doubt(self, structures: Structures, prediction: Prediction) -> Doubt:
        """Return posterior standard deviations."""
        parts = []
        latent = np.zeros((0, self.posterior.inducing.shape[1])) if prediction.latent is None else prediction.latent
        with torch.no_grad():
            for rows in chunks(structures.n_atoms, ATOMS_PER_CHUNK):
                atoms = slice(int(structures.ptr[rows[0]]), int(structures.ptr[rows[-1] + 1]))
                parts.append(self._doubt(structures[rows], latent[atoms]))
        if not parts:
            return Doubt(np.zeros(0), np.zeros(0), np.zeros(0))
        forces, energies, energy = (np.concatenate(values) for values in zip(*parts, strict=True))
        return Doubt(forces, energies, energy)

    def _doubt(self, structures: Structures, latent: Array) -> tuple[Array, Array, Array]:
        member = self.member
        device = next(member.parameters()).device
        standard = torch.as_tensor(self.standardiser.apply(latent))
        _, atoms = self.posterior.atoms(standard)
        _, sums = self.posterior.sums(standard, torch.as_tensor(structures.ptr))
        slopes = self.scale_ev * self.draws.slopes(self.posterior, standard)
        slopes = slopes / torch.as_tensor(self.standardiser.scale)
        graph = build_graph(structures, member.species, member.config.r_max_angstrom, member.dtype, device)
        forces = latent_forces(member, graph, slopes.to(device, member.dtype)).double().cpu()
        # Draws are deviations from the mean, which is known: no degree of freedom is lost to it.
        spread = forces.square().mean(dim=(0, 2)).sqrt()
        return _numpy(spread), self.scale_ev * _numpy(atoms.sqrt()), self.scale_ev * _numpy(sums.sqrt())

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Return the posterior and the draws."""
        posterior, prior = self.posterior, self.draws.prior
        tensors = {
            "lengthscale": posterior.kernel.lengthscale, "outputscale": posterior.kernel.outputscale,
            "inducing": posterior.inducing, "mean": posterior.mean, "factor": posterior.factor,
            "draws.frequencies": prior.frequencies, "draws.phases": prior.phases, "draws.weights": prior.weights,
            "draws.update": self.draws.update,
        }  # fmt: skip
        latents = {f"standardiser.{key}": value for key, value in self.standardiser.state().items()}
        return {key: _numpy(value) for key, value in tensors.items()} | latents, self.about

    def restore(self, tensors: Tensors, settings: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        t = {key: torch.as_tensor(value) for key, value in tensors.items()}
        kind = settings["kernel"]
        self.about = dict(settings)
        self.scale_ev = float(settings["scale_ev"])
        self.extra_evaluations = float(settings["n_draws"])
        self.standardiser = Standardiser(tensors["standardiser.mean"], tensors["standardiser.scale"])
        kernel = LatentKernel(kind, t["lengthscale"].reshape(()), t["outputscale"].reshape(()))
        self.posterior = SparsePosterior(kernel, t["inducing"], t["mean"], t["factor"])
        prior = RandomFeatures(kind, t["draws.frequencies"], t["draws.phases"], t["draws.weights"])
        self.draws = PosteriorDraws(prior, t["draws.update"])


def _numpy(tensor: Tensor) -> Array:
    out: Array = tensor.detach().cpu().numpy()
    return out
