"""Tables of docs/adaptive_scoring.md."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Table = tuple[list[str], list[list[Any]]]


def members(found: Json) -> Table:
    """What is spent and found, by system and size of the ensemble."""
    head = ["pool", "candidates", "members", "evaluations spent (largest)", "recall (smallest)", "Jaccard", "drawn"]
    rows = [
        [
            name,
            system["n"],
            size,
            f"{one['compute_ratio']:.2f} ({one['compute_ratio_max']:.2f})",
            f"{one['recall']:.3f} ({one['recall_min']:.3f})",
            f"{one['jaccard']:.3f}",
            f"{one['drawn']:.2f}",
        ]
        for name, system in found.get("systems", {}).items()
        for size, one in system["members"].items()
    ]
    return head, rows


def recalls(found: Json) -> Table:
    """The price of other recalls, of a hard pool, and what the marginal bound does."""
    head = [
        "pool",
        "asked 0.90: spent, recall",
        "asked 0.98: spent, recall",
        "60 % matter: spent, recall",
        "marginal 95 % bound: coverage, recall",
        "cold calibration: all scored",
    ]
    rows = [
        [
            name,
            *[
                f"{s[key]['compute_ratio']:.2f}, {s[key]['recall']:.3f}"
                for key in ("recall_0.9", "recall_0.98", "hard")
            ],
            f"{s['marginal']['coverage']:.3f}, {s['marginal']['recall']:.3f}",
            f"{100 * s['shift_refused']:.0f} %",
        ]
        for name, s in found.get("systems", {}).items()
    ]
    return head, rows


def stage(found: Json) -> Table:
    """The stage itself with five members: CPU seconds, and the batches selected."""
    head = ["pool", "all members, CPU s", "adaptive, CPU s", "evaluations spent", "batch of both / of all members"]
    rows = [
        [
            name,
            s["stage"]["full_cpu_s"],
            s["stage"]["adaptive_cpu_s"],
            f"{s['stage']['compute_ratio']:.2f}",
            f"{s['stage']['batch_recall']:.3f}",
        ]
        for name, s in found.get("systems", {}).items()
    ]
    return head, rows


def features(found: Json) -> Table:
    """How well each cheap feature ranks the full score."""
    systems = found.get("systems", {})
    names = list(next(iter(systems.values()))["spearman"]) if systems else []
    rows = [[name, *[f"{s['spearman'][name]:.2f}" for s in systems.values()]] for name in names]
    return ["feature of one member", *systems], rows
