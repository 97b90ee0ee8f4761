"""What both sparse Gaussian processes say once their posterior is known.

The energy of a structure is the sum of its atoms' values, with their joint covariance. Raw doubt: of an atom's energy
its posterior standard deviation, of a structure's energy that of the sum, of forces the spread of those of a few
fixed draws from the posterior (exact energy derivatives, one sweep of the network each).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from dubito.data.graphs import Graph
from dubito.data.prediction import Array, Prediction
from dubito.data.statistics import composition
from dubito.data.structures import Structures
from dubito.model.potential import Potential
from dubito.model.predict import chunks
from dubito.model.readouts import latent_forces
from dubito.uncertainty.latent_kernels import LatentKernel, RandomFeatures
from dubito.uncertainty.latents import member_graph
from dubito.uncertainty.method import Doubt, FittedMethod, Tensors
from dubito.uncertainty.sparse_posterior import PosteriorDraws, SparsePosterior
from dubito.uncertainty.standardiser import Standardiser

# Cosines that a draw from the prior is made of.
N_FEATURES = 512
ATOMS_PER_CHUNK = 2048
# Energies that differ by less, relative to the force scale times 1 Å, are alike.
ALIKE = 1e-6


def function_forces(member: Potential, graph: Graph, slopes: Tensor, standardiser: Standardiser) -> Tensor:
    """Return the forces of functions with given slopes by the standardised latents; the network is the member's.

    Parameters
    ----------
    graph : of :func:`dubito.uncertainty.latents.member_graph`, on the member's device
    slopes : (S, N, d) float64, wherever they are

    Returns
    -------
    (S, N, 3) float64 on the CPU, differentiable by the slopes.
    """
    slopes = slopes / torch.as_tensor(standardiser.scale, device=slopes.device)
    return latent_forces(member, graph, slopes.to(graph.vectors.device, member.dtype)).double().cpu()


def energies_of_atoms_removed(structures: Structures, potential: Potential) -> Array:
    """Return energies (n,) in eV less the potential's shifts of their elements."""
    out: Array = (
        structures.energy - composition(structures, potential.species) @ potential.statistics.atomic_energies_ev
    )
    return out


def about_their_mean(energy: Array, n_atoms: Array) -> Array:
    """Return energies (n,) less their mean per atom times the number of atoms: the processes have zero mean."""
    out: Array = energy - n_atoms * (energy.sum() / n_atoms.sum())
    return out


def energy_scale(energy: Array, potential: Potential) -> float:
    """Return the standard deviation of energies; where all are alike, of one structure say, the forces' x 1 Å."""
    spread, forces = float(energy.std()), potential.statistics.force_scale_ev_per_angstrom
    return spread if spread > ALIKE * forces else forces


class GaussianProcessUncertainty(FittedMethod):
    """A sparse Gaussian process of atoms' energies on the latents of one member; subclasses learn the posterior.

    Attributes
    ----------
    standardiser : of the latents
    posterior, draws : in units of ``scale_ev``
    about : what :meth:`state` saves beside them; holds ``kernel``, ``scale_ev`` and ``n_draws``
    """

    targets: ClassVar[frozenset[str]] = frozenset({"energy", "energies", "forces"})
    is_sigma: ClassVar[bool] = True
    standardiser: Standardiser
    posterior: SparsePosterior
    draws: PosteriorDraws
    scale_ev: float
    about: dict[str, Any]

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
        standard = torch.as_tensor(self.standardiser.apply(latent))
        _, atoms = self.posterior.atoms(standard)
        _, sums = self.posterior.sums(standard, torch.as_tensor(structures.ptr))
        slopes = self.scale_ev * self.draws.slopes(self.posterior, standard)
        forces = function_forces(self.member, member_graph(self.member, structures), slopes, self.standardiser)
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
