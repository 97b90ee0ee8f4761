"""Tables of the study of label savings: head and rows, from its JSON."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Table = tuple[list[str], list[list[Any]]]
_SIGN = {"exact": "", "at_most": "≤ ", "at_least": "≥ "}


def _ratio(one: Json | None) -> str:
    if not one:
        return "–"
    text = f"{_SIGN[one['bound']]}{one['ratio']:.2f}"
    return text if one["low"] is None else f"{text} ({one['low']:.2f} to {one['high']:.2f})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def savings(content: Json) -> Table:
    """Every pool and selector: those that lose or show nothing first."""
    head = ["pool", "selector", "seeds", "target, meV/Å", "labels random", "labels selector",
            "saving: forces", "hard part, forces", "energy, offset removed", "energy as it is",
            "error at the end / random"]  # fmt: skip
    found = content.get("savings", {})

    def rank(name: str) -> tuple[int, float]:
        one = found[name]
        low, high = one["low"], one["high"]
        kind = 2 if low is not None and low > 1 else 0 if high is not None and high < 1 else 1
        return kind, one["ratio"]

    rows = []
    for name in sorted(found, key=rank):
        one, (pool, selector) = found[name], name.split(".", 1)
        rows.append(
            [pool, f"`{selector}`", one["n_seeds"], _number(one["target"]),
             _number(one["labels_random"]), f"{'> ' * (one['bound'] == 'at_most')}{_number(one['labels_selector'])}",
             _ratio(one), _ratio(one.get("hard_forces")), _ratio(one.get("energy_without_offset")),
             _ratio(one.get("energy")),
             f"{one['error_at_the_end_over_random']:.2f}"]
        )  # fmt: skip
    return head, rows


def goals(content: Json) -> Table:
    """What was asked of the best selector, and what came out."""
    head = ["pool", "asked", "best selector", "saving", "lower end", "met", "met at the lower end"]
    yes = {True: "yes", False: "no"}
    rows = [
        [pool, f"{one['asked']:.1f}", f"`{one['best']}`", f"{one['ratio']:.2f}",
         "–" if one["low"] is None else f"{one['low']:.2f}",
         yes[one["met"]], yes[one["met_at_the_lower_end"]]]
        for pool, one in content.get("goals", {}).items()
    ]  # fmt: skip
    return head, rows


def pools(content: Json) -> Table:
    """What was replayed."""
    head = ["pool", "structures in it", "test structures", "hard part of the test", "labels after each round",
            "campaigns finished"]  # fmt: skip
    rows = [
        [name, one["n_pool"], one["n_test"], one["hard"], ", ".join(map(str, one["labels"])),
         sum(len(curve["seeds"]) for curve in one["curves"].values())]
        for name, one in content.get("pools", {}).items()
    ]  # fmt: skip
    return head, rows
