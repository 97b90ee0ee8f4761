"""Evidential regression: each atom's force error gets its own Student t, from heads on the atom's latents.

The likelihood, and what it can't decide, are in :mod:`dubito.uncertainty.evidential_loss`. The doubt is the root of the
*total* predictive variance of a component. No uncertainty of energies follows from the atoms' force distributions, so
none is given; the score called ``energies`` is the root of the epistemic variance of the force, a number that ranks
and whose size means nothing.

``backbone: frozen`` looks at the trained network from outside: its training is not disturbed, and the fit takes
seconds. ``backbone: trained`` trains a copy of the first member along with the heads, as published. The prediction
stays the mean of the potential's members, whose errors the copy's doubt is calibrated to; the copy has to be
evaluated besides.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from dubito.config.methods import EvidentialConfig
from dubito.config.uncertainty import UncertaintyConfig
from dubito.core.errors import DataError, ModelError
from dubito.core.random import generator
from dubito.data.graphs import build_graph
from dubito.data.prediction import Prediction
from dubito.data.structures import Structures
from dubito.model.potential import Potential
from dubito.model.predict import chunks
from dubito.uncertainty.evidential_heads import ForceErrors, Heads, fit_heads
from dubito.uncertainty.evidential_training import train_together
from dubito.uncertainty.method import Doubt, FittedMethod, Tensors

# Fewer atoms say nothing about how errors are distributed.
MIN_ATOMS = 20
ATOMS_PER_CHUNK = 4096


class EvidentialUncertainty(FittedMethod):
    """See :class:`dubito.uncertainty.base.UncertaintyMethod`."""

    name: ClassVar[str] = "evidential"
    is_sigma: ClassVar[bool] = True
    gives_energies: ClassVar[bool] = False

    def __init__(self, potential: Potential) -> None:
        super().__init__(potential)
        self.config = EvidentialConfig()
        self.heads: Heads | None = None
        self.backbone: Potential | None = None
        self.force_unit = potential.statistics.force_scale_ev_per_angstrom

    def learn(self, train: Structures, unseen: Structures, *, seed: int, config: UncertaintyConfig) -> Structures:
        """Fit the heads, and with ``backbone: trained`` a copy of the first member along with them.

        Raises
        ------
        DataError
            When there are too few structures or atoms to learn from.
        ModelError
            When latents or the loss are not finite.
        """
        self.config = config.evidential
        source, rest = train, unseen
        if self.config.fit_on == "unseen":
            source, rest = _halves(unseen, seed)
        source = _at_most(source, self.config.max_atoms, seed)
        errors = self._errors(source)
        self.heads = self._new_heads()
        fit_heads(self.heads, errors, seed)
        if self.config.backbone == "trained":
            self._set_backbone(self.potential.member(0))
            train_together(self.trained, self.heads, source, self.config, seed)
        self.heads.requires_grad_(False)
        return rest

    def _errors(self, structures: Structures) -> ForceErrors:
        structures.require_labels("The structures of the evidential fit")
        n_atoms = len(structures.atomic_numbers)
        if n_atoms < MIN_ATOMS:
            raise DataError(
                f"The evidential heads have {n_atoms} atoms to learn from, expected at least {MIN_ATOMS}. Label more "
                "structures, or choose another uncertainty method."
            )
        prediction = self.member.predict(structures)
        if prediction.latent is None or not np.all(np.isfinite(prediction.latent)):
            raise ModelError(
                "The network's latents of the training structures are not all finite numbers, so no evidential heads "
                "can be fitted. Look for atoms on top of each other, or for a broken model."
            )
        squared = np.sum((prediction.forces - structures.forces) ** 2, axis=1) / self.force_unit**2
        return ForceErrors(
            torch.from_numpy(prediction.latent),
            self._species(structures),
            torch.from_numpy(np.asarray(structures.structure_of_atom, "i8")),
            torch.from_numpy(squared),
        )

    def _new_heads(self) -> Heads:
        return Heads(self.potential.config.n_latent, len(self.potential.species), self.config)

    def _species(self, structures: Structures) -> Tensor:
        """Return the index (N,) of each atom's element into the network's species, which are in ascending order."""
        return torch.from_numpy(np.searchsorted(self.potential.species, structures.atomic_numbers))

    @property
    def trained(self) -> Potential:
        """The network whose latents the heads read."""
        return self.member if self.backbone is None else self.backbone

    def _set_backbone(self, backbone: Potential) -> None:
        self.backbone, self.extra_evaluations = backbone, 1.0

    def doubt(self, structures: Structures, prediction: Prediction) -> Doubt:
        """Return the root of the total variance; as a score beside it that of the epistemic part."""
        if self.heads is None:
            raise ModelError("The 'evidential' method is not fitted; call fit(...) or load(...) first.")
        latent = self._latent(structures, prediction)
        given = self.heads.distributions(latent, self._species(structures))
        return Doubt(self.force_unit * given.total.sqrt().numpy(), self.force_unit * given.epistemic.sqrt().numpy())

    def _latent(self, structures: Structures, prediction: Prediction) -> Tensor:
        """Return the latents (N, d) that the heads read, float64."""
        if self.backbone is None and prediction.latent is not None:
            return torch.from_numpy(prediction.latent)
        network = self.trained
        device = next(network.parameters()).device
        parts = [torch.zeros(0, network.config.n_latent, dtype=torch.float64)]
        for rows in chunks(structures.n_atoms, ATOMS_PER_CHUNK):
            graph = build_graph(structures[rows], network.species, network.config.r_max_angstrom, network.dtype, device)
            parts.append(network.evaluate(graph, forces=False).latent[0].double().cpu())
        return torch.cat(parts)

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Return the heads, the copy of the network where there is one, and the settings."""
        heads = {} if self.heads is None else self.heads.state_dict()
        tensors = {f"heads.{key}": value.numpy() for key, value in heads.items()}
        if self.backbone is not None:
            copy = self.backbone.named_parameters()
            tensors |= {f"backbone.{key}": value.detach().cpu().numpy() for key, value in copy}
        return tensors, {"config": self.config.model_dump(mode="json")}

    def restore(self, tensors: Tensors, settings: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        self.config = EvidentialConfig(**settings["config"])
        self.heads = self._new_heads().requires_grad_(False)
        for key, value in self.heads.state_dict().items():
            value.copy_(torch.from_numpy(tensors[f"heads.{key}"]))
        if self.config.backbone == "trained":
            backbone = self.potential.member(0)
            for key, parameter in backbone.named_parameters():
                parameter.data.copy_(torch.from_numpy(tensors[f"backbone.{key}"]))
            self._set_backbone(backbone)


def _halves(unseen: Structures, seed: int) -> tuple[Structures, Structures]:
    """Return half of the unseen structures for the heads, and the other half for calibration."""
    if len(unseen) < 4:
        raise DataError(
            f"evidential.fit_on: unseen shares {len(unseen)} unseen structures between heads and calibration; it needs "
            "at least 4. Keep more for validation, or choose fit_on: train."
        )
    order = generator(seed, "evidential", "halves").permutation(len(unseen))
    middle = len(unseen) // 2
    return unseen[np.sort(order[:middle])], unseen[np.sort(order[middle:])]


def _at_most(structures: Structures, max_atoms: int, seed: int) -> Structures:
    """Return structures drawn at random until they have ``max_atoms`` atoms, one of them at least."""
    if len(structures.atomic_numbers) <= max_atoms:
        return structures
    order = generator(seed, "evidential", "sample").permutation(len(structures))
    fitting = np.cumsum(structures.n_atoms[order]) <= max_atoms
    return structures[np.sort(order[: max(1, int(fitting.sum()))])]
