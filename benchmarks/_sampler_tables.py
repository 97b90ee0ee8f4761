"""Tables of docs/exploring.md about samplers."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Table = tuple[list[str], list[list[Any]]]


def samplers(result: Json) -> Table:
    """Return doubt and error of the candidates of each sampler."""
    head = [
        "sampler",
        "candidates",
        "largest force, median (eV/Å)",
        "doubt, median (90 %) (eV/Å)",
        "error, median (eV/Å)",
        "labelled",
    ]
    rows = [
        [
            f"`{name}`",
            of["candidates"],
            f"{of['largest_force_median']:.1f}",
            f"{of['doubt_median']:.2f} ({of['doubt_p90']:.2f})",
            f"{of['error_median']:.2f}",
            of["labelled"],
        ]
        for name, of in result.get("samplers", {}).items()
    ]
    return head, rows


def jobs(result: Json) -> Table:
    """Return what each job made and why it ended."""
    head = ["job", "sampler", "walkers or structures", "structures predicted", "ended by"]
    rows = [
        [
            number,
            f"`{job['kind']}`",
            job["walkers"],
            job["steps"],
            ", ".join(f"`{reason}` {count}" for reason, count in job["stops"].items()),
        ]
        for number, job in enumerate(result.get("jobs", []))
    ]
    return head, rows
