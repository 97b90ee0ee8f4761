"""Tables of docs/certificate.md: the planted oracle."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Table = tuple[list[str], list[list[Any]]]


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def miss_rates(found: Json) -> Table:
    """What is asked and what comes, by risk, labels and how much of the pool is wrong."""
    head = ["risk", "control labels", "wrong in the pool", "miss rate (± s.e.)", "anything accepted"]
    head += ["miss rate where so", "median upper limit", "interval holds the truth", "where accepted"]
    head += ["certificate holds"]
    rows = []
    for r in found.get("settings", []):
        miss = f"{100 * r['miss_rate']:.2f} ± {100 * r['standard_error']:.2f} %"
        rows.append(
            [_percent(r["risk"], 0), r["n_control"], _percent(r["bad_share"], 0), miss]
            + [_percent(r["accepted_something"], 0), _percent(r["miss_rate_where_accepted"])]
            + [_percent(r["median_upper_limit"]), _percent(r["interval_coverage"])]
            + [_percent(r["interval_coverage_where_accepted"]), _percent(r["held"], 0)]
        )
    return head, rows


def demo(found: Json) -> Table:
    """The control slice of every iteration of the demo campaign."""
    head = ["labels before", "control labels", "wrong", "accepted of the pool", "wrong among accepted", "95 % interval"]
    head += ["threshold of the iteration before: missed", "certificate holds"]
    rows, known = [], 0
    for line in found.get("iterations", []):
        said = line.get("certificate")
        if said is not None:
            miss, audit = said["miss_rate"], said["audit"]
            rows.append(
                [known, said["n_control"], said["n_bad"], _percent(said["accepted_fraction"], 0)]
                + [f"{said['n_accepted_bad']} of {miss['n_accepted']}"]
                + [f"{_percent(miss['low'])} to {_percent(miss['high'])}" if miss["n_accepted"] else "–"]
                + [f"{audit['missed']} of {audit['n_accepted']}" if audit else "–", "yes" if said["holds"] else "no"]
            )
        known = line["labels"]
    return head, rows


def drift(found: Json) -> Table:
    """How often drift is found."""
    head = ["frames", "labels in each slice", "spread of the ratio", "what moved", "drift", "by the labels"]
    head += ["by the scores", "cautious"]
    keys = ("drifted", "by_labels", "by_scores", "cautious")
    rows = [
        [d.get("frames"), d["n_slice"], d["spread_ratio"], name, *[_percent(v.get(key)) for key in keys]]
        for d in found.get("drift", [])
        for name, v in d["found"].items()
    ]
    return head, rows


def stale(found: Json) -> Table:
    """A threshold that is kept against one calibrated again."""
    rows = [[r["moved"], _percent(r["kept"]), _percent(r["recalibrated"])] for r in found.get("stale", [])]
    return ["what moved", "miss rate, threshold kept", "miss rate, calibrated again"], rows


def strata(found: Json) -> Table:
    """One threshold for two samplers, and one for each."""
    part = found.get("strata", {}).get("miss_rate", {})
    names = {"one": "one threshold", "each": "one for each sampler"}
    rows = [[names[how], *[_percent(of[key]) for key in ("cool", "hot", "whole")]] for how, of in part.items()]
    return ["", "ratio 1.8", "ratio 2.7", "both together"], rows


def looks(found: Json) -> Table:
    """What looking again and again does."""
    head = [
        "control labels",
        "wrong in the pool",
        "holds in one look",
        "certified at the first: ever",
        "miss rate then",
    ]
    head += ["two in a row: ever", "miss rate then", "over all campaigns"]
    rows = []
    for r in found.get("looks", []):
        row = [r["n_control"], _percent(r["bad_share"], 0), _percent(r["holds_in_one_look"], 0)]
        for name in ("first", "two_in_a_row"):
            row += [_percent(r[f"certified_{name}"], 0), _percent(r[f"miss_rate_at_stop_{name}"])]
        rows.append([*row, _percent(r["miss_rate_all_two_in_a_row"])])
    return head, rows
