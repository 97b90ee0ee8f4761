"""A potential as a file: safetensors with JSON metadata, never a pickle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.torch import save

from dubito.config.model import ModelConfig
from dubito.core.errors import ModelError
from dubito.core.files import write_bytes
from dubito.data.statistics import Statistics
from dubito.model.files import FORMAT, FORMAT_VERSION, encode, read_metadata
from dubito.model.potential import Potential


def save_potential(
    path: Path, potential: Potential, *, provenance: Mapping[str, Any], members: Sequence[int] | None = None
) -> None:
    """Write a potential; ``members`` are the ensemble's numbers of the rows (default 0, 1, …)."""
    statistics = potential.statistics
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": potential.config.model_dump(mode="json"),
        "members": list(members if members is not None else range(potential.n_members)),
        "units": {"energy": "eV", "length": "Angstrom"},
        "statistics": {
            "species": list(statistics.species),
            "atomic_energies_ev": statistics.atomic_energies_ev.tolist(),
            "scale_ev": statistics.scale_ev.tolist(),
            "force_scale_ev_per_angstrom": statistics.force_scale_ev_per_angstrom,
            "avg_num_neighbors": statistics.avg_num_neighbors,
        },
        "provenance": dict(provenance),
    }
    tensors = {name: p.detach().cpu().contiguous() for name, p in potential.named_parameters()}
    write_bytes(path, save(tensors, metadata=encode(metadata)))


def load_potential(path: Path | str, device: str = "cpu") -> Potential:
    """Load a potential, ready to predict: ``load_potential("…/ensemble.safetensors").predict(structures)``.

    Raises
    ------
    ModelError
        When the file can't be used; see :func:`read_metadata`.
    """
    path = Path(path)
    metadata = read_metadata(path)
    s = metadata["statistics"]
    statistics = Statistics(
        tuple(s["species"]),
        np.array(s["atomic_energies_ev"]),
        np.array(s["scale_ev"]),
        float(s["force_scale_ev_per_angstrom"]),
        float(s["avg_num_neighbors"]),
    )
    potential = Potential(ModelConfig.model_validate(metadata["model"]), statistics, len(metadata["members"]))
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        for name, parameter in potential.named_parameters():
            if name not in names or tuple(file.get_slice(name).get_shape()) != tuple(parameter.shape):
                raise ModelError(f"{path} lacks the weights '{name}' or has them in another shape; it is damaged.")
            parameter.data.copy_(file.get_tensor(name))
    return potential.to(device).requires_grad_(False).eval()
