"""Worker that measures nequip; runs in nequip's own environment (see README.md)."""

from __future__ import annotations

import warnings
from typing import Any

import ase.data
import numpy as np
import torch
from nequip.data import AtomicDataDict, compute_neighborlist_
from nequip.model import NequIPGNNModel
from nequip.utils.global_state import set_global_state
from protocol import serve


class NequIP:
    """A NequIP network with its optimiser on one batch."""

    def __init__(self, request: dict[str, Any], batch: dict[str, np.ndarray]) -> None:
        warnings.filterwarnings("ignore")
        set_global_state()
        torch.manual_seed(0)
        species = sorted({int(z) for z in batch["numbers"]})
        dtype, device = getattr(torch, request["dtype"]), request.get("device", "cpu")
        self.data = make_data(request, batch, species, dtype, device)
        n = len(batch["energy"])
        self.energy = torch.as_tensor(batch["energy"] - batch["energy"].mean(), dtype=dtype, device=device).view(n, 1)
        self.forces = torch.as_tensor(batch["forces"].reshape(-1, 3), dtype=dtype, device=device)
        self.n_atoms = len(batch["numbers"])
        options = {
            "seed": 0,
            "model_dtype": request["dtype"],
            "compile_mode": "compile" if request.get("compiled") else "eager",
            "type_names": [ase.data.chemical_symbols[z] for z in species],
            "r_max": request["r_max_angstrom"],
            "num_layers": request["n_layers"],
            "l_max": request["l_max"],
            "parity": False,
            "num_features": request["n_features"],
            "radial_mlp_depth": 2,
            "radial_mlp_width": 32,
            "num_bessels": 8,
            "polynomial_cutoff_p": 6,
            "avg_num_neighbors": self.data[AtomicDataDict.EDGE_INDEX_KEY].shape[1] / (n * self.n_atoms),
            "per_type_energy_scales": float(batch["forces"].std()),
            "per_type_energy_shifts": 0.0,
        }
        self.model = self.scorer = NequIPGNNModel(**options).to(device)
        if request.get("compiled"):
            # A compiled model keeps the mode it was traced in, so scoring has one of its own.
            self.scorer = NequIPGNNModel(**options).to(device)
        # The optimiser of nequip's own examples.
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.n_parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def train_step(self) -> None:
        """See :class:`protocol.Program`."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        out = self.model(self.data)
        energy = (out[AtomicDataDict.TOTAL_ENERGY_KEY] - self.energy) / self.n_atoms
        loss = energy.square().mean() + (out[AtomicDataDict.FORCE_KEY] - self.forces).square().mean()
        loss.backward()
        self.optimizer.step()

    def score(self) -> torch.Tensor:
        """See :class:`protocol.Program`."""
        self.scorer.eval()
        out = self.scorer(self.data)
        return out[AtomicDataDict.FORCE_KEY].detach()


def make_data(
    request: dict[str, Any], batch: dict[str, np.ndarray], species: list[int], dtype: torch.dtype, device: str
) -> AtomicDataDict.Type:
    """Return the batch with its neighbour lists."""
    types = torch.tensor([species.index(int(z)) for z in batch["numbers"]])
    frames = []
    for positions in batch["positions"]:
        frame = {
            AtomicDataDict.POSITIONS_KEY: torch.as_tensor(positions),
            AtomicDataDict.ATOM_TYPE_KEY: types,
            AtomicDataDict.NUM_NODES_KEY: torch.tensor([len(types)]),
            AtomicDataDict.BATCH_KEY: torch.zeros(len(types), dtype=torch.int64),
            AtomicDataDict.PBC_KEY: torch.as_tensor(batch["pbc"]).view(1, 3),
        }
        if batch["pbc"].any():
            frame[AtomicDataDict.CELL_KEY] = torch.as_tensor(batch["cell"]).view(1, 3, 3)
        frames.append(compute_neighborlist_(frame, r_max=request["r_max_angstrom"]))
    data = AtomicDataDict.batched_from_list(frames)
    return {k: v.to(device, dtype if v.is_floating_point() else None) for k, v in data.items()}


if __name__ == "__main__":
    serve(NequIP)
