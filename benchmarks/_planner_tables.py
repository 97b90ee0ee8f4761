"""Tables of docs/planning.md."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Table = tuple[list[str], list[list[Any]]]

_FAMILIES = {"power": "power law", "floor": "with a floor", "broken": "with a bend"}
_WAYS = {"planner": "planner", "line": "straight line"}
_RULES = {
    "agreed": "one of the two before, or the curve",
    "once": "nothing",
    "twice": "the iteration before",
    "two_of_three": "one of the two before",
}


def curves(found: Json) -> Table:
    """How often 80 % intervals hold the truth, by family of curves and number of points."""
    head = ["points", "curve", "by", "labels to target inside", "error at 2x inside"]
    head += ["labels off (median factor)", "error off (median)"]
    rows = []
    for size, families in found.get("curves", {}).items():
        for family, ways in families.items():
            for way, r in ways.items():
                rows.append(
                    [
                        size,
                        _FAMILIES[family],
                        _WAYS[way],
                        f"{100 * r['coverage_80_labels']:.0f} %",
                        f"{100 * r['coverage_80_error_at_twice']:.0f} %",
                        f"{10 ** r['median_log10_labels_off']:.2f}",
                        f"{100 * r['median_log_error_off']:.1f} %",
                    ]
                )
    return head, rows


def own_target(found: Json) -> Table:
    """How often 80 % intervals hold the labels to a target that is itself estimated from the tolerance."""
    head = ["control labels of a slice", "curve of", "campaigns", "labels to target inside"]
    head += ["had the target been taken as exact", "target off (median)"]
    kinds = {"test": "test set", "control": "control slices"}
    rows = [
        [
            size,
            kinds[kind],
            r["campaigns"],
            f"{100 * r['coverage_80']:.0f} %",
            f"{100 * r['coverage_80_target_taken_as_exact']:.0f} %",
            f"{100 * r['median_log_target_off']:.1f} %",
        ]
        for size, ways in found.get("own_target", {}).items()
        for kind, r in ways.items()
    ]
    return head, rows


def campaigns(found: Json) -> Table:
    """Where the stop rule ends simulated campaigns, against two oracles."""
    groups = dict(found.get("campaigns", {}))
    groups |= {f"control slices of {k}": v for k, v in found.get("control_slices", {}).items() if k[0] in "14"}
    return _ends("campaigns", groups)


def rules(found: Json) -> Table:
    """The same campaigns by what confirms a certificate."""
    own = found.get("rule")
    groups = {_RULES[k] + (" (in use)" if k == own else ""): v for k, v in found.get("rules", {}).items()}
    head, rows = _ends("confirmed by", groups)
    head += ["mean miss rate / risk at 90 % accepted", "of what is accepted", "of what is accepted: above the risk"]
    for row, r in zip(rows, groups.values(), strict=True):
        row += [f"{r['miss_over_risk_mean']:.2f}", f"{r['accepted_miss_over_risk_mean']:.2f}"]
        row += [f"{100 * r['accepted_miss_above_the_risk']:.0f} %"]
    return head, rows


def plateaus(found: Json) -> Table:
    """How campaigns end that never get within the risk."""
    head = ["true miss rate / risk", "confirmed by", "campaigns", "certified", "stalled", "all 20 iterations"]
    head += ["iterations (median)"]
    rows = []
    for times, ways in found.get("plateaus", {}).items():
        for looks, r in ways.items():
            counts = [r["states"].get(state, 0) for state in ("certified", "stalled", "max_iterations")]
            rows.append([times, _RULES[looks], r["campaigns"], *counts, f"{r['iterations_median']:g}"])
    return head, rows


def _ends(title: str, groups: dict[str, Json]) -> Table:
    head = [title, "number", "within one iteration of the oracle", "of the oracle with the same certificate"]
    head += ["labels, rule over oracle (median)", "certified above the risk", "stopped before the certificate"]
    rows: list[list[Any]] = [
        [
            name,
            r["campaigns"],
            f"{100 * r['within_one_iteration']:.0f} %",
            f"{100 * r['within_one_iteration_same_certificate']:.0f} %",
            f"{r['labels_over_oracle_median']:.2f}",
            f"{100 * r['certified_above_the_risk']:.1f} %",
            r["stopped_before_certificate"],
        ]
        for name, r in groups.items()
    ]
    return head, rows
