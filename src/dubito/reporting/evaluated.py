"""Labelled structures beside what a model says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.core.errors import DataError
from dubito.core.fields import PREDICTION_FIELDS
from dubito.data.store import read_attributes, read_predictions, read_structures
from dubito.data.structures import Structures
from dubito.metrics.profile import EnergyProfile
from dubito.metrics.reduce import atom_norm, structure_max

Array = NDArray[Any]


@dataclass(frozen=True)
class Evaluated:
    """``n`` labelled structures with ``N`` atoms, and predictions by method and field name."""

    structures: Structures
    predictions: Mapping[str, Mapping[str, Array]]

    def __len__(self) -> int:
        return len(self.structures)

    def take(self, rows: Array) -> Evaluated:
        """Select structures by index array or boolean mask."""
        index = np.atleast_1d(np.arange(len(self))[rows])
        ptr = self.structures.ptr
        atoms = np.concatenate([np.arange(ptr[i], ptr[i + 1]) for i in index] or [np.zeros(0, int)])
        chosen = {"structure": index, "atom": atoms}
        return Evaluated(
            self.structures[index],
            {
                method: {name: a[chosen[PREDICTION_FIELDS[name].level]] for name, a in arrays.items()}
                for method, arrays in self.predictions.items()
            },
        )

    def where(self, path: str, *values: str) -> Evaluated:
        """Select the structures whose text column ``path`` has one of ``values``."""
        return self.take(np.isin(np.asarray(self.structures.text(path), dtype=str), values))

    def of(self, method: str) -> Mapping[str, Array]:
        """Return the predictions of one method.

        Raises
        ------
        DataError
            When there are none of that name.
        """
        if method not in self.predictions:
            raise DataError(
                f"There are no predictions of '{method}' among the files to evaluate, only of "
                f"{sorted(self.predictions) or 'no method'}. "
                "Run predict_structures (for a batch predict_batch) with that method."
            )
        return self.predictions[method]

    def means(self, method: str) -> Mapping[str, Array]:
        """Return energies and forces, which all methods share: where ``method`` was not fitted, those of another.

        Raises
        ------
        DataError
            When there are no predictions at all.
        """
        return self.of(method if method in self.predictions else next(iter(self.predictions), method))

    def force_difference(self, method: str) -> Array:
        """Return predicted minus labelled forces, (N, 3) eV/Å."""
        out: Array = self.means(method)["forces"] - self.structures.forces
        return out

    def worst_force_error(self, method: str) -> Array:
        """Return the longest force error vector of each structure, (n,) eV/Å."""
        return structure_max(atom_norm(self.force_difference(method)), self.structures.ptr)


def read_evaluated(path: Path) -> Evaluated:
    """Read labelled structures and predictions that stand in one file; unlabelled ones are left out."""
    whole = Evaluated(read_structures(path), read_predictions(path))
    return whole.take(np.asarray(whole.structures.is_labelled))


def join_labels(selected: Path, shards: Sequence[Path]) -> Evaluated:
    """Join the predictions made at selection with the labels made since, by structure id.

    Structures come in the order of ``selected``; those without a label (failed) are left out.

    Raises
    ------
    DataError
        When a shard holds a label of a structure that was not selected.
    """
    chosen = Evaluated(read_structures(selected), read_predictions(selected))
    labelled = Structures.concatenate([read_structures(path) for path in shards])
    strangers = set(labelled.ids) - set(chosen.structures.ids)
    if strangers:
        raise DataError(
            f"The label shards beside {selected} hold {len(strangers)} structures that were not selected "
            f"(first: {min(strangers)[:8]}). They belong to another selection; delete the folder 'labels' "
            "beside it and start again: finished labels are reused from the cache."
        )
    return with_labels(chosen, labelled)


def with_labels(chosen: Evaluated, labelled: Structures) -> Evaluated:
    """Give structures the labels that others of the same id have; those without a label are left out."""
    row_of = {name: i for i, name in enumerate(labelled.ids)}
    mask = labelled.is_labelled
    rows = np.array([i for i, n in enumerate(chosen.structures.ids) if n in row_of and mask[row_of[n]]], dtype=int)
    with_predictions = chosen.take(rows)
    labels = labelled[np.array([row_of[n] for n in with_predictions.structures.ids], dtype=int)]
    columns = {path.replace("/", "__"): labels.columns[path] for path in labels.columns if path.startswith("labels/")}
    return Evaluated(with_predictions.structures.with_columns(**columns), with_predictions.predictions)


def read_profile(path: Path, method: str) -> EnergyProfile:
    """Read an energy profile: labelled structures with predictions and the root attribute ``profile``.

    Raises
    ------
    DataError
        When the file does not say which structures are minimum and barrier.
    """
    about = read_attributes(path).get("profile")
    if not isinstance(about, dict):
        raise DataError(
            f"{path} lacks the root attribute 'profile', which names its coordinate, minimum and barrier. "
            "Delete it and start the campaign again: only this file is made anew."
        )
    data = Evaluated(read_structures(path), read_predictions(path))
    data.structures.require_labels(str(path))
    said = data.means(method)
    # A barrier's deviation is that of the members' barriers, whichever method drives.
    members = said.get("energy_ensemble", data.predictions.get("ensemble", {}).get("energy_ensemble"))
    return EnergyProfile(
        name=str(about["name"]),
        coordinate=np.asarray(about["coordinate"], "f8"),
        coordinate_label=str(about.get("coordinate_label", "coordinate")),
        coordinate_unit=str(about.get("coordinate_unit", "")),
        reference=np.asarray(data.structures.energy),
        predicted=np.asarray(said["energy"]),
        members=members,
        minimum_index=int(about["minimum_index"]),
        barrier_index=int(about["barrier_index"]),
    )
