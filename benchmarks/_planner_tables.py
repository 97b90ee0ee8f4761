"""Tables of docs/planning.md."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Table = tuple[list[str], list[list[Any]]]

_FAMILIES = {"power": "power law", "floor": "with a floor", "broken": "with a bend"}
_WAYS = {"planner": "planner", "line": "straight line"}


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


def campaigns(found: Json) -> Table:
    """Where the stop rule ends simulated campaigns, against two oracles."""
    head = ["campaigns", "number", "within one iteration of the oracle", "of the oracle with the same certificate"]
    head += ["labels, rule over oracle (median)", "stalled"]
    groups = dict(found.get("campaigns", {}))
    groups |= {f"control slices of {k}": v for k, v in found.get("control_slices", {}).items() if k[0] in "14"}
    rows = [
        [
            name,
            r["campaigns"],
            f"{100 * r['within_one_iteration']:.0f} %",
            f"{100 * r['within_one_iteration_same_certificate']:.0f} %",
            f"{r['labels_over_oracle_median']:.2f}",
            r["states"].get("stalled", 0),
        ]
        for name, r in groups.items()
    ]
    return head, rows
