"""The planner and the stop rule on curves whose truth is known.

    python benchmarks/planner.py        a few minutes on one core

Learning curves of three families (power law, with a floor, with a bend): does the 80 % interval hold the labels to a
target, and the error at twice the labels? Beside it a straight line in logs, which is what one would fit without the
planner. Then simulated campaigns with real certificates on slices of 20 to 60 labels, against two oracles that know the
true curve: one also knows the true miss rate, the other waits for the same certificate as the rule. Writes
benchmarks/results/planner.json and prints it as one line.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _curves import FAMILIES, SAMPLING_SD, draw_truth, fit_line, measure
from _publish import publish
from _simulated_campaigns import LAST, draw_setting, first_price, oracle, stop

from dubito.core.files import read_json
from dubito.core.random import generator
from dubito.planning.curve import fit_curve, quantiles
from dubito.planning.plan import past_forecasts
from dubito.planning.points import Point, relative_sd

# Not the seed that the prior of the bend was chosen with.
SEED = 20
CURVES = 200
CAMPAIGNS = 150
POINTS = {"4": (20, 60, 100, 140), "6": (50, 100, 150, 200, 250, 300), "8": (100, 160, 220, 280, 340, 400, 460, 520)}
MAIN = "6"
SLICES = {"20 to 60": None, "150": 150, "400": 400}


def coverage(family: str, labels: tuple[int, ...]) -> dict[str, Any]:
    """Return how often the 80 % intervals hold the truth, of the planner and of the line."""
    n, last = np.asarray(labels, "f8"), float(labels[-1])
    found: dict[str, dict[str, list[float]]] = {}
    for i in range(CURVES):
        rng = generator(SEED, "curves", family, len(labels), i)
        truth = draw_truth(family, rng, around=last)
        errors = measure(truth, n, rng)
        target = float(truth.error(last * rng.uniform(1.15, 2)))
        true, ahead = truth.labels_to(target), float(measure(truth, np.array([2 * last]), rng)[0])
        curve, line = fit_curve(n, errors, SAMPLING_SD, rng), fit_line(n, errors, rng)
        for name, to, at in (
            ("planner", curve.labels_to(target), curve.measured(2 * last, SAMPLING_SD, rng)),
            ("line", line.labels_to(target), line.measured(2 * last, rng)),
        ):
            into, q, e = found.setdefault(name, {}), quantiles(to), quantiles(at)
            into.setdefault("labels", []).append(q[0] <= true <= q[2])
            into.setdefault("error", []).append(e[0] <= ahead <= e[2])
            into.setdefault("log10_labels", []).append(abs(np.log10(q[1] / true)))
            into.setdefault("log_error", []).append(abs(np.log(e[1] / ahead)))
    return {
        name: {
            "coverage_80_labels": round(float(np.mean(of["labels"])), 3),
            "coverage_80_error_at_twice": round(float(np.mean(of["error"])), 3),
            "median_log10_labels_off": round(float(np.median(of["log10_labels"])), 3),
            "median_log_error_off": round(float(np.median(of["log_error"])), 3),
        }
        for name, of in found.items()
    }


def campaigns(n_control: int | None, count: int) -> list[dict[str, Any]]:
    """Run simulated campaigns to their end; of each what the rule did and what the oracles would have."""
    rows = []
    for i in range(count):
        family = FAMILIES[i % len(FAMILIES)]
        rng = generator(SEED, "campaigns", i)
        truth = draw_truth(family, rng)
        setting = draw_setting(truth, rng, n_control)
        safe, best = oracle(truth, setting)
        end, state, history = stop(truth, setting, rng)
        held = [bool((of["certificate"] or {}).get("holds")) for of in history]
        twice = next((k for k in range(1, len(held)) if held[k] and held[k - 1]), LAST)
        rows.append(
            {
                "family": family,
                "error": "test set" if setting.n_test else "control slices",
                "bound_by": "certificate" if best == safe else "price",
                "state": state,
                "off": end - best,
                "off_same_certificate": end - max(twice, first_price(truth, setting)),
                "delay_of_certificate": twice - safe,
                "held": held[end] and held[end - 1],
                "is_safe": end >= safe,
                "labels": setting.known(end),
                "labels_oracle": setting.known(best),
            }
        )
    return rows


def said(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Sum up campaigns."""
    ended = [row for row in rows if row["state"] == "certified"]
    return {
        "campaigns": len(rows),
        "within_one_iteration": round(float(np.mean([abs(row["off"]) <= 1 for row in rows])), 3),
        "within_one_iteration_same_certificate": round(
            float(np.mean([abs(row["off_same_certificate"]) <= 1 for row in rows])), 3
        ),
        "iterations_off": dict(sorted(Counter(row["off"] for row in rows).items())),
        "delay_of_certificate_median": float(np.median([row["delay_of_certificate"] for row in ended])),
        "labels_over_oracle_median": round(float(np.median([row["labels"] / row["labels_oracle"] for row in rows])), 3),
        "states": dict(sorted(Counter(row["state"] for row in rows).items())),
    }


def demo() -> list[dict[str, Any]]:
    """Return what would have been forecast in the demo campaign (its inversion profile is the same all along)."""
    name = "profile_inversion"
    rows = read_json(Path(__file__).parent / "results" / "demo.json")["iterations"]
    points = [
        Point(k, row["labels"], row["force_rmse_mev_per_angstrom"][name] / 1000, relative_sd({"n_structures": 11}), k)
        for k, row in enumerate(rows)
    ]
    return past_forecasts(points, SEED)


def main() -> None:
    """Run it."""
    curves = {size: {family: coverage(family, labels) for family in FAMILIES} for size, labels in POINTS.items()}
    slices = {name: campaigns(n, CAMPAIGNS if n is None else 60) for name, n in SLICES.items()}
    rows = slices["20 to 60"]
    groups = {"all": rows}
    for key in ("family", "error", "bound_by"):
        for value in sorted({row[key] for row in rows}):
            groups[f"{key.replace('_', ' ')}: {value}"] = [row for row in rows if row[key] == value]
    main_curves = [curves[MAIN][family]["planner"]["coverage_80_labels"] for family in FAMILIES]
    total = said(rows)
    publish(
        "planner",
        {
            "coverage_80": round(float(np.mean(main_curves)), 3),
            "within_one_iteration": total["within_one_iteration"],
            "within_one_iteration_same_certificate": total["within_one_iteration_same_certificate"],
            "stopped_before_certificate": sum(not row["held"] for row in rows),
            "certified_before_certificate": sum(row["state"] == "certified" and not row["held"] for row in rows),
            "certified_above_the_risk": sum(row["state"] == "certified" and not row["is_safe"] for row in rows),
            "curves_per_family": CURVES,
            "curves": curves,
            "campaigns": {name: said(of) for name, of in groups.items()},
            "control_slices": {name: said(of) for name, of in slices.items()},
            "demo": demo(),
        },
    )


if __name__ == "__main__":
    main()
