"""Worker that measures MACE; runs in MACE's own environment (see README.md)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from protocol import serve

# MACE pins an e3nn whose table of constants holds slices; torch reads these only when told that they are safe.
torch.serialization.add_safe_globals([slice])

from e3nn import o3  # noqa: E402
from mace import modules  # noqa: E402
from mace.data import AtomicData, Configuration  # noqa: E402
from mace.tools import AtomicNumberTable  # noqa: E402
from mace.tools.torch_geometric import Batch  # noqa: E402


class Mace:
    """A MACE network with its optimiser on one batch."""

    def __init__(self, request: dict[str, Any], batch: dict[str, np.ndarray]) -> None:
        if request.get("compiled"):
            raise ValueError("MACE is measured in its default mode only")
        torch.set_default_dtype(getattr(torch, request["dtype"]))
        torch.manual_seed(0)
        device = request.get("device", "cpu")
        table = AtomicNumberTable(sorted({int(z) for z in batch["numbers"]}))
        self.batch = make_batch(request, batch, table).to(device)
        self.inputs = self.batch.to_dict()
        n_atoms = self.inputs["positions"].shape[0]
        hidden = "+".join(f"{request['n_features']}x{o3.Irrep(l, (-1) ** l)}" for l in range(request["l_max"] + 1))  # noqa: E741
        residual = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
        self.model = modules.ScaleShiftMACE(
            r_max=request["r_max_angstrom"],
            num_bessel=8,
            num_polynomial_cutoff=6,
            max_ell=request["l_max"],
            interaction_cls=residual,
            interaction_cls_first=residual,
            num_interactions=request["n_layers"],
            num_elements=len(table),
            hidden_irreps=o3.Irreps(hidden),
            MLP_irreps=o3.Irreps("16x0e"),
            gate=torch.nn.functional.silu,
            atomic_energies=np.zeros(len(table)),
            avg_num_neighbors=self.inputs["edge_index"].shape[1] / n_atoms,
            atomic_numbers=table.zs,
            correlation=request.get("correlation", 3),
            radial_MLP=[32, 32],
            atomic_inter_scale=float(batch["forces"].std()),
            atomic_inter_shift=0.0,
        ).to(device)
        self.loss = modules.WeightedEnergyForcesLoss(energy_weight=1.0, forces_weight=1.0).to(device)
        # MACE's own training uses Adam with AMSGrad.
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, amsgrad=True)
        self.n_parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def train_step(self) -> None:
        """See :class:`protocol.Program`."""
        self.optimizer.zero_grad(set_to_none=True)
        out = self.model(self.inputs, training=True, compute_force=True)
        self.loss(pred=out, ref=self.batch).backward()
        self.optimizer.step()

    def score(self) -> torch.Tensor:
        """See :class:`protocol.Program`."""
        out = self.model(self.inputs, training=False, compute_force=True)
        return out["forces"].detach()


def make_batch(request: dict[str, Any], batch: dict[str, np.ndarray], table: AtomicNumberTable) -> Batch:
    """Return the batch with its neighbour lists."""
    periodic = bool(batch["pbc"].any())
    energies = batch["energy"] - batch["energy"].mean()
    items = []
    for positions, energy, forces in zip(batch["positions"], energies, batch["forces"], strict=True):
        configuration = Configuration(
            atomic_numbers=batch["numbers"],
            positions=positions,
            properties={"energy": float(energy), "forces": forces},
            property_weights={"energy": 1.0, "forces": 1.0},
            cell=batch["cell"] if periodic else None,
            pbc=tuple(bool(p) for p in batch["pbc"]),
        )
        items.append(AtomicData.from_config(configuration, z_table=table, cutoff=request["r_max_angstrom"]))
    return Batch.from_data_list(items)


if __name__ == "__main__":
    serve(Mace)
