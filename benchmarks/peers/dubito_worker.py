"""Worker that measures dubito; runs in the environment the benchmark itself runs in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from protocol import serve

from dubito.config.model import ModelConfig
from dubito.config.training import TrainingConfig
from dubito.data.statistics import fit_statistics
from dubito.data.structures import Structures
from dubito.model.potential import Potential
from dubito.training.loop import Trainer


class Dubito:
    """A potential of ``n_members`` with its trainer, whose whole training set is the batch."""

    def __init__(self, request: dict[str, Any], batch: dict[str, np.ndarray]) -> None:
        if request.get("compiled"):
            raise ValueError("dubito has one mode only")
        n, r_max = len(batch["positions"]), request["r_max_angstrom"]
        structures = Structures.build(
            [batch["numbers"]] * n,
            list(batch["positions"]),
            cell=batch["cell"],
            pbc=batch["pbc"],
            labels__energy=batch["energy"],
            labels__forces=batch["forces"].reshape(-1, 3),
            labels__mask=True,
            provenance__kind="reference",
        )
        config = ModelConfig(
            l_max=request["l_max"],
            n_layers=request["n_layers"],
            n_features=request["n_features"],
            r_max_angstrom=r_max,
            parity=False,
            n_radial_basis=8,
            radial_hidden=[32, 32],
            dtype=request["dtype"],
        )
        members = list(range(request.get("members", 1)))
        self.potential = Potential(config, fit_statistics(structures, r_max), len(members))
        self.potential.to(request.get("device", "cpu"))
        self.potential.initialise(0, members)
        # Batch of the whole set: an epoch is one step, with everything a step of a real training does.
        training = TrainingConfig(batch_size=n, learning_rate=1e-3)
        self.trainer = Trainer(self.potential, structures, structures[:1], training, seed=0, members=members)
        self.graph = self.trainer.train_set.graph
        self.n_parameters = sum(p[0].numel() for p in self.potential.parameters())

    def train_step(self) -> None:
        """See :class:`protocol.Program`. Gathering the batch, clipping and the average of the weights are included."""
        self.trainer._train_epoch()

    def score(self) -> torch.Tensor:
        """See :class:`protocol.Program`. The geometry of the pairs is computed anew, as the peers do."""
        forces = self.potential.evaluate(self.graph).forces
        if forces is None:
            raise ValueError("the evaluation has no forces")
        return forces.detach()

    def parts(self) -> dict[str, Callable[[], None]]:
        """Return what scoring consists of: the geometry of the pairs, then energies and forces of a known geometry."""
        geometry = self.potential.geometry(self.graph)

        def pairs() -> None:
            self.potential.geometry(self.graph)

        def energies() -> None:
            self.potential.evaluate(self.graph, geometry, forces=False)

        def energies_and_forces() -> None:
            self.potential.evaluate(self.graph, geometry)

        return {"geometry": pairs, "energies": energies, "energies and forces": energies_and_forces}


if __name__ == "__main__":
    serve(Dubito)
