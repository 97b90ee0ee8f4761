"""What a model says of many structures.

A *score* is the doubt of a method before it is calibrated, and only ranks; an *uncertainty* is a calibrated standard
deviation in the unit of its quantity. They are kept in different mappings so that one can't be taken for the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Prediction:
    """What a method says of ``n`` structures with ``N`` atoms. float64 numpy arrays.

    Attributes
    ----------
    ptr : (n + 1,) int64
    energy : (n,) eV
    energies : (N,) eV per atom
    forces : (N, 3) eV/Å
    uncertainty : standard deviations by quantity: ``energy`` (n,) eV, ``energies`` (N,) eV,
        ``forces`` (N, 3) eV/Å (per component)
    scores : raw doubt, higher is more doubtful: ``energy`` (n,), ``energies`` (N,), ``forces`` (N,). It has the unit of
        the method: none for densities and distances; eV or eV/Å for methods that give standard deviations, whose raw
        ones may be wrong by orders of magnitude. Compare within one method and one model only
    stress : (n, 6) eV/Å³, Voigt, ASE sign; zeros where there is no cell
    energy_ensemble : (n, M) eV, or None
    forces_ensemble : (M, N, 3) eV/Å where it was asked for, else None; not written to files
    latent : (N, n_latent) invariant features of the atoms, of the first member; not written to files
    features : (N, n_features) the last features, which the latents are linear in, of the same; neither
    """

    ptr: Array
    energy: Array
    energies: Array
    forces: Array
    uncertainty: Mapping[str, Array] = field(default_factory=dict)
    scores: Mapping[str, Array] = field(default_factory=dict)
    stress: Array | None = None
    energy_ensemble: Array | None = None
    forces_ensemble: Array | None = None
    latent: Array | None = None
    features: Array | None = None

    def fields(self) -> dict[str, Array]:
        """Return the arrays under the names of ``core.fields.PREDICTIONS``, as the store writes them."""
        out = {"energy": self.energy, "energies": self.energies, "forces": self.forces}
        out |= {f"{name}_uncertainty": values for name, values in self.uncertainty.items()}
        out |= {f"{name}_score": values for name, values in self.scores.items()}
        if self.energy_ensemble is not None:
            out["energy_ensemble"] = self.energy_ensemble
        return out
