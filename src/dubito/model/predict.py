"""From structures to predictions: chunks of bounded memory, float64 energies, spread of the members."""

from __future__ import annotations

import numpy as np
import torch

from dubito.data.graphs import build_graph
from dubito.data.prediction import Array, Prediction
from dubito.data.statistics import composition
from dubito.data.structures import Structures
from dubito.model.potential import Potential


def members_spread(values: Array) -> Array:
    """Return the standard deviation over the members (first axis), ddof = 1; zeros for one member."""
    if len(values) < 2:
        return np.zeros(values.shape[1:])
    out: Array = values.std(axis=0, ddof=1)
    return out


def predict(
    potential: Potential, structures: Structures, atoms_per_chunk: int = 4096, *, members: bool = False
) -> Prediction:
    """Predict with the mean of the members; uncertainties are their spread, not calibrated.

    The three components of an atom's force share one deviation, the root of the mean of their
    variances: rotation-invariant, and steadier with few members.

    Returns
    -------
    Prediction
        ``uncertainty`` holds ``energy`` (n,) and ``energies`` (N,) in eV, ``forces`` (N, 3) in eV/Å. With
        ``members`` also what each of them says of the forces.
    """
    if not len(structures):
        zero = np.zeros(0)
        spread = {"energy": zero, "energies": zero, "forces": np.zeros((0, 3))}
        ensemble = np.zeros((0, potential.n_members))
        return Prediction(
            structures.ptr,
            zero,
            zero,
            np.zeros((0, 3)),
            spread,
            stress=np.zeros((0, 6)),
            energy_ensemble=ensemble,
            forces_ensemble=np.zeros((potential.n_members, 0, 3)) if members else None,
            latent=np.zeros((0, potential.config.n_latent)),
            features=np.zeros((0, potential.config.n_features)),
        )
    parts = [_predict(potential, structures[rows], members) for rows in chunks(structures.n_atoms, atoms_per_chunk)]
    if len(parts) == 1:
        return parts[0]

    def join(name: str) -> Array:
        out: Array = np.concatenate([getattr(part, name) for part in parts])
        return out

    return Prediction(
        structures.ptr,
        join("energy"),
        join("energies"),
        join("forces"),
        {key: np.concatenate([part.uncertainty[key] for part in parts]) for key in parts[0].uncertainty},
        stress=join("stress"),
        energy_ensemble=join("energy_ensemble"),
        forces_ensemble=np.concatenate([p.forces_ensemble for p in parts], axis=1) if members else None,
        latent=join("latent"),
        features=join("features"),
    )


def chunks(n_atoms: Array, atoms_per_chunk: int) -> list[Array]:
    """Split structures into runs of at most ``atoms_per_chunk`` atoms (a larger one stands alone)."""
    ends = np.cumsum(n_atoms)
    out, start = [], 0
    while start < len(n_atoms):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + atoms_per_chunk, "right")))
        out.append(np.arange(start, stop))
        start = stop
    return out


def _predict(potential: Potential, structures: Structures, members: bool) -> Prediction:
    device = next(potential.parameters()).device
    graph = build_graph(structures, potential.species, potential.config.r_max_angstrom, potential.dtype, device)
    result = potential.evaluate(graph)

    def numpy(tensor: torch.Tensor | None) -> Array:
        if tensor is None:
            return np.zeros(0)
        out: Array = tensor.cpu().double().numpy()
        return out

    shift = potential.statistics.atomic_energies_ev
    per_structure = composition(structures, potential.species) @ shift
    lookup = np.zeros(256)
    lookup[list(potential.species)] = shift
    energies = numpy(result.energies) + lookup[structures.atomic_numbers]
    residual, forces = numpy(result.energy), numpy(result.forces)
    variance = members_spread(forces) ** 2
    sigma = np.sqrt(variance.mean(axis=1, keepdims=True)).repeat(3, axis=1)
    return Prediction(
        structures.ptr,
        residual.mean(axis=0) + per_structure,
        energies.mean(axis=0),
        forces.mean(axis=0),
        {
            "energy": members_spread(residual),
            "energies": members_spread(numpy(result.energies)),
            "forces": sigma,
        },
        stress=_stress(numpy(result.virial).mean(axis=0), numpy(graph.volume)),
        energy_ensemble=(residual + per_structure).T,
        forces_ensemble=forces if members else None,
        latent=numpy(result.latent[0]),
        features=numpy(result.features[0]),
    )


def _stress(virial: Array, volume: Array) -> Array:
    """Return the stress (n, 6) in eV/Å³, Voigt xx yy zz yz xz xy, positive under tension (ASE's sign)."""
    symmetric = (virial + virial.transpose(0, 2, 1)) / 2
    voigt = symmetric.reshape(-1, 9)[:, [0, 4, 8, 5, 2, 1]]
    return np.where(volume[:, None] > 0, voigt / np.maximum(volume[:, None], 1e-12), 0.0)
