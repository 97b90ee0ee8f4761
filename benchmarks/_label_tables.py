"""Tables of docs/labelling.md: the SCF ladder and planted wrong labels."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Table = tuple[list[str], list[list[Any]]]


def ladder_counts(found: Json) -> Table:
    """How many each way converges, by category."""
    parts = {**found.get("by_category", {}), "all": found} if found else {}
    head = ["what is hard", "structures", "plain DIIS", "the ladder", "excited labels: DIIS", "excited: ladder"]
    rows = [
        [name, *[p[key] for key in ("structures", "plain_diis", "ladder")], *p["excited_labels"].values()]
        for name, p in parts.items()
    ]
    return head, rows


def ladder_rows(found: Json) -> Table:
    """The structures that plain DIIS loses, or of which it labels an excited state."""
    head = ["structure", "level", "plain DIIS", "ladder: rung", "eV above the lowest known", "on the way"]
    rows = []
    for r in found.get("table", []):
        plain, ladder = r["plain"], r["ladder"]
        if plain["converged"] and plain["above_lowest_ev"] <= found["excited_above_ev"]:
            continue
        lost = (
            f"lost ({plain['cycles']} cycles)" if not plain["converged"] else f"{plain['above_lowest_ev']:.2f} eV above"
        )
        above = "–" if ladder["above_lowest_ev"] is None else f"{ladder['above_lowest_ev']:.2f}"
        rung = ladder["rung"] if ladder["converged"] else "none"
        rows.append([r["name"], r["level"], lost, rung, above, ladder["stopped"] if ladder["converged"] else "–"])
    return head, rows


def insane(found: Json) -> Table:
    """What is found of the planted faults, and what is refused wrongly."""
    totals = found.get("totals", {})
    faults = list(next(iter(totals.values()), {"found": {}})["found"])
    head = ["labels", "honest", "refused wrongly", *[f"found: {name}" for name in faults]]
    rows = [
        [name, t["labels"], t["honest_refused"], *[f"{100 * t['found'][fault]:.0f} %" for fault in faults]]
        for name, t in totals.items()
    ]
    return head, rows
