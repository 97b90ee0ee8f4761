"""ASE calculator with uncertainties."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from dubito.core.errors import ModelError
from dubito.core.logs import get_logger
from dubito.data.prediction import Prediction
from dubito.data.structures import Structures
from dubito.uncertainty.base import Predictor
from dubito.uncertainty.registry import method_class

if TYPE_CHECKING:
    from dubito.model.potential import Potential

log = get_logger(__name__)
_UNCERTAINTIES = ("energy_uncertainty", "energies_uncertainty", "forces_uncertainty")


class DubitoCalculator(Calculator):  # type: ignore[misc]
    """Energies, forces, stress and their uncertainties from a trained ensemble.

    Parameters
    ----------
    model : path of an ``ensemble.safetensors``
    uncertainty : name of a method, whose fitted state is looked for beside the model
        (``uncertainty/<name>.safetensors``), or the path of such a state, whatever its name; None: no uncertainties
    device : torch device
    max_force_uncertainty_ev_per_angstrom : warn in the log when an atom's exceeds this; None: never. The method must
        give an uncertainty of forces

    Results are eV, eV/Å and eV/Å³: ``energy``, ``free_energy`` (the same), ``energies``, ``forces``,
    ``stress`` (with a cell), ``energy_uncertainty``, ``energies_uncertainty``, ``forces_uncertainty`` (n, 3); the
    first two only from methods that give them (``dubito methods`` says which).
    ASE's writers drop the last three; :meth:`annotate` puts them where writers keep them.

    Raises
    ------
    ModelError
        When the model or the state can't be used, or a limit is set on forces whose uncertainty is not given.
    """

    implemented_properties: ClassVar[list[str]] = [
        "energy", "free_energy", "energies", "forces", "stress", *_UNCERTAINTIES,
    ]  # fmt: skip

    def __init__(
        self,
        model: str | Path,
        uncertainty: str | Path | None = "ensemble",
        *,
        device: str = "cpu",
        max_force_uncertainty_ev_per_angstrom: float | None = None,
        **kwargs: Any,
    ) -> None:
        from dubito.model.artifact import load_potential

        super().__init__(**kwargs)
        self.potential = load_potential(Path(model), device)
        self.max_force_uncertainty = max_force_uncertainty_ev_per_angstrom
        self.predictor: Predictor = self.potential
        if uncertainty is not None:
            self.predictor = _fitted(self.potential, Path(model), uncertainty)
        self.gives_uncertainty = uncertainty is not None
        if self.max_force_uncertainty is not None:
            _require_forces(self.predictor, uncertainty)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute all properties of ``atoms``; called by ASE."""
        super().calculate(atoms, properties, system_changes)
        one = _structure(self.atoms)
        prediction = self.predictor.predict(one)
        self.results = _results(prediction, bool(one.pbc.all()))
        if self.gives_uncertainty:
            said = prediction.uncertainty
            self.results |= {f"{key}_uncertainty": said[key] for key in ("energies", "forces") if key in said}
            if "energy" in said:
                self.results["energy_uncertainty"] = float(said["energy"][0])
            self._warn(prediction)

    def _warn(self, prediction: Prediction) -> None:
        if self.max_force_uncertainty is None:
            return
        said = prediction.uncertainty.get("forces")
        if said is None:
            raise ModelError(
                f"The method gives no uncertainty of forces but {sorted(prediction.uncertainty)}, so "
                "max_force_uncertainty_ev_per_angstrom can't be watched. Leave it out, or take another method."
            )
        worst = float(np.linalg.norm(said, axis=1).max())
        if worst > self.max_force_uncertainty:
            log.warning(
                "force uncertainty %.3g eV/Å exceeds %.3g: do not trust this structure without a reference",
                worst,
                self.max_force_uncertainty,
            )

    def annotate(self, atoms: Atoms) -> Atoms:
        """Compute ``atoms`` and write all results into its info and arrays, so that extxyz keeps them.

        Names are prefixed (``dubito_energy``, ``dubito_forces``, …) so that nobody takes them for reference labels.
        """
        self.calculate(atoms)
        for name, value in self.results.items():
            if np.ndim(value) and len(value) == len(atoms) and name != "stress":
                atoms.arrays[f"dubito_{name}"] = np.array(value)
            else:
                atoms.info[f"dubito_{name}"] = value
        return atoms

    def standard_results(self) -> dict[str, Any]:
        """Return only the results that ASE knows, e.g. for ``SinglePointCalculator``."""
        return {name: value for name, value in self.results.items() if name not in _UNCERTAINTIES}


def _require_forces(predictor: Predictor, uncertainty: str | Path | None) -> None:
    """Refuse a limit that nothing would be compared with."""
    targets = sorted(getattr(predictor, "targets", ())) if uncertainty is not None else []
    if "forces" not in targets:
        raise ModelError(
            f"max_force_uncertainty_ev_per_angstrom needs an uncertainty of forces, but '{uncertainty}' gives "
            f"{targets or 'none'}. Leave the limit out, or name a method that gives it (dubito methods)."
        )


def _fitted(potential: Potential, model: Path, uncertainty: str | Path) -> Predictor:
    from dubito.uncertainty.files import method_of

    path = Path(uncertainty)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise ModelError(f"{path} does not exist or is no file. Give the path of a fitted method's state.")
        # A method of another package may have files of its own, which only their name tells.
        return method_class(method_of(path) or path.stem).load(path, potential)
    folder = model.parent / "uncertainty"
    beside = folder / f"{uncertainty}.safetensors"
    found = method_class(str(uncertainty))
    states = sorted(folder.glob("*.safetensors"))
    fitted = [state.stem for state in states if method_of(state) == state.stem != uncertainty]
    instead = f"name one that was fitted ({', '.join(fitted)})" if fitted else "fit another method first"
    if potential.n_members < getattr(found, "min_members", 1):
        raise ModelError(
            f"{model} has {potential.n_members} member, which has no spread for the method '{uncertainty}'. Give "
            f"uncertainty=None for energies and forces alone, or {instead}."
        )
    if beside.exists():
        return found.load(beside, potential)
    if uncertainty == "ensemble":
        from dubito.uncertainty.ensemble import EnsembleUncertainty

        log.warning("%s is missing: the ensemble's uncertainty is not calibrated", beside)
        return EnsembleUncertainty.uncalibrated(potential)
    raise ModelError(f"{beside} does not exist. Fit the method, give the path of its state, or {instead}.")


def _structure(atoms: Atoms) -> Structures:
    return Structures.build(
        [atoms.numbers],
        [atoms.positions],
        cell=np.asarray(atoms.cell)[None],
        pbc=np.asarray(atoms.pbc)[None],
    )


def _results(prediction: Prediction, periodic: bool) -> dict[str, Any]:
    energy = float(prediction.energy[0])
    out: dict[str, Any] = {
        "energy": energy,
        "free_energy": energy,
        "energies": prediction.energies,
        "forces": prediction.forces,
    }
    if periodic and prediction.stress is not None:
        out["stress"] = prediction.stress[0]
    return out
