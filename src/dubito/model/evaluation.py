"""What a network says."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Evaluation:
    """What M members say of n structures with N atoms, in the network's precision.

    Energies are without the species' shifts, which are added in float64.

    Attributes
    ----------
    energies : (M, N) eV; energy : (M, n) eV
    forces : (M, N, 3) eV/Å or None; virial : (M, n, 3, 3) eV, the derivative with respect to strain, or None
    latent : (M, N, n_latent), invariant features the energies are linear in
    features : (M, N, C), the last features, which the latents are linear in
    """

    energies: Tensor
    energy: Tensor
    latent: Tensor
    features: Tensor
    forces: Tensor | None = None
    virial: Tensor | None = None
