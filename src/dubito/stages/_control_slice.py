"""The control slice as it was drawn: near-copies of a labelled control structure count too, with its label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dubito.certificate.certify import Slice
from dubito.core.errors import DataError
from dubito.reporting.evaluated import Evaluated

CONTROL = "control"


def control_rows(manifest: Mapping[str, Any]) -> list[int]:
    """Return the places of the control structures that were to be labelled in the lists of a manifest."""
    return [i for i, reason in enumerate(manifest["reasons"]) if reason == CONTROL]


def control_copies(manifest: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return what was drawn besides, but is a near-copy of one of these; an older dubito drew no copies."""
    return manifest.get("control_copies") or ()


def as_drawn(control: Evaluated, manifest: Mapping[str, Any]) -> Evaluated:
    """Return each labelled control structure as often as it, or a near-copy of it, was drawn."""
    times = Counter(copy["of"] for copy in control_copies(manifest))
    return control.take(np.repeat(np.arange(len(control)), [1 + times[name] for name in control.structures.ids]))


def slice_of(control: Evaluated | None, manifest: Mapping[str, Any], method: str) -> Slice:
    """Return scores, errors and strata of all that was drawn: in the manifest's order, copies last.

    A failed label has no error, nor have copies of the structure.

    Parameters
    ----------
    control : the labelled control structures, each once; None: there is none

    Raises
    ------
    DataError
        When the manifest's lists don't belong together, or when a labelled control structure is not among them.
    """
    ids, strata, scores = manifest["ids"], manifest.get("strata") or [], manifest["scores"]
    if not len(strata) == len(scores) == len(ids):
        raise DataError(
            f"The manifest of iteration {manifest.get('iteration')} has {len(ids)} structures, "
            f"{len(scores)} scores and {len(strata)} strata, expected as many of each. Delete it and start again."
        )
    rows, copies = control_rows(manifest), control_copies(manifest)
    errors: dict[str, float] = {}
    if control is not None:
        errors = dict(zip(control.structures.ids, control.worst_force_error(method).tolist(), strict=True))
    drawn = {ids[i] for i in rows}
    missing = sorted((set(errors) | {copy["of"] for copy in copies}) - drawn)
    if missing:
        raise DataError(
            f"The manifest of iteration {manifest.get('iteration')} has no score for control structure "
            f"{missing[0][:8]}: manifest and selection don't belong together. Delete both and start again."
        )
    nothing = float("nan")
    said = [scores[i] for i in rows] + [copy["score"] for copy in copies]
    whose = [ids[i] for i in rows] + [copy["of"] for copy in copies]
    return Slice(
        scores=np.array([nothing if score is None else score for score in said], dtype="f8"),
        errors=np.array([errors.get(name, nothing) for name in whose], dtype="f8"),
        strata=tuple([str(strata[i]) for i in rows] + [str(copy["stratum"]) for copy in copies]),
    )
