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

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dubito.config.methods import SparseGpConfig
from dubito.config.uncertainty import UncertaintyConfig
from dubito.core.logs import get_logger
from dubito.core.random import generator
from dubito.data.graphs import build_graph
from dubito.data.prediction import Array
from dubito.data.statistics import composition
from dubito.data.structures import Structures
from dubito.model.potential import Potential
from dubito.model.predict import chunks
from dubito.model.readouts import latent_forces
from dubito.uncertainty.gaussian_process import N_FEATURES, GaussianProcessUncertainty
from dubito.uncertainty.inducing import choose_inducing, initial_lengthscale
from dubito.uncertainty.latent_kernels import LatentKernel
from dubito.uncertainty.sparse_posterior import SparsePosterior, inducing_factor, sums_over_atoms
from dubito.uncertainty.standardiser import Standardiser

log = get_logger(__name__)
# Lengthscales tried, in units of the first; how many structures' forces choose among them.
LENGTHSCALES = (0.5, 1.0, 2.0, 4.0)
STRUCTURES_TO_CHOOSE = 20
ATOMS_PER_CHUNK = 512


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
    """Return the logarithm of the marginal likelihood (Rasmussen & Williams 2006, eq. 2.30, by the matrix lemma)."""
    p, b = precision(energy, forces, e)
    factor = np.linalg.cholesky(p)
    a = np.linalg.solve(factor, b)
    fit = energy.square / e.energy_noise + forces.square / e.force_noise - float(a @ a)
    volume = 2 * float(np.sum(np.log(np.diag(factor))))
    noise = energy.count * np.log(e.energy_noise) + forces.count * np.log(e.force_noise)
    total = energy.count + forces.count
    return -0.5 * (fit + volume + float(noise) + total * float(np.log(2 * np.pi)))


def largest_evidence(energy: Observed, forces: Observed) -> Evidence:
    """Return the variances that maximise the evidence."""
    from scipy.optimize import minimize

    first = [energy.square / max(energy.count, 1) or 1.0, forces.square / max(forces.count, 1) or 1.0]

    def at(x: Array) -> Evidence:
        s, e, f = np.exp(np.clip(x, -30, 30))
        return Evidence(0.0, float(s), float(e * first[0]), float(f * first[1]))

    def loss(x: Array) -> float:
        value = log_evidence(energy, forces, at(x))
        return -value if np.isfinite(value) else 1e300

    found = minimize(loss, np.array([0.0, -4.0, -4.0]), method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-3})
    best = at(found.x)
    return Evidence(-float(found.fun), best.outputscale, best.energy_noise, best.force_noise)


class SparseGpUncertainty(GaussianProcessUncertainty):
    """See the module and :class:`dubito.uncertainty.base.UncertaintyMethod`."""

    name: ClassVar[str] = "sparse_gp"

    def learn(self, train: Structures, unseen: Structures, *, seed: int, config: UncertaintyConfig) -> Structures:
        """Add up the rows and solve; the unseen structures are left to calibration."""
        own = config.sparse_gp
        self.standardiser = Standardiser.fit(np.asarray(self.member.predict(train).latent, "f8"))
        order = generator(seed, self.name, "force rows").permutation(len(train))
        data = _Data(self.member, self.standardiser, train, order[: own.max_force_structures])
        self.scale_ev = data.scale_ev
        kernel, inducing = self._kernel(data, own, seed)
        energy, forces = data.observe(kernel, inducing)
        best = largest_evidence(energy, forces)
        p, b = precision(energy, forces, best)
        covariance = np.linalg.inv(p)
        scaled = LatentKernel(kernel.kind, kernel.lengthscale, torch.tensor(best.outputscale, dtype=torch.float64))
        factor = np.linalg.cholesky((covariance + covariance.T) / 2)
        self.posterior = SparsePosterior(
            scaled, inducing, torch.as_tensor(covariance @ b), torch.as_tensor(factor)
        )  # fmt: skip
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


class _Data:
    """Training structures as targets of the process: energies about their mean per atom, forces of some."""

    def __init__(self, member: Potential, standardiser: Standardiser, train: Structures, with_forces: Array) -> None:
        self.member, self.standardiser, self.train = member, standardiser, train
        self.with_forces = np.sort(with_forces)
        self.latent = standardiser.apply(np.asarray(member.predict(train).latent, "f8"))
        atoms = composition(train, member.species) @ member.statistics.atomic_energies_ev
        energy = train.energy - atoms
        self.energy = energy - train.n_atoms * (energy.sum() / train.n_atoms.sum())
        spread = float(self.energy.std())
        # One structure, or all alike: forces have a scale too.
        self.scale_ev = spread if spread > 0 else member.statistics.force_scale_ev_per_angstrom

    def fewer(self, n: int) -> _Data:
        """Return the same with the forces of ``n`` structures."""
        pick = np.linspace(0, len(self.with_forces) - 1, min(n, len(self.with_forces))).astype(int)
        return _Data(self.member, self.standardiser, self.train, self.with_forces[pick])

    def observe(self, kernel: LatentKernel, inducing: Tensor) -> tuple[Observed, Observed]:
        """Return the sums over energies and over forces, rows whitened."""
        factor, m = inducing_factor(kernel, inducing), len(inducing)
        energy, forces = Observed.none(m), Observed.none(m)
        rows = sums_over_atoms(kernel(torch.as_tensor(self.latent), inducing), torch.as_tensor(self.train.ptr))
        energy.add(_whiten(factor, rows), self.energy / self.scale_ev)
        some = self.train[self.with_forces]
        latent = self.standardiser.apply(np.asarray(self.member.predict(some).latent, "f8"))
        for part in chunks(some.n_atoms, ATOMS_PER_CHUNK):
            atoms = slice(int(some.ptr[part[0]]), int(some.ptr[part[-1] + 1]))
            pulled = self._force_rows(some[part], torch.as_tensor(latent[atoms]), kernel, inducing)
            forces.add(_whiten(factor, pulled), some.forces[atoms].ravel() / self.scale_ev)
        return energy, forces

    def _force_rows(self, structures: Structures, latent: Tensor, kernel: LatentKernel, inducing: Tensor) -> Tensor:
        """Return the forces (3 N, m) of the functions ``k(., Z_m)``."""
        member, m = self.member, len(inducing)
        device = next(member.parameters()).device
        graph = build_graph(structures, member.species, member.config.r_max_angstrom, member.dtype, device)
        slopes = kernel.slopes(latent, inducing, torch.eye(m, dtype=torch.float64))
        slopes = slopes / torch.as_tensor(self.standardiser.scale)
        with torch.no_grad():
            forces = latent_forces(member, graph, slopes.to(device, member.dtype))
        return forces.double().cpu().reshape(m, -1).T


def _whiten(factor: Tensor, rows: Tensor) -> Array:
    out: Array = torch.linalg.solve_triangular(factor, rows.T, upper=False).T.numpy()
    return out
