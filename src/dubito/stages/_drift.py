"""Whether a control slice can be compared with the one before, and what that shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dubito.certificate.drift import LEVEL, N_TESTS, Drift, Looked, drift_between
from dubito.stages._accepted import FULL

SAME_SHARE = 0.05
"""Adaptive scoring of so little another share of the pool still counts as the same score."""


def share_escalated(manifest: Mapping[str, Any]) -> float | None:
    """Return the share of candidates that adaptive scoring gave the full score; None: it was off."""
    said = manifest.get("adaptive")
    return None if not said else float(said["n_escalated"]) / max(1, int(said["n"]))


def is_on_one_scale(earlier: Mapping[str, Any] | None, scored: Mapping[str, Any]) -> bool:
    """Return whether the scores of an earlier certificate can be compared with those of this slice.

    Parameters
    ----------
    scored : ``method``, ``scoring_mode`` and ``share_escalated`` of this slice
    """
    return earlier is not None and _other_scale(earlier, scored) is None


def compare(
    earlier: Mapping[str, Any] | None, now: Looked, scored: Mapping[str, Any], *, seed: int
) -> tuple[Drift | None, str | None]:
    """Return what has drifted since an earlier certificate, and in a sentence what was not tested; None: nothing.

    Parameters
    ----------
    earlier : the certificate of the iteration before; None: it had none
    scored : see :func:`is_on_one_scale`
    """
    if earlier is None:
        return None, "Drift was not tested: there is no earlier control slice to compare with."
    why = _other_scale(earlier, scored) or _other_share(earlier.get("share_escalated"), scored["share_escalated"])
    before = Looked.read(earlier.get("slice") or {})
    if why is not None:
        return None, f"Drift was not tested: {why}."
    if before is None:
        return None, "Drift was not tested: a dubito that kept no trajectories made the certificate before."
    found = drift_between(before, now, seed=seed)
    return found, _untested(found, before, now)


def _other_scale(earlier: Mapping[str, Any], scored: Mapping[str, Any]) -> str | None:
    """Say why scores are on another scale than before; None: they are not."""
    if earlier["method"] != scored["method"]:
        return f"the slice before was scored by another method ({earlier['method']}, now {scored['method']})"
    before, now = earlier.get("scoring_mode", FULL), scored["scoring_mode"]
    return None if before == now else f"other scoring than in the iteration before ({before} scores then, {now} now)"


def _other_share(before: float | None, now: float | None) -> str | None:
    """Say that adaptive scoring did something else; its share is 1, or unknown, where all scores were full."""
    one, two = (1.0 if share is None else share for share in (before, now))
    if abs(one - two) <= SAME_SHARE:
        return None
    return f"other scoring than in the iteration before (the full score for {one:.0%} then, for {two:.0%} now)"


def _untested(found: Drift | None, before: Looked, now: Looked) -> str | None:
    """Say which of the two tests could not be made; None: both were."""
    few = f"too few structures of different trajectories for a p-value of {LEVEL / N_TESTS:g}"
    if found is None:
        return f"Drift was not tested: {few}."
    if found.scores_p_value is None:
        return f"Only the ratio of error to uncertainty was tested for drift: {few}."
    if found.p_value is None:
        why = few if before.ratios and now.ratios else "the scores of this method have no ratio to errors"
        return f"Only the scores were tested for drift: {why}."
    return None
