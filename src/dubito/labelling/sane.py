"""The last look at finished labels before they enter a dataset, whoever made them.

A label that is refused here counts as failed, with its reason, and stays in the label cache: when a limit is changed
it comes back without a calculation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.config.labelling import LabelChecksConfig
from dubito.core.logs import get_logger
from dubito.data.structures import Structures
from dubito.labelling.base import ABSURD_FORCE, NET_FORCE, NET_TORQUE, OUTLIER
from dubito.labelling.outliers import outliers
from dubito.metrics.reduce import atom_norm

log = get_logger(__name__)

Array = NDArray[Any]
Refusals = dict[int, tuple[str, str]]

_LABELS = {"labels__energy": np.nan, "labels__mask": False, "labels__forces": np.nan, "labels__stress": np.nan}
_TEXTS = ("provenance__kind", "provenance__method", "provenance__code_version", "provenance__settings_hash")


def refuse_insane(
    labelled: Structures,
    report: Mapping[str, Any],
    predictions: Mapping[str, Mapping[str, Array]] | None,
    checks: LabelChecksConfig,
    refused_before: Mapping[int, tuple[str, str]] | None = None,
) -> tuple[Structures, dict[str, Any]]:
    """Take the labels that can't be right out of what a labelling job made.

    Parameters
    ----------
    labelled, report : what :func:`dubito.labelling.service.label_structures` returned
    predictions : by method, what the model that selected these structures said of them, in their order; None or
        empty in the first iteration, when there was none
    refused_before : rows that another check refused, with reason and explanation

    Returns
    -------
    The same with the refused labels among ``failed`` (reasons ``net_force``, ``net_torque``, ``absurd_force``,
    ``outlier``), their energies and forces NaN.
    """
    refused = {**insane(labelled, checks), **(refused_before or {})}
    if checks.refuse_outliers and predictions:
        sound = _without(labelled, refused)
        said = next(iter(predictions.values()))
        refused |= {row: (OUTLIER, _advice(text)) for row, text in outliers(sound, said, checks).items()}
    if not refused:
        return labelled, dict(report)
    ids = labelled.ids
    for row, (reason, text) in sorted(refused.items()):
        log.warning("the label of structure %s is refused (%s): %s", ids[row], reason, text)
    attempts = labelled.column("provenance/attempts")
    failed = [{"id": ids[row], "reason": reason, "message": text} for row, (reason, text) in sorted(refused.items())]
    done = int(report["done"]) - len(refused)
    out = {
        **report,
        "done": done,
        "failed": [*report["failed"], *failed],
        "retried": int(report["retried"]) - sum(int(attempts[row]) > 1 for row in refused),
        # Which of them were known before nobody remembers here.
        "reused": min(int(report["reused"]), done),
    }
    return _without(labelled, refused), out


def insane(labelled: Structures, checks: LabelChecksConfig) -> Refusals:
    """Return the labels that no physics allows: row to reason and explanation."""
    refused: Refusals = {}
    for row in np.flatnonzero(labelled.is_labelled):
        one = labelled[int(row)]
        fault = _fault(one, checks)
        if fault is not None:
            refused[int(row)] = fault
    return refused


def _fault(one: Structures, checks: LabelChecksConfig) -> tuple[str, str] | None:
    forces = one.forces
    largest = float(atom_norm(forces).max())
    if not largest <= checks.max_force_ev_per_angstrom:
        return ABSURD_FORCE, (
            f"A force of {largest:.4g} eV/Å acts on one of its atoms (limit {checks.max_force_ev_per_angstrom:g} "
            "eV/Å): atoms on top of each other, or a wrong gradient. If such forces are wanted, raise "
            "labelling.checks.max_force_ev_per_angstrom."
        )
    net = float(np.linalg.norm(forces.sum(axis=0)))
    if net > checks.max_net_force_ev_per_angstrom:
        return NET_FORCE, (
            f"Its forces sum to {net:.3g} eV/Å instead of 0 (limit {checks.max_net_force_ev_per_angstrom:g} eV/Å): "
            "moving the molecule as a whole would change its energy. Mend the labels, or raise "
            "labelling.checks.max_net_force_ev_per_angstrom."
        )
    torque = 0.0 if one.pbc.any() else net_torque(one.positions, forces)
    if torque > checks.max_net_torque_ev_per_angstrom:
        return NET_TORQUE, (
            f"Its forces exert a torque of {torque:.3g} eV/Å at the outermost atom instead of 0 (limit "
            f"{checks.max_net_torque_ev_per_angstrom:g} eV/Å): turning the molecule as a whole would change its "
            "energy. Take a finer grid, mend the labels, or raise labelling.checks.max_net_torque_ev_per_angstrom."
        )
    return None


def net_torque(positions: Array, forces: Array) -> float:
    """Return the torque of forces about the center, over the distance of the outermost atom: eV/Å.

    Zero for a molecule whose energy does not change when it is turned. Divided by that distance it is a force, to be
    compared with the net force, whatever the molecule's size.
    """
    arms = positions - positions.mean(axis=0)
    radius = float(atom_norm(arms).max())
    if radius < 1e-6:
        return 0.0
    return float(np.linalg.norm(np.cross(arms, forces).sum(axis=0))) / radius


def _advice(text: str) -> str:
    return (
        f"{text} If the label is right after all, raise labelling.checks.outlier_factor (or set refuse_outliers to "
        "false): it is kept in the cache and costs nothing again."
    )


def _without(labelled: Structures, rows: Mapping[int, object]) -> Structures:
    """Return the structures with the labels of ``rows`` taken away, as those of failed ones are."""
    if not rows:
        return labelled
    index = np.array(sorted(rows), dtype=int)
    atoms = np.isin(labelled.structure_of_atom, index)
    columns: dict[str, Any] = {}
    for name, nothing in _LABELS.items():
        path = name.replace("__", "/")
        if path in labelled.columns:
            values = labelled.columns[path].copy()
            values[atoms if len(values) == len(atoms) and name == "labels__forces" else index] = nothing
            columns[name] = values
    for name in _TEXTS:
        values = np.array(labelled.columns[name.replace("__", "/")])
        values[index] = b""
        columns[name] = values
    return labelled.with_columns(**columns)
