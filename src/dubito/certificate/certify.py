"""The certificate of one iteration: from scores and errors of the control slice to a statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dubito.certificate.grouping import group_strata
from dubito.certificate.interval import miss_rate
from dubito.certificate.pool import Array, StratumScores
from dubito.certificate.threshold import Accepted, Group, bound_of, labels_to_hold, select_thresholds
from dubito.config.control_size import control_labels_needed
from dubito.core.errors import DataError

CONFIDENCE = 0.95
_ROUNDING = 1e-9
_NAMED = 3


@dataclass(frozen=True)
class Slice:
    """The random control slice of a pool, in any order.

    Attributes
    ----------
    scores : what the pool was ranked by, (n,); one that is no number is never accepted
    errors : worst true force error, (n,) eV/Å; one that is no number counts as above every tolerance
    strata : the stratum of each
    """

    scores: Array
    errors: Array
    strata: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.scores)

    def is_bad(self, tolerance: float) -> Array:
        """Return whose error exceeds the tolerance, or is unknown, (n,)."""
        return np.asarray(~(self.errors <= tolerance))


def certify(
    control: Slice,
    pool: Mapping[str, StratumScores],
    *,
    tolerance: float,
    risk: float,
    min_accepted_fraction: float,
) -> dict[str, Any]:
    """Return the certificate, as it stands in ``metrics.json`` apart from method, audit and drift.

    ``risk`` is what is guaranteed: the expected share of wrong structures among the accepted ones, over all lots.
    ``bound``, (k + 1) / (n + 1) over the share accepted, comes from this lot alone and is an estimate: only the
    expectation of the true share over ``bound`` is at most 1.

    Parameters
    ----------
    control : the slice, structures that could not be labelled included (their error is NaN: the worst case)
    pool : scores of the whole pool by stratum, control included
    tolerance : eV/Å
    risk : asked bound on the expected share of accepted structures whose error exceeds the tolerance
    min_accepted_fraction : the certificate holds when at least this share of the rest of the pool is accepted

    Raises
    ------
    DataError
        When a control structure is of a stratum that the pool lacks, or a stratum has more of them than structures.
    """
    groups = _groups(control, pool, control.is_bad(tolerance), risk)
    accepted = select_thresholds(groups, risk)
    n_rest = sum(group.n_rest for group in groups)
    fraction = sum(one.n_rest for one in accepted) / max(1, n_rest)
    bound = bound_of(accepted, groups)
    thresholds = {one.threshold for one in accepted}
    said: dict[str, Any] = {
        "tolerance_ev_per_angstrom": tolerance,
        "risk": risk,
        "confidence": CONFIDENCE,
        "n_pool": n_rest + len(control),
        "n_control": len(control),
        "n_control_failed": int(np.isnan(control.errors).sum()),
        "n_bad": int(control.is_bad(tolerance).sum()),
        "holds": _holds(fraction, bound, min_accepted_fraction, risk),
        "threshold": thresholds.pop() if len(thresholds) == 1 else None,
        "accepted_fraction": fraction,
        "bound": bound,
        "n_accepted_bad": sum(one.n_bad for one in accepted),
        "miss_rate": asdict(miss_rate(groups, accepted, risk, CONFIDENCE)),
        "labels_needed": _labels_needed(groups, risk, min_accepted_fraction),
        "strata": [_stratum(*pair, risk, min_accepted_fraction) for pair in zip(groups, accepted, strict=True)],
    }
    return said | {"reason": reason_of(said, min_accepted_fraction)}


def _groups(control: Slice, pool: Mapping[str, StratumScores], bad: Array, risk: float) -> list[Group]:
    strangers = sorted(set(control.strata) - set(pool))
    if strangers:
        raise DataError(
            f"A control structure is of '{strangers[0]}', the pool has only {', '.join(sorted(pool)) or 'nothing'}: "
            "the manifest's strata and pool_scores don't belong together. Delete selection.json and start again."
        )
    scores = np.where(np.isnan(control.scores), np.inf, control.scores)
    strata = np.asarray(control.strata, dtype=object)
    counts = {name: int((strata == name).sum()) for name in pool}
    groups = []
    for members in group_strata(counts, risk):
        rows = np.isin(strata, members)
        parts = tuple(pool[name] for name in members)
        groups.append(Group(_name(members), tuple(members), parts, scores[rows], bad[rows]))
    return groups


def _name(members: Sequence[str]) -> str:
    more = f" + {len(members) - _NAMED} more" if len(members) > _NAMED else ""
    return " + ".join(members[:_NAMED]) + more


def _holds(fraction: float, bound: float, min_accepted_fraction: float, risk: float) -> bool:
    return fraction >= min_accepted_fraction * (1 - _ROUNDING) and bound <= risk * (1 + _ROUNDING)


def _stratum(group: Group, one: Accepted, risk: float, min_accepted_fraction: float) -> dict[str, Any]:
    fraction, bound = one.n_rest / max(1, group.n_rest), bound_of([one], [group])
    return {
        "name": group.name,
        "members": list(group.members),
        "n_pool": group.n_pool,
        "n_control": group.n_control,
        "n_bad": int(group.bad.sum()),
        "threshold": one.threshold,
        "accepted_fraction": fraction,
        "bound": bound,
        "holds": _holds(fraction, bound, min_accepted_fraction, risk),
    }


def _labels_needed(groups: Sequence[Group], risk: float, min_accepted_fraction: float) -> int:
    """Return the control labels that would do if all further ones were right, the slice judged as one group."""
    whole = Group(
        "all",
        tuple(name for group in groups for name in group.members),
        tuple(part for group in groups for part in group.pool),
        np.concatenate([group.scores for group in groups] or [np.zeros(0)]),
        np.concatenate([group.bad for group in groups] or [np.zeros(0, bool)]),
    )
    return labels_to_hold(whole, risk, min_accepted_fraction)


def reason_of(said: Mapping[str, Any], min_accepted_fraction: float) -> str:
    """Say in one plain sentence why the certificate holds or not."""
    n, bad, risk = said["n_control"], said["n_bad"], said["risk"]
    tolerance = f"{said['tolerance_ev_per_angstrom']:g} eV/Å"
    found = f"{bad} of {n} random control structures {'is' if bad == 1 else 'are'} off by more than {tolerance}"
    if said["n_control_failed"]:
        found += f" ({said['n_control_failed']} could not be labelled and {_count(said['n_control_failed'])} as such)"
    needed = control_labels_needed(risk)
    if n < needed:
        return (
            f"Nothing can be accepted at a risk of {risk:.3g}: it takes at least {needed} random control labels, and "
            f"{n} {'was' if n == 1 else 'were'} drawn."
        )
    if said["holds"]:
        return (
            f"{said['accepted_fraction']:.0%} of the pool is accepted, chosen so that at most {risk:.1%} of that is "
            f"expected to be off by more than {tolerance}: {found}."
        )
    more = f"with none further wrong, {said['labels_needed']} control labels would do"
    if said["threshold"] is None and said["accepted_fraction"] == 0.0:
        return f"Nothing can be accepted at a risk of {risk:.3g}: {found}, and no threshold parts them; {more}."
    return (
        f"Only {said['accepted_fraction']:.0%} of the pool can be accepted at a risk of {risk:.3g}, asked for at least "
        f"{min_accepted_fraction:.0%}: {found}; {more}."
    )


def _count(n: int) -> str:
    return "counts" if n == 1 else "count"
