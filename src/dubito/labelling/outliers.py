"""Labels that contradict the ensemble which selected their structures.

Selection prefers structures of which the ensemble knows little, so that an honest label may be far from what was
predicted. A label is therefore not held to the prediction but to how far the other labels of the same job are from
theirs, and to the uncertainty predicted for it; and the faults that are looked for must be recognised:

* an energy that is far off while the forces are not far enough off to explain it. Moving the atoms to where the
  prediction is right changes the energy by about force error times distance, and honest labels need less than
  ``LENGTH``; another electronic state, or an energy of another reference, needs many ångström;
* a force on one atom that is far off (a flipped sign, another state), or forces all too long or too short by one
  factor. This is judged only where the ensemble has shown on the others that it knows forces (``COMPETENT``): one that
  is wrong everywhere by as much as the forces themselves can't accuse anybody.

``benchmarks/insane_labels.py`` measures what is found and what is refused wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.config.labelling import LabelChecksConfig
from dubito.data.structures import Structures
from dubito.metrics.reduce import atom_norm, structure_max

Array = NDArray[Any]

MIN_OTHERS = 3
"""Other labels of the job that a spread needs; with fewer the predicted uncertainties of the batch take its place."""
QUANTILE = 0.75
"""Which of the others' deviations is their spread: batches have heavy tails, and the median would accuse them."""
LENGTH = 0.5
"""Å: an energy is too far off for its forces when it needs more than this times their error."""
COMPETENT = 0.3
"""Half of the others' worst force errors, relative to the force, must be below this before forces are judged."""
FEW = 2.0
"""Without a spread of the others the factor grows by this."""
EXPLAINED = 0.5
"""Forces are too long or too short by one factor when it takes away half of the difference, or more."""
SLOPE_FLOOR = 0.02
"""A smaller spread of that factor is not believed."""


@dataclass(frozen=True)
class _Said:
    """Labels and predictions of ``n`` structures with ``N`` atoms; uncertainties may be missing."""

    ptr: Array
    energy: Array
    energy_said: Array
    forces: Array
    forces_said: Array
    energy_sigma: Array | None
    forces_sigma: Array | None

    @property
    def n_atoms(self) -> Array:
        return np.diff(self.ptr)

    @property
    def row_of_atom(self) -> Array:
        return np.repeat(np.arange(len(self.energy)), self.n_atoms)

    def total(self, of_atoms: Array) -> Array:
        """Sum values of atoms over each structure."""
        out: Array = np.add.reduceat(of_atoms, self.ptr[:-1])
        return out


def outliers(labelled: Structures, predictions: Mapping[str, Array], limits: LabelChecksConfig) -> dict[int, str]:
    """Return why labels contradict their predictions, by row.

    Parameters
    ----------
    labelled : structures of one labelling job; those without a label are passed over
    predictions : ``energy`` (n,) eV, ``forces`` (N, 3) eV/Å and, where the method gives them, their uncertainties
    """
    rows = np.flatnonzero(labelled.is_labelled)
    if not len(rows) or not {"energy", "forces"} <= set(predictions):
        return {}
    said = _taken(labelled, predictions, rows)
    found = _energies(said, limits)
    for judge in (_factors, _forces):
        found |= {row: text for row, text in judge(said, limits).items() if row not in found}
    return {int(rows[row]): text for row, text in sorted(found.items())}


def _taken(labelled: Structures, predictions: Mapping[str, Array], rows: Array) -> _Said:
    part = labelled[rows]
    atoms = np.concatenate([np.arange(labelled.ptr[i], labelled.ptr[i + 1]) for i in rows])

    def get(name: str, index: Array) -> Array | None:
        return np.asarray(predictions[name], "f8")[index] if name in predictions else None

    return _Said(
        ptr=part.ptr,
        energy=part.energy,
        energy_said=np.asarray(predictions["energy"], "f8")[rows],
        forces=part.forces,
        forces_said=np.asarray(predictions["forces"], "f8")[atoms],
        energy_sigma=get("energy_uncertainty", rows),
        forces_sigma=get("forces_uncertainty", atoms),
    )


def _energies(said: _Said, limits: LabelChecksConfig) -> dict[int, str]:
    n_atoms = said.n_atoms
    off = (said.energy - said.energy_said) / n_atoms
    sigma = None if said.energy_sigma is None else said.energy_sigma / n_atoms
    # A shift that all labels share is no fault of one of them.
    center = _of_others(off, 0.5, np.zeros_like(off))
    distance = np.abs(off - center)
    spread = np.array([_quantile(np.abs(np.delete(off, i) - center[i]), QUANTILE) for i in range(len(off))])
    scale, factor = _scale(spread, sigma, limits)
    if scale is None:
        return {}
    scale = np.maximum(scale, limits.outlier_floor_ev_per_atom)
    force_error = np.sqrt(said.total(atom_norm(said.forces - said.forces_said) ** 2))
    wrong = (distance > factor * scale) & (distance * n_atoms > LENGTH * force_error)
    return {
        int(
            i
        ): f"Its energy is {off[i]:+.3g} eV per atom from what the ensemble that selected the structure predicted, "
        f"{distance[i] / scale[i]:.0f} times what the other labels and the predicted uncertainty allow for "
        f"({scale[i]:.2g} eV per atom), and its forces (off by {force_error[i]:.2g} eV/Å in all) do not explain it: "
        "most likely another electronic state."
        for i in np.flatnonzero(wrong)
    }


def _forces(said: _Said, limits: LabelChecksConfig) -> dict[int, str]:
    error = atom_norm(said.forces - said.forces_said)
    sigma = None if said.forces_sigma is None else atom_norm(said.forces_sigma)
    worst = structure_max(error, said.ptr)
    spread = _of_others(worst, QUANTILE, np.full(len(worst), np.nan))
    row = said.row_of_atom
    scale, factor = _scale(spread[row], sigma, limits)
    if scale is None:
        return {}
    scale = np.maximum(scale, limits.outlier_floor_ev_per_angstrom)
    competent = _competent(said, worst, sigma)
    found: dict[int, str] = {}
    for i in np.flatnonzero(competent):
        atoms = slice(said.ptr[i], said.ptr[i + 1])
        ratio = error[atoms] / scale[atoms]
        atom = int(ratio.argmax())
        if ratio[atom] > factor:
            found[int(i)] = (
                f"The force on its atom {atom} is {error[atoms][atom]:.3g} eV/Å from what the ensemble that selected "
                f"the structure predicted, {ratio[atom]:.0f} times what the other labels and the predicted uncertainty "
                f"allow for ({scale[atoms][atom]:.2g} eV/Å)."
            )
    return found


def _factors(said: _Said, limits: LabelChecksConfig) -> dict[int, str]:
    """Find labels whose forces are all longer or shorter than predicted, by a factor the others do not show."""
    if len(said.energy) <= MIN_OTHERS:
        return {}
    square = said.total((said.forces_said**2).sum(1))
    slope = said.total((said.forces * said.forces_said).sum(1)) / np.maximum(square, 1e-12)
    off = np.abs(slope - 1)
    spread = _of_others(off, QUANTILE, np.full(len(off), np.inf))
    sigma = np.zeros_like(off)
    if said.forces_sigma is not None:
        sigma = np.sqrt(said.total(((said.forces_sigma * said.forces_said) ** 2).sum(1))) / np.maximum(square, 1e-12)
    scale = np.maximum(np.hypot(spread, sigma), SLOPE_FLOOR)
    before = said.total(((said.forces - said.forces_said) ** 2).sum(1))
    after = said.total(((said.forces - slope[said.row_of_atom, None] * said.forces_said) ** 2).sum(1))
    error = atom_norm(said.forces - said.forces_said)
    worst = structure_max(error, said.ptr)
    wrong = (off > limits.outlier_factor * scale) & (after < EXPLAINED**2 * before) & _competent(said, worst, None)
    wrong &= worst > limits.outlier_floor_ev_per_angstrom
    return {
        int(
            i
        ): f"All its forces are {slope[i]:.2f} times what the ensemble that selected the structure predicted, while "
        f"those of the other labels agree with it within {100 * spread[i]:.0f} %."
        for i in np.flatnonzero(wrong)
    }


def _competent(said: _Said, worst: Array, sigma: Array | None) -> Array:
    """Say of each structure whether the ensemble knows the forces of the others; few labels: whether it says so."""
    length = np.maximum(
        structure_max(atom_norm(said.forces), said.ptr), structure_max(atom_norm(said.forces_said), said.ptr)
    )
    length = np.maximum(length, 1e-9)
    doubt = np.full(len(worst), np.inf) if sigma is None else structure_max(sigma, said.ptr) / length
    known: Array = _of_others(worst / length, 0.5, doubt) < COMPETENT
    return known


def _scale(spread: Array, sigma: Array | None, limits: LabelChecksConfig) -> tuple[Array | None, float]:
    """Return what a label may be off by, and the factor to multiply it with; None: there is nothing to judge by."""
    if np.isfinite(spread).all():
        return (spread if sigma is None else np.hypot(spread, sigma)), limits.outlier_factor
    if sigma is None:
        return None, limits.outlier_factor
    # The job has hardly any other label: what the method says of all its structures stands for their spread.
    return np.hypot(sigma, np.quantile(sigma, QUANTILE)), FEW * limits.outlier_factor


def _of_others(values: Array, quantile: float, otherwise: Array) -> Array:
    """Return a quantile of all values but each one's own, or ``otherwise`` where there are too few."""
    if len(values) <= MIN_OTHERS:
        return otherwise
    return np.array([_quantile(np.delete(values, i), quantile) for i in range(len(values))])


def _quantile(values: Array, quantile: float) -> float:
    return float(np.quantile(values, quantile)) if len(values) >= MIN_OTHERS else float("nan")
