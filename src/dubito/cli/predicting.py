"""Predict a file of structures with a trained ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dubito.core.errors import DataError
from dubito.core.fields import PREDICTION_FIELDS
from dubito.core.files import atomic_path
from dubito.data.formats import read_any, to_ase
from dubito.data.prediction import Array
from dubito.data.store import write_structures
from dubito.data.structures import Structures
from dubito.metrics.reduce import worst_atom

if TYPE_CHECKING:
    from dubito.calculator import DubitoCalculator

_BATCH = 256


def predict_file(calculator: DubitoCalculator, method: str, path: Path, output: Path) -> str:
    """Write the structures of ``path`` with their predictions; return one line about them.

    Raises
    ------
    DataError
        When the file can't be read or holds no structures.
    """
    structures = read_any(path)
    if not len(structures):
        raise DataError(f"{path} holds no structures. Name a file with at least one.")
    parts = [
        calculator.predictor.predict(structures[slice(first, first + _BATCH)]).fields()
        for first in range(0, len(structures), _BATCH)
    ]
    fields = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if output.suffix == ".h5":
        write_structures(output, structures, predictions={method: fields})
    else:
        _write_annotated(output, structures, fields)
    line = f"{output}: {len(structures)} structures predicted"
    if "forces_uncertainty" in fields:
        doubt = worst_atom(fields["forces_uncertainty"], structures.ptr)
        line += (
            f"; force uncertainty of the worst atom {np.median(doubt):.3f} eV/Å in the median, "
            f"{doubt.max():.3f} at most (structure {int(doubt.argmax())})"
        )
    return line


def _write_annotated(output: Path, structures: Structures, fields: dict[str, Array]) -> None:
    """Write extended XYZ with predictions as ``dubito_<name>`` beside the labels the file had."""
    import ase.io

    images = to_ase(structures)
    for i, atoms in enumerate(images):
        own = slice(structures.ptr[i], structures.ptr[i + 1])
        for name, values in fields.items():
            if PREDICTION_FIELDS[name].level == "structure":
                atoms.info[f"dubito_{name}"] = values[i].tolist() if values.ndim == 1 else values[i]
            else:
                atoms.arrays[f"dubito_{name}"] = values[own]
    with atomic_path(output) as partial:
        ase.io.write(partial, images, format="extxyz")
