"""Sparse Gaussian process of atoms' energies in closed form: no optimiser of weights, forces as exact observations.

With inducing values ``u = L v`` (``L L^T = k(Z, Z)``, ``v ~ N(0, I)``) every energy and every force is linear in ``v``:
an energy has the row ``a = L^-1 sum_i k(Z, h_i)``, a force ``a = -L^-1 sum_i dk(Z, h_i)/dr``, one sweep of the network
for each inducing point. So the posterior is that of Bayesian linear regression (deterministic training conditional,
Quiñonero-Candela & Rasmussen 2005, https://www.jmlr.org/papers/v6/quinonero-candela05a.html):
``P = I + A_E A_E^T / s_E^2 + A_F A_F^T / s_F^2``, ``v | y ~ N(P^-1 b, P^-1)``. Lengthscale, outputscale and both noises
are those of largest evidence. What it says of other structures is what ``svgp`` says: the same posterior, the same
draws for forces.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dubito.config.methods import SparseGpConfig
from dubito.config.uncertainty import UncertaintyConfig
from dubito.core.errors import ModelError
from dubito.core.logs import get_logger
from dubito.core.random import generator
from dubito.data.prediction import Array
from dubito.data.structures import Structures
from dubito.model.potential import Potential
from dubito.model.predict import chunks
from dubito.uncertainty.gaussian_process import (
    N_FEATURES,
    GaussianProcessUncertainty,
    about_their_mean,
    energies_of_atoms_removed,
    energy_scale,
    function_forces,
)
from dubito.uncertainty.inducing import choose_inducing, initial_lengthscale
from dubito.uncertainty.latent_kernels import LatentKernel
from dubito.uncertainty.latents import latents_of, member_graph
from dubito.uncertainty.sparse_posterior import (
    KERNEL_VALUES,
    SparsePosterior,
    covariance_factor,
    inducing_factor,
    summed_covariances,
    whiten,
)
from dubito.uncertainty.standardiser import Standardiser

log = get_logger(__name__)
# Lengthscales tried, in units of the first; how many structures' forces choose among them.
LENGTHSCALES = (0.5, 1.0, 2.0, 4.0)
STRUCTURES_TO_CHOOSE = 20
# Atoms whose force rows are made at once, fewer where there are many inducing points; and functions swept at once.
ATOMS_PER_CHUNK = 512
FUNCTIONS = 32
# Bounds of the logarithms of the outputscale and of both noises over what they start from: a noise of 1e-4 of what it
# is noise of is below that of any label, and far beyond there is nothing left to factorise but rounding.
LOWEST, HIGHEST = np.array([-12.0, -18.5, -18.5]), np.array([12.0, 5.0, 5.0])
# Energies or forces that hardly differ count as this share of the other at least, in squares.
LEAST_SHARE = 1e-6


@dataclass
class Observed:
    """Sums over observations of one kind: ``a a^T`` (m, m), ``a y`` (m,), ``y y``, their number."""

    gram: Array
    moment: Array
    square: float
    count: int

    @classmethod
    def none(cls, m: int) -> Observed:
        """Return sums over nothing."""
        return cls(np.zeros((m, m)), np.zeros(m), 0.0, 0)

    def add(self, rows: Array, values: Array) -> None:
        """Add rows (k, m) with values (k,)."""
        self.gram += rows.T @ rows
        self.moment += rows.T @ values
        self.square += float(values @ values)
        self.count += len(values)


@dataclass(frozen=True)
class Evidence:
    """The model of largest evidence: variances of the function and of both noises, in the target's units squared."""

    log_evidence: float
    outputscale: float
    energy_noise: float
    force_noise: float


def precision(energy: Observed, forces: Observed, e: Evidence) -> tuple[Array, Array]:
    """Return the posterior precision (m, m) of ``v`` and ``b`` (m,), for rows made with unit outputscale."""
    s = e.outputscale
    p = np.eye(len(energy.moment)) + s * (energy.gram / e.energy_noise + forces.gram / e.force_noise)
    return p, np.sqrt(s) * (energy.moment / e.energy_noise + forces.moment / e.force_noise)


def log_evidence(energy: Observed, forces: Observed, e: Evidence) -> float:
    """Return the logarithm of the marginal likelihood (Rasmussen & Williams 2006, eq. 2.30, by the matrix lemma).

    It is minus infinity where rounding hides the prior in the precision, which is 1 and more, and so is the diagonal
    of its factor.
    """
    p, b = precision(energy, forces, e)
    try:
        factor = np.linalg.cholesky(p)
    except np.linalg.LinAlgError:
        return -np.inf
    if not float(np.diag(factor).min()) > 0.9:
        return -np.inf
    a = np.linalg.solve(factor, b)
    fit = energy.square / e.energy_noise + forces.square / e.force_noise - float(a @ a)
    volume = 2 * float(np.sum(np.log(np.diag(factor))))
    noise = energy.count * np.log(e.energy_noise) + forces.count * np.log(e.force_noise)
    total = energy.count + forces.count
    return -0.5 * (fit + volume + float(noise) + total * float(np.log(2 * np.pi)))


def largest_evidence(energy: Observed, forces: Observed) -> Evidence:
    """Return the variances that maximise the evidence.

    Raises
    ------
    ModelError
        When the evidence is no number anywhere.
    """
    from scipy.optimize import minimize

    mean_squares = np.array([seen.square / max(seen.count, 1) for seen in (energy, forces)])
    first = np.maximum(mean_squares, LEAST_SHARE * float(mean_squares.max()) or 1.0)

    def at(x: Array) -> Evidence:
        s, e, f = np.exp(np.clip(x, LOWEST, HIGHEST))
        return Evidence(0.0, float(s), float(e * first[0]), float(f * first[1]))

    def loss(x: Array) -> float:
        value = log_evidence(energy, forces, at(x))
        return -value if np.isfinite(value) else 1e300

    start = np.array([0.0, -4.0, -4.0])
    # Steps of one e-fold: scipy's own would be a share of each coordinate, all but nothing where it is 0.
    simplex = np.vstack([start, start + np.eye(3)])
    options = {"xatol": 1e-3, "fatol": 1e-3, "initial_simplex": simplex}
    found = minimize(loss, start, method="Nelder-Mead", options=options)
    if not -found.fun > -1e300:
        raise ModelError(
            f"The evidence of a Gaussian process of {energy.count} energies and {forces.count} force components is not "
            "a finite number at any noise. Look for labels that are not finite or very large, or give it more training "
            "structures that differ."
        )
    best = at(found.x)
    return Evidence(-float(found.fun), best.outputscale, best.energy_noise, best.force_noise)


class SparseGpUncertainty(GaussianProcessUncertainty):
    """See the module and :class:`dubito.uncertainty.base.UncertaintyMethod`."""

    name: ClassVar[str] = "sparse_gp"

    def learn(self, train: Structures, unseen: Structures, *, seed: int, config: UncertaintyConfig) -> Structures:
        """Add up the rows and solve; the unseen structures are left to calibration."""
        own = config.sparse_gp
        order = generator(seed, self.name, "force rows").permutation(len(train))
        data = _Data.of(self.member, train, order[: own.max_force_structures])
        self.standardiser = data.standardiser
        self.scale_ev = data.scale_ev
        kernel, inducing = self._kernel(data, own, seed)
        energy, forces = data.observe(kernel, inducing)
        best = largest_evidence(energy, forces)
        p, b = precision(energy, forces, best)
        factor = covariance_factor(torch.as_tensor(p))
        mean = factor @ (factor.T @ torch.as_tensor(b))
        scaled = LatentKernel(kernel.kind, kernel.lengthscale, torch.tensor(best.outputscale, dtype=torch.float64))
        self.posterior = SparsePosterior(scaled, inducing, mean, factor)
        self.draws = self.posterior.draw(own.n_force_samples, N_FEATURES, generator(seed, self.name, "draws"))
        self.extra_evaluations = float(own.n_force_samples)
        self.about = {
            "kernel": own.kernel, "scale_ev": self.scale_ev, "n_draws": own.n_force_samples,
            "lengthscale": float(kernel.lengthscale), "log_evidence": best.log_evidence,
            "energy_noise_ev": self.scale_ev * best.energy_noise**0.5,
            "force_noise_ev_per_angstrom": self.scale_ev * best.force_noise**0.5,
        }  # fmt: skip
        log.info("sparse_gp: %s", self.about)
        return unseen

    def _kernel(self, data: _Data, own: SparseGpConfig, seed: int) -> tuple[LatentKernel, Tensor]:
        """Return the kernel of unit variance and the inducing points."""
        one = torch.ones((), dtype=torch.float64)
        if own.kernel == "linear":
            return LatentKernel("linear", one, one), torch.eye(data.latent.shape[1], dtype=torch.float64)
        numbers = data.train.atomic_numbers
        points = choose_inducing(data.latent, numbers, own.n_inducing, seed)
        first, inducing = initial_lengthscale(data.latent, numbers, points), torch.as_tensor(points)
        kernels = [LatentKernel(own.kernel, one * (first * factor), one) for factor in LENGTHSCALES]
        few = data.fewer(STRUCTURES_TO_CHOOSE)
        values = [largest_evidence(*few.observe(kernel, inducing)).log_evidence for kernel in kernels]
        return kernels[int(np.argmax(values))], inducing


@dataclass(frozen=True)
class _Data:
    """Training structures as targets of the process: energies about their mean per atom, forces of some.

    Attributes
    ----------
    latent : (N, d) standardised
    energy : (n,) in eV
    scale_ev : what energies are divided by
    with_forces : rows of the structures whose forces are looked at, ascending
    """

    member: Potential
    train: Structures
    standardiser: Standardiser
    latent: Array
    energy: Array
    scale_ev: float
    with_forces: Array

    @classmethod
    def of(cls, member: Potential, train: Structures, with_forces: Array) -> _Data:
        """Evaluate the network's latents, once."""
        features = latents_of(member, train)
        standardiser = Standardiser.fit(features)
        energy = about_their_mean(energies_of_atoms_removed(train, member), train.n_atoms)
        scale = energy_scale(energy, member)
        return cls(member, train, standardiser, standardiser.apply(features), energy, scale, np.sort(with_forces))

    def fewer(self, n: int) -> _Data:
        """Return the same with the forces of ``n`` structures."""
        pick = np.linspace(0, len(self.with_forces) - 1, min(n, len(self.with_forces))).astype(int)
        return replace(self, with_forces=self.with_forces[pick])

    def observe(self, kernel: LatentKernel, inducing: Tensor) -> tuple[Observed, Observed]:
        """Return the sums over energies and over forces, rows whitened; of some atoms at a time."""
        factor, m = inducing_factor(kernel, inducing), len(inducing)
        energy, forces = Observed.none(m), Observed.none(m)
        for part in chunks(self.train.n_atoms, max(1, KERNEL_VALUES // m)):
            ptr = torch.as_tensor(self.train.ptr[part[0] : part[-1] + 2] - self.train.ptr[part[0]])
            rows = summed_covariances(kernel, self._latent(part), inducing, ptr)
            energy.add(whiten(factor, rows.T).T.numpy(), self.energy[part] / self.scale_ev)
        for part in chunks(self.train.n_atoms[self.with_forces], max(1, min(ATOMS_PER_CHUNK, KERNEL_VALUES // m // 3))):
            rows = self._force_rows(self.with_forces[part], kernel, inducing)
            target = self.train[self.with_forces[part]].forces.ravel() / self.scale_ev
            forces.add(whiten(factor, rows).T.numpy(), target)
        return energy, forces

    def _force_rows(self, structures: Array, kernel: LatentKernel, inducing: Tensor) -> Tensor:
        """Return the forces (m, 3 N) of the functions ``k(., Z_m)``."""
        graph, latent = member_graph(self.member, self.train[structures]), self._latent(structures)
        parts = []
        with torch.no_grad():
            for points in torch.split(inducing, FUNCTIONS):
                slopes = kernel.slopes(latent, points, torch.eye(len(points), dtype=torch.float64))
                parts.append(function_forces(self.member, graph, slopes, self.standardiser).flatten(1))
        return torch.cat(parts)

    def _latent(self, structures: Array) -> Tensor:
        ptr = self.train.ptr
        return torch.as_tensor(np.concatenate([self.latent[ptr[i] : ptr[i + 1]] for i in structures]))
