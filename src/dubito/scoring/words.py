"""What is said of the scores of a pool: the guarantee that holds, and what was spent."""

from __future__ import annotations

from typing import Any

from dubito.scoring.cascade import Rule, Verdict
from dubito.scoring.evaluations import Evaluations


def guarantee(rule: Rule, verdict: Verdict) -> str:
    """Return the sentence that holds, and no more."""
    if verdict.cutoff is None:
        return "Every candidate got the full score."
    fixed = (
        "a level fixed beforehand"
        if rule.level is not None
        else f"a level fixed by {verdict.n_fit} other candidates drawn at random, meant for the top "
        f"{100 * (verdict.share or 0):.2g} % of the pool"
    )
    return (
        f"A candidate whose full score is at least {verdict.threshold:.4g} eV/Å ({fixed}) got the full score with a "
        f"probability of at least {rule.recall:g}, averaged over such candidates and over the random draw of "
        f"{verdict.n_calibration} candidates with {verdict.n_positives} such ones that the cut-off was taken from. "
        "Nothing is said of other candidates, of a single one, or of another pool."
    )


def record(rule: Rule, verdict: Verdict, account: Evaluations) -> dict[str, Any]:
    """Return the root attribute ``adaptive`` of a file of candidates."""
    return {
        "n": account.n,
        "n_fit": verdict.n_fit,
        "n_calibration": verdict.n_calibration,
        "n_positives": verdict.n_positives,
        "n_escalated": account.n_full,
        "threshold": verdict.threshold,
        "cutoff": verdict.cutoff,
        "share": verdict.share,
        "recall_target": rule.recall,
        "guarantee": guarantee(rule, verdict),
        "compute_ratio": account.ratio,
        "evaluations": account.spent,
        "saved_evaluations": account.saved,
        "same_p": verdict.same_p,
        "note": verdict.note,
    }


def line(account: Evaluations, verdict: Verdict) -> str:
    """Return it for the person who watches."""
    if verdict.cutoff is None:
        return f"all members for all of them: {verdict.note}"
    return (
        f"all members for {account.n_full} of them, which took {account.ratio:.2f} of the evaluations "
        f"({account.saved} saved)"
    )
