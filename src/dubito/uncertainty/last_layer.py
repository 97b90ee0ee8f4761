"""Last-layer prediction rigidity with force rows: how far the readout could move without the labels noticing.

Bigi, Chong, Ceriotti, Grasselli 2024 (https://doi.org/10.1088/2632-2153/ad805f): the variance of a prediction with
the row ``f`` is ``f^T H^-1 f``, ``H = sum_rows f f^T / noise^2 + prior I`` over the training set; the same as a
Laplace approximation of the readout. Published versions use the rows of energies alone, which ranked backwards in
a trial (higher temperature, less doubt); the force rows ``-d(sum_i s_i f_i)/dr`` mend that, and give force
uncertainties. Per atom: Chong et al. 2023, https://doi.org/10.1021/acs.jctc.3c00704.

The prior precision is the one of largest evidence (MacKay 1992, https://doi.org/10.1162/neco.1992.4.3.448):
``prior = gamma / |w|^2``, where ``gamma`` counts the directions that the data decide. Noise: the root mean square
residuals of the training set, for energies and for forces.

A force uncertainty over all d directions of the posterior costs d sweeps. On the training set all of them contribute
alike (there ``H`` is all but the rows' own covariance), elsewhere they don't: training structures shaken by a tenth
of an Å tell which directions grow where the model is leaving what it knows, and the ``n_directions`` largest of those
do as well as all (docs/uncertainty.md).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from dubito.config.uncertainty import UncertaintyConfig
from dubito.core.logs import get_logger
from dubito.core.random import generator
from dubito.data.prediction import Array, Prediction
from dubito.data.structures import Structures
from dubito.model.predict import chunks
from dubito.uncertainty.deviations import Deviations
from dubito.uncertainty.method import Doubt, FittedMethod, Tensors
from dubito.uncertainty.rows import ATOMS_PER_CHUNK, Readout

log = get_logger(__name__)

# Residuals of a training set that is fitted to rounding must not become a noise of zero.
_SMALLEST_NOISE = 1e-6
_ITERATIONS = 100
# More shaken structures than this tell nothing new.
_MAX_SHAKEN = 150


class LastLayerUncertainty(FittedMethod):
    """See :class:`dubito.uncertainty.base.UncertaintyMethod`."""

    name: ClassVar[str] = "llpr"
    targets: ClassVar[frozenset[str]] = frozenset({"energy", "energies", "forces"})
    is_sigma: ClassVar[bool] = True

    # Set by learn or restore: roots of the covariance, (d, d) for energies and (d, r) for forces.
    root: Array
    directions: Array
    readout: Readout
    about: dict[str, Any]

    def learn(self, train: Structures, unseen: Structures, *, seed: int, config: UncertaintyConfig) -> Structures:
        """Add up the rows of the training set in one pass."""
        self.readout = Readout.of(self.member, train)
        settings = config.llpr
        covariance, about = readout_covariance(self.readout, train, settings.max_force_structures, seed)
        self.root, self.about = matrix_root(covariance), about
        self.directions = self.root
        if settings.n_directions is not None and settings.n_directions < self.readout.width:
            shaken = shake(train, settings.shake_angstrom, seed)
            self.directions = growing_directions(self.readout, shaken, self.root, settings.n_directions)
        self.extra_evaluations = float(self.directions.shape[1])
        return unseen

    def doubt(self, structures: Structures, prediction: Prediction) -> Doubt:
        """Return the standard deviations of the readout's posterior."""
        return linear_doubt(self.readout, structures, prediction, self.root, self.directions)

    def doubt_and_deviations(self, structures: Structures, prediction: Prediction) -> tuple[Doubt, Deviations]:
        """Return the same, and the calibrated deviations along the directions that forces are judged by."""
        rows = self.readout.force_rows(structures, self.directions)
        doubt = linear_doubt(self.readout, structures, prediction, self.root, self.directions, rows)
        factor = self._fitted().factor
        return doubt, linear_deviations(self.readout, structures, prediction, self.directions, rows, factor)

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Return the roots of the covariance and the centres of the features."""
        return {"root": self.root, "directions": self.directions, "centers": self.readout.centers}, self.about

    def restore(self, tensors: Tensors, settings: dict[str, Any]) -> None:
        """Take them back."""
        self.root, self.directions = tensors["root"], tensors["directions"]
        self.readout, self.about = Readout(self.member, tensors["centers"]), settings
        self.extra_evaluations = float(self.directions.shape[1])


def linear_doubt(
    readout: Readout,
    structures: Structures,
    prediction: Prediction,
    root: Array,
    directions: Array,
    forces: Array | None = None,
) -> Doubt:
    """Return the standard deviations of a linear readout whose weights have the covariance ``root root^T``.

    Parameters
    ----------
    root : (d, r) for energies; directions : (d, s) for forces, which cost s sweeps
    forces : (N, 3, s) eV/Å, the force rows along the directions, where they are known already
    """
    features = np.zeros((0, readout.width)) if prediction.features is None else prediction.features
    of_atoms = readout.atom_rows(structures, features) @ root
    # One energy is the sum of its atoms': the deviations of the atoms are not independent.
    total = np.add.reduceat(of_atoms, structures.ptr[:-1]) if len(structures) else np.zeros((0, root.shape[1]))
    if forces is None:
        forces = readout.force_rows(structures, directions)
    return Doubt(
        np.sqrt(np.mean(np.sum(forces**2, axis=2), axis=1)),
        np.sqrt(np.sum(of_atoms**2, axis=1)),
        np.sqrt(np.sum(total**2, axis=1)),
    )


def linear_deviations(
    readout: Readout, structures: Structures, prediction: Prediction, root: Array, forces: Array, factor: float
) -> Deviations:
    """Return the columns of ``root`` (d, s) as s members: their deviations have its covariance, times ``factor``^2.

    ``forces`` (N, 3, s) eV/Å are the force rows along the columns.
    """
    features = np.zeros((0, readout.width)) if prediction.features is None else prediction.features
    of_atoms = readout.atom_rows(structures, features) @ root
    total = np.add.reduceat(of_atoms, structures.ptr[:-1]) if len(structures) else np.zeros((0, root.shape[1]))
    # Deviations are divided by the root of one less than their number when a standard deviation is made of them.
    scale = factor * np.sqrt(max(root.shape[1] - 1, 1))
    return Deviations(scale * total.T, scale * np.moveaxis(forces, 2, 0))


def shake(structures: Structures, displacement_angstrom: float, seed: int) -> Structures:
    """Return some of the structures with every atom displaced at random, without labels."""
    rng = generator(seed, "shaken structures")
    some = structures[np.sort(rng.permutation(len(structures))[:_MAX_SHAKEN])]
    moved = some.positions + rng.normal(scale=displacement_angstrom, size=some.positions.shape)
    return replace(some, positions=moved, columns={})


def growing_directions(readout: Readout, structures: Structures, root: Array, n: int) -> Array:
    """Return the n directions (d, n) of the posterior along which the forces of structures vary most."""
    gram = np.zeros((root.shape[1], root.shape[1]))
    for rows in chunks(structures.n_atoms, ATOMS_PER_CHUNK):
        flat = readout.force_rows(structures[rows], root).reshape(-1, root.shape[1])
        gram += flat.T @ flat
    vectors = np.linalg.eigh(gram)[1]
    out: Array = root @ vectors[:, ::-1][:, :n]
    return out


def readout_covariance(
    readout: Readout, train: Structures, max_force_structures: int, seed: int
) -> tuple[Array, dict[str, Any]]:
    """Return the covariance (d, d) of the readout's weights given the training set, and how it came about.

    Force rows cost d sweeps for each structure; beyond ``max_force_structures`` they are taken from a random part,
    and stand for all.
    """
    n, d = len(train), readout.width
    order = generator(seed, "force rows").permutation(n)
    with_forces = np.zeros(n, dtype=bool)
    with_forces[order[:max_force_structures]] = True
    energy, forces, squares = np.zeros((d, d)), np.zeros((d, d)), np.zeros((2, 2))
    for chosen in (True, False):
        for rows in readout.pieces(train[with_forces == chosen], forces=chosen):
            energy += rows.energy.T @ rows.energy
            if chosen:
                flat = rows.forces.reshape(-1, d)
                forces += flat.T @ flat
            squares[0] += [np.sum(rows.energy_residual**2), len(rows.energy_residual)]
            squares[1] += [np.sum(rows.force_residual**2), rows.force_residual.size]
    share = float(np.sum(train.n_atoms[with_forces])) / float(np.sum(train.n_atoms))
    scale = readout.member.statistics.force_scale_ev_per_angstrom
    noise = np.sqrt(squares[:, 0] / squares[:, 1]) + _SMALLEST_NOISE * scale
    information = energy / noise[0] ** 2
    if share > 0:
        information = information + forces / noise[1] ** 2 / share
    prior, decided = evidence_prior(information, readout.weights)
    about = {
        "prior_precision": prior,
        "decided_directions": decided,
        "energy_noise_ev": float(noise[0]),
        "force_noise_ev_per_angstrom": float(noise[1]),
        "force_structures": int(with_forces.sum()),
        "condition": float(np.linalg.cond(information + prior * np.eye(d))),
    }
    log.info("readout's covariance: %s", about)
    return np.linalg.inv(information + prior * np.eye(d)), about


def evidence_prior(information: Array, weights: Array) -> tuple[float, float]:
    """Return the prior precision of largest evidence, and the number of directions the data decide."""
    values = np.maximum(np.linalg.eigvalsh(information), 0.0)
    square = max(float(weights @ weights), 1e-12)
    prior, decided = len(values) / square, float(len(values))
    for _ in range(_ITERATIONS):
        decided = float(np.sum(values / (values + prior)))
        # At least one direction counts, lest the prior vanish where the data decide nothing.
        following = max(decided, 1.0) / square
        if abs(following - prior) <= 1e-10 * prior:
            break
        prior = following
    return prior, decided


def matrix_root(covariance: Array) -> Array:
    """Return R with ``R R^T`` = a symmetric covariance (d, d); rounding below zero is cut."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    out: Array = vectors * np.sqrt(np.maximum(values, 0.0))
    return out
