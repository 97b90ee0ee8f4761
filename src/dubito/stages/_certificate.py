"""The certificate of an iteration, from its manifest, its labelled control slice and the metrics of the one before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dubito.certificate.audit import audit
from dubito.certificate.certify import Slice, certify
from dubito.certificate.drift import Looked
from dubito.certificate.pool import read_pool_scores
from dubito.config.selection import SelectionConfig
from dubito.core.files import read_json
from dubito.core.random import seed_for
from dubito.data.structures import Array
from dubito.reporting.evaluated import Evaluated
from dubito.stages._accepted import scoring_mode
from dubito.stages._control_slice import as_drawn, control_copies, control_rows, slice_of
from dubito.stages._drift import compare, is_on_one_scale, share_escalated


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
    said = manifest.get("pool_scores")
    if not control_rows(manifest) or not said:
        return None
    judged = slice_of(control, manifest, method)
    result = certify(
        judged,
        read_pool_scores(said),
        tolerance=selection.force_tolerance_ev_per_angstrom,
        risk=selection.risk,
        min_accepted_fraction=selection.min_accepted_fraction,
    )
    before = {} if previous is None else read_json(previous)
    earlier = before.get("certificate")
    kept = _looked(control, judged, manifest, method)
    scored = {"scoring_mode": scoring_mode(manifest.get("adaptive")), "share_escalated": share_escalated(manifest)}
    of_drift = seed_for(seed, "certificate", int(manifest["iteration"]))
    drift, note = compare(earlier, kept, {"method": method, **scored}, seed=of_drift)
    if not is_on_one_scale(earlier, {"method": method, **scored}):
        earlier = None
    return {
        "method": method,
        **result,
        # n_control counts draws: a near-copy of a labelled control structure has its label.
        "n_control_labelled": 0 if control is None else len(control),
        "audit": None
        if earlier is None
        else audit(earlier, int(before["iteration"]), judged, selection.force_tolerance_ev_per_angstrom),
        "drift": None if drift is None else drift.record(),
        "drift_note": note,
        **scored,
        "slice": kept.record(),
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


def _looked(control: Evaluated | None, judged: Slice, manifest: Mapping[str, Any], method: str) -> Looked:
    """Return ratios and scores of the slice, each with what it is alike with: its trajectory, or itself alone.

    Copies are alike with what they are copies of. A structure without label has no ratio, nor is its trajectory known.
    """
    group_of = {} if control is None else dict(zip(control.structures.ids, _groups(control), strict=True))
    score_of = dict(zip(manifest["ids"], manifest["scores"], strict=True))
    drawn = None if control is None else as_drawn(control, manifest)
    ratios = [] if drawn is None else list(zip(_ratios(drawn, score_of, method), _groups(drawn), strict=True))
    good = [(float(ratio), group) for ratio, group in ratios if np.isfinite(ratio) and ratio > 0]
    whose = [manifest["ids"][i] for i in control_rows(manifest)] + [copy["of"] for copy in control_copies(manifest)]
    scores = [(float(s), group_of.get(i, i)) for s, i in zip(judged.scores, whose, strict=True) if np.isfinite(s)]
    return Looked(
        ratios=tuple(ratio for ratio, _ in good),
        ratio_trajectories=tuple(group for _, group in good),
        scores=tuple(score for score, _ in scores),
        score_trajectories=tuple(group for _, group in scores),
    )


def _groups(control: Evaluated) -> list[str]:
    names = control.structures.text("origin/trajectory"), control.structures.ids
    return [trajectory or name for trajectory, name in zip(*names, strict=True)]


def _ratios(control: Evaluated, score_of: Mapping[str, float], method: str) -> Array:
    """Return error over uncertainty of each labelled control structure, (n,), NaN where it has none.

    The rms force error over the rms uncertainty of its components; worst error over score where scores have no unit.
    Scores that may be negative (a logarithm of a density) have no ratio.
    """
    if not len(control):
        return np.zeros(0)
    sigma = control.of(method).get("forces_uncertainty")
    if sigma is None:
        doubt = np.array([score_of[name] for name in control.structures.ids])
        if not (doubt > 0).all():
            return np.full(len(control), np.nan)
        return np.asarray(control.worst_force_error(method) / doubt)
    ptr = control.structures.ptr
    error, said = (_sums(values, ptr) for values in (control.force_difference(method), sigma))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.sqrt(error / said))


def _sums(components: Array, ptr: Array) -> Array:
    """Return the sum of squares over the atoms of each structure, (N, 3) -> (n,)."""
    return np.asarray(np.add.reduceat((np.asarray(components, "f8") ** 2).sum(axis=1), ptr[:-1]))
