"""Settings of the single uncertainty methods. The defaults are those of docs/uncertainty.md's table."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from dubito.config.base import Section

Kernel = Literal["linear", "rbf", "matern"]


class GmmConfig(Section):
    """Gaussian mixture on the latents (https://doi.org/10.1063/5.0136574)."""

    max_components: int = Field(30, ge=1, le=500, description="Most components tried; their number is chosen by BIC.")
    per_species: bool = Field(False, description="One mixture for each element instead of one for all.")
    regularisation: float = Field(
        1e-3, gt=0, description="Added to the variances of the standardised latents: against learning by heart."
    )
    max_atoms: int = Field(20000, ge=100, description="Training atoms fitted to, drawn at random beyond.")


class DistanceConfig(Section):
    """Distance from the training atoms of the same element, in the latents."""

    kind: Literal["mahalanobis", "neighbors"] = Field(
        "neighbors", description="mahalanobis (one Gaussian per element) or neighbors (mean of the nearest ones)."
    )
    n_neighbors: int = Field(5, ge=1, le=100, description="Nearest training atoms that 'neighbors' averages over.")
    max_atoms: int = Field(
        20000, ge=100, description="Training atoms that either kind looks at, drawn at random beyond."
    )


class EvidentialConfig(Section):
    """Localised deep evidential regression of forces (https://arxiv.org/abs/1910.02600, in three dimensions).

    The loss of an atom is ``NLL + regulariser |dF| (2 nu + alpha) - uncertainty_regulariser |dF| x_alpha`` with |dF|
    the length of its force error over the rms force component, and x_alpha the pre-activation of alpha.
    """

    backbone: Literal["frozen", "trained"] = Field(
        "frozen", description="frozen: heads on the trained network; trained: a copy of it is trained along."
    )
    fit_on: Literal["train", "unseen"] = Field(
        "train", description="Structures the heads learn from: those the network was trained on, or half of the unseen."
    )
    hidden: int = Field(32, ge=0, le=512, description="Width of the hidden layer of the heads; 0: none.")
    epochs: int = Field(200, ge=1, description="Epochs of the heads; small sets get more.")
    learning_rate: float = Field(3e-3, gt=0, description="Learning rate of the heads.")
    max_atoms: int = Field(
        100000, ge=100, description="Atoms the heads learn from, of structures drawn at random beyond."
    )
    regulariser: float = Field(0.01, ge=0, description="Weight of the evidence on wrong predictions.")
    uncertainty_regulariser: float = Field(
        0.0, ge=0, description="Weight of the term that frees atoms stuck at infinite variance (arXiv 2401.01484)."
    )
    mind_distance: bool = Field(
        True, description="The evidence falls with the distance from the training atoms; false: as published."
    )
    tie_nu_to_alpha: bool = Field(False, description="nu = 2 alpha: removes the direction the data can't decide.")
    backbone_epochs: int = Field(10, ge=1, description="backbone trained: epochs of network and heads together.")
    backbone_learning_rate: float = Field(
        1e-4, gt=0, description="backbone trained: learning rate of network and heads; higher ones lose outsiders."
    )
    backbone_batch_size: int = Field(5, ge=1, description="backbone trained: structures per optimiser step.")
    force_share: float = Field(
        0.9, gt=0, le=1, description="backbone trained: weight of the forces; the energies' is the rest."
    )

    @model_validator(mode="after")
    def _consistent(self) -> EvidentialConfig:
        if self.uncertainty_regulariser > self.regulariser:
            raise ValueError(
                f"uncertainty_regulariser ({self.uncertainty_regulariser}) exceeds regulariser "
                f"({self.regulariser}), so the loss falls without bound as alpha grows; lower it or raise regulariser"
            )
        if self.backbone == "trained" and self.fit_on == "unseen":
            raise ValueError(
                "backbone: trained needs all the training set, so fit_on can't be unseen; choose fit_on: train or "
                "backbone: frozen"
            )
        return self


class SvgpConfig(Section):
    """Sparse variational Gaussian process on the latents (https://arxiv.org/abs/1411.2005), trained by gradients.

    The last eight settings exist to be switched off one at a time, which shows what each is worth. ``inducing``,
    ``learn_inducing`` and ``lengthscale`` do nothing with the linear kernel, which has neither points nor a length.
    """

    kernel: Kernel = Field("rbf", description="linear, rbf or matern (5/2).")
    n_inducing: int = Field(400, ge=4, le=4000, description="Inducing points, spread over elements and environments.")
    target: Literal["residual", "energy"] = Field(
        "energy", description="What it learns: the network's residual, or the energy itself (its variance is used)."
    )
    steps: int = Field(300, ge=1, description="Optimiser steps.")
    batch_size: int = Field(16, ge=1, description="Structures per step.")
    learning_rate: float = Field(1e-2, gt=0, description="Learning rate.")
    force_weight: float = Field(0.5, ge=0, le=1, description="Power of the forces' likelihood; 0: energies only.")
    force_batch_size: int = Field(4, ge=1, description="Structures of a step whose forces are looked at.")
    n_force_samples: int = Field(16, ge=1, le=128, description="Draws of the posterior whose forces are spread.")
    standardise: bool = Field(True, description="Take each latent to zero mean and unit deviation.")
    inducing: Literal["spread", "random"] = Field(
        "spread",
        description="spread over elements and environments, or drawn at random over all atoms; not for kernel: linear.",
    )
    learn_inducing: bool = Field(True, description="Move the inducing points by the gradient; not for kernel: linear.")
    lengthscale: Literal["data", "default"] = Field(
        "data",
        description="Start at thrice the distance of atoms within an environment, or at gpytorch's 0.693; not for "
        "kernel: linear.",
    )
    scale_target: bool = Field(True, description="Divide energies by their deviation over the training set.")
    initialise_scales: bool = Field(
        True, description="Start prior variance at the data's over the atoms, noise at 1 % of it; or both at 0.693."
    )
    solve: bool = Field(
        True, description="Set the inducing values' distribution to its optimum in closed form four times on the way."
    )
    objective: Literal["predictive", "elbo"] = Field(
        "predictive", description="Predictive log likelihood of energies (arXiv 1910.07123), or the usual bound."
    )


class SparseGpConfig(Section):
    """Sparse Gaussian process of sums over atoms in closed form: no optimiser."""

    kernel: Kernel = Field("rbf", description="linear, rbf or matern (5/2).")
    n_inducing: int = Field(200, ge=4, le=4000, description="Inducing points, spread over elements and environments.")
    max_force_structures: int = Field(
        100, ge=0, description="Training structures whose forces are rows too; each costs n_inducing passes."
    )
    n_force_samples: int = Field(16, ge=1, le=128, description="Draws of the posterior whose forces are spread.")


class LlprConfig(Section):
    """Last-layer prediction rigidity with force rows (https://doi.org/10.1088/2632-2153/ad805f)."""

    max_force_structures: int = Field(
        2000, ge=0, description="Training structures whose forces are rows too; each costs n_features sweeps."
    )
    n_directions: int | None = Field(
        12,
        ge=1,
        le=512,
        description="Directions of the posterior that force uncertainties are made of, a sweep each; null: all.",
    )
    shake_angstrom: float = Field(
        0.1, gt=0, le=1, description="Displacement of the training structures that tell which directions count."
    )


class ShallowEnsembleConfig(Section):
    """Readouts on one trunk, trained with the likelihood of energies and forces (https://arxiv.org/abs/2402.16621)."""

    n_heads: int = Field(8, ge=2, le=128, description="Readouts.")
    epochs: int = Field(300, ge=1, description="Epochs of the readouts.")
    learning_rate: float = Field(1e-2, gt=0, description="Learning rate of the readouts.")
    max_structures: int = Field(500, ge=2, description="Training structures learnt from, drawn at random beyond.")


class CalibrationConfig(Section):
    """How raw doubt becomes a standard deviation, on structures unseen by the network."""

    kind: Literal["auto", "scale", "isotonic"] = Field(
        "auto",
        description="scale: one factor; isotonic: a rising map; auto: scale for standard deviations, isotonic for "
        "scores that have no unit.",
    )
    estimator: Literal["rms", "absolute", "crps", "likelihood"] = Field(
        "rms",
        description="Which factor: rms error over rms standard deviation, mean absolute z, the smallest CRPS, or the "
        "greatest likelihood (rms z).",
    )
    strata: Literal["auto", "none", "element"] = Field(
        "auto",
        description="element: each element its own calibration, where it has at least 60 unseen atoms; none: one for "
        "all; auto: element for scores that have no unit, none for standard deviations.",
    )
