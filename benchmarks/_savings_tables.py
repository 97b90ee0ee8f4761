"""Tables of the study of label savings: head and rows, from its JSON."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Table = tuple[list[str], list[list[Any]]]
_SIGN = {"exact": "", "at_most": "≤ ", "at_least": "≥ "}


def _interval(one: Json, low: str = "t_low", high: str = "t_high") -> str:
    if one[low] is None:
        return "too few seeds"
    return f"{one[low]:.2f} to {one[high]:.2f}"


def _ratio(one: Json | None) -> str:
    """The saving, with the paired t interval in brackets where there is one."""
    if not one:
        return "–"
    text = f"{_SIGN[one['bound']]}{one['ratio']:.2f}"
    return text if one["t_low"] is None else f"{text} ({_interval(one)})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def savings(content: Json) -> Table:
    """Every pool and selector: those that lose first, then those that show nothing, then those without all seeds."""
    head = ["pool", "selector", "seeds", "target, meV/Å", "labels random", "labels selector",
            "saving: forces", "95 %, bootstrap", "95 %, paired t", "hard part, forces", "energy, offset removed",
            "energy as it is", "error at the end / random"]  # fmt: skip
    found = content.get("savings", {})
    wanted = content.get("settings", {}).get("n_seeds", 0)

    def rank(name: str) -> tuple[int, float]:
        one = found[name]
        low, high = one["t_low"], one["t_high"]
        kind = 3 if low is None else 2 if low > 1 else 0 if high < 1 else 1
        return kind, one["ratio"]

    rows = []
    for name in sorted(found, key=rank):
        one, (pool, selector) = found[name], name.split(".", 1)
        rows.append(
            [pool, f"`{selector}`", f"{one['n_seeds']} of {wanted}", _number(one["target"]),
             _number(one["labels_random"]), f"{'> ' * (one['bound'] == 'at_most')}{_number(one['labels_selector'])}",
             f"{_SIGN[one['bound']]}{one['ratio']:.2f}", _interval(one, "low", "high"), _interval(one),
             _ratio(one.get("hard_forces")), _ratio(one.get("energy_without_offset")), _ratio(one.get("energy")),
             f"{one['error_at_the_end_over_random']:.2f}"]
        )  # fmt: skip
    return head, rows


_ANSWER = {True: "yes", False: "no", None: "not finished"}


def no_loss(content: Json) -> Table:
    """Pools where there is nothing to gain: whether a selector loses, one column each."""
    found = content.get("goals", {}).get("no_loss", {})
    names = [name for name in content.get("settings", {}).get("selectors", []) if name != "random"]
    head = ["pool", *(f"`{name}`" for name in names), "shown to lose", "below 1 on the estimate", "no loss",
            "energies: shown to lose", "energies: below 1 on the estimate"]  # fmt: skip
    rows = []
    for pool, one in found.items():
        cells = [_with_seeds(one["selectors"].get(name), content) for name in names]
        keys = ("lose", "below_one", "lose_energy", "below_one_energy")
        lists = [", ".join(f"`{name}`" for name in one[key]) or "none" for key in keys]
        rows.append([pool, *cells, *lists[:2], _ANSWER[one["met"]], *lists[2:]])
    return head, rows


def goals(content: Json) -> Table:
    """What was asked of the best selector, and what came out."""
    found = content.get("goals", {})
    head = ["pool", "asked", "selector", "saving", "met", "met at the lower end"]
    best = f"`{found['best']}`" if found.get("best") else "not finished"
    rows = [
        [pool, f"{one['asked']:.1f}", best, _with_seeds(one["best"], content), _ANSWER[one["met"]],
         _ANSWER[one["met_at_the_lower_end"]] if one["best"] is None or one["best"]["t_low"] is not None
         else "too few seeds"]
        for pool, one in found.get("saves", {}).items()
    ]  # fmt: skip
    rows += [
        [pool, "no loss", best, _with_seeds(one["best"], content), "see above", "–"]
        for pool, one in found.get("no_loss", {}).items()
    ]
    return head, rows


def _with_seeds(one: Json | None, content: Json) -> str:
    """The saving, and how many seeds it is of where some are missing."""
    if one is None:
        return "not finished"
    wanted = content["settings"]["n_seeds"]
    return _ratio(one) + (f", {one['n_seeds']} of {wanted} seeds" if one["n_seeds"] < wanted else "")


def pools(content: Json) -> Table:
    """What was replayed."""
    head = ["pool", "structures in it", "test structures", "hard part of the test", "labels after each round",
            "campaigns finished"]  # fmt: skip
    rows = [
        [name, one["n_pool"], one["n_test"], one["hard"], ", ".join(map(str, one["labels"])),
         f"{sum(len(curve['seeds']) for curve in one['curves'].values())} of {_campaigns(content)}"]
        for name, one in content.get("pools", {}).items()
    ]  # fmt: skip
    return head, rows


def _campaigns(content: Json) -> int:
    """How many campaigns a pool has: random and the other selectors, each seed."""
    return content["settings"]["n_seeds"] * len({"random", *content["settings"]["selectors"]})


def coverage(content: Json) -> Table:
    """How often the intervals hold the planted ratio."""
    head = ["what differs", "planted ratio", "seeds", "95 %, bootstrap", "95 %, paired t", "median width, bootstrap",
            "median width, paired t"]  # fmt: skip
    rows = [
        [one["what"], f"{one['ratio']:.1f}", one["n_seeds"],
         *(f"{100 * one[f'{kind}_coverage']:.1f} %" for kind in ("bootstrap", "paired_t")),
         *(f"factor {one[f'{kind}_width']:.2f}" for kind in ("bootstrap", "paired_t"))]
        for one in content.get("cases", [])
    ]  # fmt: skip
    return head, rows
