"""Tables of docs/exploring.md about the samplers that look for doubt."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Table = tuple[list[str], list[list[Any]]]


def _range(row: Json, key: str) -> str:
    return f"{row[f'{key}_median']:.2f} ({row[f'{key}_p95']:.2f})" if f"{key}_median" in row else "–"


def _found(row: Json) -> list[Any]:
    each = f"{row['evaluations'] / row['candidates']:.0f}" if row["candidates"] else "–"
    sane = f"{row['truly_sane']:.0%}" if "truly_sane" in row else "–"
    above = f"{row['energy_above_min_median_ev_per_atom']:.2f}" if "truly_sane" in row else "–"
    return [row["candidates"], row["evaluations"], each, _range(row, "doubt"), _range(row, "error"), above, sane]


_HEAD = [
    "candidates",
    "structures predicted",
    "structures predicted per candidate",
    "doubt, median (95 %) (eV/Å)",
    "error, median (95 %) (eV/Å)",
    "energy above the lowest label (eV per atom)",
    "sane in truth",
]


def samplers(result: Json) -> Table:
    """Return what each sampler found."""
    rows = [[f"`{name}`", *_found(row)] for name, row in result.get("samplers", {}).items()]
    return ["sampler", *_HEAD], rows


def targets(result: Json) -> Table:
    """Return what displacements to each target are."""
    rows = []
    for target, row in result.get("targets", {}).items():
        tried = sum(row["stops"].values())
        ratio = f"{row['error_median'] / float(target):.1f}" if row["candidates"] else "–"
        rows.append([target, f"{row['candidates']} of {tried}", *_found(row)[2:5], ratio, *_found(row)[5:]])
    return ["target (eV/Å)", "reached", *_HEAD[2:5], "median error over target", *_HEAD[5:]], rows


def _pull(row: Json) -> str:
    if not row["bias_fraction"]:
        return "plain"
    return f"{row['bias_fraction']:g}" + ("" if row["bias_hydrogen"] else ", not at H")


def to_doubt(result: Json) -> Table:
    """Return the steps to a doubt."""
    head = [
        "temperature (K)",
        "`bias_fraction`",
        "walkers that got there",
        "left the sane region",
        "steps of a walker, mean",
    ]
    rows = [
        [
            f"{row['temperature_K']:g}",
            _pull(row),
            f"{row['reached']} of {row['walkers']}",
            row.get("insane", "–"),
            f"{row['mean_steps']:.0f}",
            f"{row['ratio']:.1f} ({row['low']:.1f} to {row['high']:.1f})" if "ratio" in row else "1",
        ]
        for row in result.get("to_doubt", [])
    ]
    return [*head, "times fewer than plain (95 %), at least"], rows
