"""The planner and the stop rule on curves whose truth is known.

    python benchmarks/planner.py        a few minutes on one core

Learning curves of three families (power law, with a floor, with a bend): does the 80 % interval hold the labels to a
target, and the error at twice the labels? Beside it a straight line in logs, which is what one would fit without the
planner. The same where the target itself is estimated from control slices. Then simulated campaigns with real
certificates on slices of 20 to 60 labels, against two oracles that know the true curve: one also knows the true miss
rate, the other waits for the same certificate as the rule. Beside the rule in use others, and campaigns whose error
stops to fall before the risk is kept. Writes benchmarks/results/planner.json and prints it as one line.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _curves import FAMILIES, SAMPLING_SD, draw_truth, fit_line, measure
from _own_target import table as own_target
from _publish import publish
from _simulated_campaigns import (
    RULES,
    End,
    draw_setting,
    first_price,
    on_a_plateau,
    oracle,
    run,
    true_miss_rate,
)

from dubito.core.files import read_json
from dubito.core.random import generator
from dubito.planning.curve import fit_curve, quantiles
from dubito.planning.plan import past_forecasts
from dubito.planning.points import Point, relative_sd
from dubito.stages._certified import LOOKS

# A seed that nothing was chosen with (docs/planning.md says what was chosen on others).
SEED = 2611
CURVES = 200
CAMPAIGNS, MORE = 150, 60
POINTS = {"4": (20, 60, 100, 140), "6": (50, 100, 150, 200, 250, 300), "8": (100, 160, 220, 280, 340, 400, 460, 520)}
MAIN = "6"
SLICES = {"20 to 60": None, "150": 150, "400": 400}
# True miss rate over the risk of campaigns that never get there, and how many iterations they have.
PLATEAUS, ON_A_PLATEAU = (1.5, 2.0, 4.0), 20


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


def campaigns(n_control: int | None, count: int, seed: int = SEED) -> dict[str, list[dict[str, Any]]]:
    """Run simulated campaigns to their end; for each rule and campaign what it did and what the oracles would have."""
    rows: dict[str, list[dict[str, Any]]] = {looks: [] for looks in RULES}
    for i in range(count):
        family = FAMILIES[i % len(FAMILIES)]
        rng = generator(seed, "campaigns", i)
        truth = draw_truth(family, rng)
        setting = draw_setting(truth, rng, n_control)
        safe, best = oracle(truth, setting)
        ends, history = run(truth, setting, rng)
        for looks, end in ends.items():
            judged = float(truth.error(setting.known(max(0, end.iteration - 1))))
            rows[looks].append(
                {
                    "family": family,
                    "error": "test set" if setting.n_test else "control slices",
                    "bound_by": "certificate" if best == safe else "price",
                    "state": end.state,
                    "off": end.iteration - best,
                    "off_same_certificate": end.iteration - max(end.confirmed, first_price(truth, setting)),
                    "delay_of_certificate": end.confirmed - safe,
                    "held": bool((history[end.iteration]["certificate"] or {}).get("holds")),
                    "is_safe": end.iteration >= safe,
                    "miss_over_risk": true_miss_rate(judged, setting.tolerance) / setting.risk,
                    "accepted_miss_over_risk": history[end.iteration].get("true_miss_rate", 0.0) / setting.risk,
                    "labels": setting.known(end.iteration),
                    "labels_oracle": setting.known(best),
                }
            )
    return rows


def plateaus(times: float, count: int, seed: int = SEED) -> dict[str, dict[str, Any]]:
    """Run campaigns that never get within the risk, for at most ``ON_A_PLATEAU`` iterations; by rule how they end."""
    found: dict[str, list[End]] = {looks: [] for looks in RULES}
    for i in range(count):
        rng = generator(seed, "plateaus", i)
        truth = draw_truth(FAMILIES[i % len(FAMILIES)], rng)
        ends, _ = run(*on_a_plateau(truth, draw_setting(truth, rng), times), rng, ON_A_PLATEAU)
        for looks, end in ends.items():
            found[looks].append(end)
    return {
        looks: {
            "campaigns": count,
            "states": dict(sorted(Counter(end.state for end in ends).items())),
            "iterations_median": float(np.median([end.iteration for end in ends])),
        }
        for looks, ends in found.items()
    }


def said(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Sum up campaigns."""
    ended = [row for row in rows if row["state"] == "certified"]
    return {
        "campaigns": len(rows),
        "within_one_iteration": _share(abs(row["off"]) <= 1 for row in rows),
        "within_one_iteration_same_certificate": _share(abs(row["off_same_certificate"]) <= 1 for row in rows),
        "iterations_off": dict(sorted(Counter(row["off"] for row in rows).items())),
        "stopped_before_certificate": sum(not row["held"] for row in rows),
        "certified_above_the_risk": _share(not row["is_safe"] for row in ended),
        "miss_over_risk_mean": _mean(row["miss_over_risk"] for row in ended),
        "accepted_miss_over_risk_mean": _mean(row["accepted_miss_over_risk"] for row in ended),
        "accepted_miss_above_the_risk": _share(row["accepted_miss_over_risk"] > 1 for row in ended),
        "delay_of_certificate_median": float(np.median([row["delay_of_certificate"] for row in ended])),
        "labels_over_oracle_median": round(float(np.median([row["labels"] / row["labels_oracle"] for row in rows])), 3),
        "states": dict(sorted(Counter(row["state"] for row in rows).items())),
    }


def _mean(values: Iterable[float]) -> float:
    return round(float(np.mean(list(values))), 3)


def _share(values: Iterable[bool]) -> float:
    return _mean(map(float, values))


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
    own = own_target(SEED)
    slices = {name: campaigns(n, CAMPAIGNS if n is None else MORE) for name, n in SLICES.items()}
    rules = slices["20 to 60"]
    rows = rules[LOOKS]
    groups = {"all": rows}
    for key in ("family", "error", "bound_by"):
        for value in sorted({row[key] for row in rows}):
            groups[f"{key.replace('_', ' ')}: {value}"] = [row for row in rows if row[key] == value]
    main_curves = [curves[MAIN][family]["planner"]["coverage_80_labels"] for family in FAMILIES]
    total = said(rows)
    head = ("within_one_iteration", "stopped_before_certificate", "within_one_iteration_same_certificate")
    publish(
        "planner",
        {
            "coverage_80": round(float(np.mean(main_curves)), 3),
            "coverage_80_own_target": round(
                float(np.mean([r["coverage_80"] for k in own.values() for r in k.values()])), 3
            ),
            **{key: total[key] for key in head},
            "certified_above_the_risk": total["certified_above_the_risk"],
            "rule": LOOKS,
            "seed": SEED,
            "curves_per_family": CURVES,
            "curves": curves,
            "own_target": own,
            "campaigns": {name: said(of) for name, of in groups.items()},
            "control_slices": {name: said(of[LOOKS]) for name, of in slices.items()},
            "rules": {looks: said(of) for looks, of in rules.items()},
            "plateaus": {f"{times:g}": plateaus(times, MORE) for times in PLATEAUS},
            "demo": demo(),
        },
    )


if __name__ == "__main__":
    main()
