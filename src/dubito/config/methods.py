"""Settings of the single uncertainty methods. The defaults are those of docs/uncertainty.md's table."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dubito.config.base import Section

Kernel = Literal["linear", "rbf", "matern"]


class GmmConfig(Section):
    """Gaussian mixture on the latents (https://doi.org/10.1063/5.0136574)."""

    max_components: int = Field(30, ge=1, le=500, description="Most components tried; their number is chosen by BIC.")
    per_species: bool = Field(False, description="One mixture for each element instead of one for all.")
    regularisation: float = Field(
        1e-6, gt=0, description="Added to the variances of the standardised latents, lest one become singular."
    )
    max_atoms: int = Field(20000, ge=100, description="Training atoms fitted to, drawn at random beyond.")


class DistanceConfig(Section):
    """Distance from the training atoms of the same element, in the latents."""

    kind: Literal["mahalanobis", "neighbors"] = Field(
        "mahalanobis", description="mahalanobis (one Gaussian per element) or neighbors (mean of the nearest ones)."
    )
    n_neighbors: int = Field(5, ge=1, le=100, description="Nearest training atoms that 'neighbors' averages over.")
    max_atoms: int = Field(20000, ge=100, description="Training atoms kept by 'neighbors', drawn at random beyond.")


class EvidentialConfig(Section):
    """Localised deep evidential regression of forces (https://arxiv.org/abs/1910.02600, in three dimensions)."""

    backbone: Literal["frozen", "trained"] = Field(
        "frozen", description="frozen: heads on the trained network; trained: a copy of it is trained along."
    )
    fit_on: Literal["train", "unseen"] = Field(
        "train", description="Structures the heads learn from: those the network was trained on, or half of the unseen."
    )
    hidden: int = Field(32, ge=0, le=512, description="Width of the hidden layer of the heads; 0: none.")
    epochs: int = Field(200, ge=1, description="Epochs of the heads.")
    learning_rate: float = Field(3e-3, gt=0, description="Learning rate of the heads.")
    regulariser: float = Field(0.01, ge=0, description="Weight of the evidence on wrong predictions.")
    uncertainty_regulariser: float = Field(
        0.0, ge=0, description="Weight of the term that frees atoms stuck at infinite variance (arXiv 2401.01484)."
    )
    tie_nu_to_alpha: bool = Field(False, description="nu = 2 alpha: removes the direction the data can't decide.")


class SvgpConfig(Section):
    """Sparse variational Gaussian process on the latents (https://arxiv.org/abs/1411.2005), trained by gradients."""

    kernel: Kernel = Field("rbf", description="linear, rbf or matern (5/2).")
    n_inducing: int = Field(200, ge=4, le=4000, description="Inducing points, spread over elements and environments.")
    target: Literal["residual", "energy"] = Field(
        "energy", description="What it learns: the network's residual, or the energy itself (its variance is used)."
    )
    steps: int = Field(2000, ge=1, description="Optimiser steps.")
    batch_size: int = Field(32, ge=1, description="Structures per step.")
    learning_rate: float = Field(1e-2, gt=0, description="Learning rate.")
    force_weight: float = Field(0.5, ge=0, le=1, description="Weight of forces in the loss; 0: energies only.")
    n_force_samples: int = Field(8, ge=1, le=128, description="Draws of the posterior whose forces are spread.")


class SparseGpConfig(Section):
    """Sparse Gaussian process of sums over atoms in closed form: no optimiser."""

    kernel: Kernel = Field("rbf", description="linear, rbf or matern (5/2).")
    n_inducing: int = Field(100, ge=4, le=4000, description="Inducing points, spread over elements and environments.")
    max_force_structures: int = Field(
        100, ge=0, description="Training structures whose forces are rows too; each costs n_inducing passes."
    )
    n_force_samples: int = Field(8, ge=1, le=128, description="Draws of the posterior whose forces are spread.")


class LlprConfig(Section):
    """Last-layer prediction rigidity with force rows (https://doi.org/10.1088/2632-2153/ad805f)."""

    max_force_structures: int = Field(
        2000, ge=0, description="Training structures whose forces are rows too; each costs n_latent passes."
    )


class ShallowEnsembleConfig(Section):
    """Readouts on one trunk, trained with the likelihood of energies and forces (https://arxiv.org/abs/2402.16621)."""

    n_heads: int = Field(8, ge=2, le=128, description="Readouts.")
    epochs: int = Field(100, ge=1, description="Epochs of the readouts.")
    learning_rate: float = Field(1e-2, gt=0, description="Learning rate of the readouts.")
    max_structures: int = Field(500, ge=2, description="Training structures learnt from, drawn at random beyond.")


class CalibrationConfig(Section):
    """How raw doubt becomes a standard deviation, on structures unseen by the network."""

    kind: Literal["auto", "scale", "isotonic"] = Field(
        "auto",
        description="scale: one factor; isotonic: a rising map; auto: scale for standard deviations, isotonic for "
        "scores that have no unit.",
    )
    estimator: Literal["rms", "absolute", "crps"] = Field(
        "rms", description="Which factor: root mean square z, mean absolute z, or the smallest CRPS."
    )
    strata: Literal["none", "element"] = Field(
        "none", description="element: each element its own calibration, where it has atoms enough."
    )
