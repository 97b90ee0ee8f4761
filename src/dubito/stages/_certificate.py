"""The certificate of an iteration, from its manifest, its labelled control slice and the metrics of the one before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dubito.certificate.audit import audit
from dubito.certificate.certify import certify
from dubito.certificate.drift import drift_between
from dubito.certificate.pool import StratumScores, read_pool_scores, sample_of
from dubito.config.selection import SelectionConfig
from dubito.core.files import read_json
from dubito.core.random import seed_for
from dubito.data.structures import Array
from dubito.reporting.evaluated import Evaluated
from dubito.stages._accepted import scoring_mode
from dubito.stages._control_slice import as_drawn, control_rows, slice_of


def certificate_of(
    control: Evaluated | None,
    manifest: Mapping[str, Any],
    method: str,
    selection: SelectionConfig,
    previous: Path | None,
    *,
    seed: int,
) -> dict[str, Any] | None:
    """Return what ``metrics.json`` says under ``certificate``.

    None where no control slice was drawn or the manifest, of an older dubito, lacks the pool's scores.

    Parameters
    ----------
    control : the labelled control structures with what was predicted before they were labelled; None: there is none
    previous : ``metrics.json`` of the iteration before; None: there is none
    seed : of the campaign

    Raises
    ------
    DataError
        When the manifest's lists don't belong together, or when a labelled control structure is not among them.
    """
    rows = control_rows(manifest)
    said = manifest.get("pool_scores")
    if not rows or not said:
        return None
    score_of, pool = {manifest["ids"][i]: manifest["scores"][i] for i in rows}, read_pool_scores(said)
    judged = slice_of(control, manifest, method)
    result = certify(
        judged,
        pool,
        tolerance=selection.force_tolerance_ev_per_angstrom,
        risk=selection.risk,
        min_accepted_fraction=selection.min_accepted_fraction,
    )
    before = {} if previous is None else read_json(previous)
    earlier = before.get("certificate")
    if earlier is not None and earlier["method"] != method:
        earlier = None  # scores of another method are on another scale
    drawn = None if control is None else as_drawn(control, manifest)
    kept = {"ratios": _ratios(drawn, score_of, method)}
    kept["scores"] = [float(score) for score in judged.scores if np.isfinite(score)]
    of_drift = seed_for(seed, "certificate", int(manifest["iteration"]))
    return {
        "method": method,
        "scoring_mode": scoring_mode(manifest.get("adaptive")),
        **result,
        # n_control counts draws: a near-copy of a labelled control structure has its label.
        "n_control_labelled": 0 if control is None else len(control),
        "audit": None
        if earlier is None
        else audit(earlier, int(before["iteration"]), judged, selection.force_tolerance_ev_per_angstrom),
        "drift": None if earlier is None else _drift(earlier["slice"], kept, pool, of_drift),
        "slice": kept,
    }


def miss_rate_of(certificate: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return ``metrics["miss_rate"]``, in its keys, as the certificate has it; empty where there is none."""
    if certificate is None:
        return {}
    n_failed = certificate["n_control_failed"]
    return {
        **certificate["miss_rate"],
        # As ever: those with a label. The certificate counts those that failed among its control structures, as bad.
        "n_control": certificate["n_control"] - n_failed,
        "n_control_failed": n_failed,
        "tolerance_ev_per_angstrom": certificate["tolerance_ev_per_angstrom"],
        "risk": certificate["risk"],
    }


def _ratios(control: Evaluated | None, score_of: Mapping[str, float], method: str) -> list[float]:
    """Return error over uncertainty of each labelled control structure.

    The rms force error over the rms uncertainty of its components; worst error over score where scores have no unit.
    Scores that may be negative (a logarithm of a density) have no ratio: the list is empty.
    """
    if control is None or not len(control):
        return []
    sigma = control.of(method).get("forces_uncertainty")
    if sigma is None:
        doubt = np.array([score_of[name] for name in control.structures.ids])
        ratios = control.worst_force_error(method) / doubt if (doubt > 0).all() else np.zeros(0)
    else:
        ptr = control.structures.ptr
        error, said = (_sums(values, ptr) for values in (control.force_difference(method), sigma))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.sqrt(error / said)
    return [float(ratio) for ratio in ratios if np.isfinite(ratio) and ratio > 0]


def _sums(components: Array, ptr: Array) -> Array:
    """Return the sum of squares over the atoms of each structure, (N, 3) -> (n,)."""
    return np.asarray(np.add.reduceat((np.asarray(components, "f8") ** 2).sum(axis=1), ptr[:-1]))


def _drift(
    before: Mapping[str, list[float]],
    now: Mapping[str, list[float]],
    pool: Mapping[str, StratumScores],
    seed: int,
) -> dict[str, Any] | None:
    """Compare the slice with the one before, and the pool with that."""
    found = drift_between(before["ratios"], now["ratios"], before["scores"], sample_of(pool.values()), seed=seed)
    return None if found is None else found.record()
