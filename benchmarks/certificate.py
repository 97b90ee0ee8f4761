"""Does the certificate keep its word? A planted oracle whose truth is known, drawn anew in each repeat.

    python benchmarks/certificate.py            # about five minutes on one core
    python benchmarks/certificate.py --short    # 200 repeats of everything; written beside the full results
    python benchmarks/certificate.py --part drift  # only this; the other parts stay as the file has them

Measured: the share of wrong structures among the accepted ones of the rest of the pool (0 where none is accepted)
against the asked risk; how often the 95 % interval holds the truth; how often drift is found with and without it; what
a threshold costs that is kept when the pool has moved; and what looking again in every iteration does to a pool at the
border.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from _certificate_drift import N_POOL, RATIO, RATIO_AFTER, all_drifts
from _planted import PlantedPool, planted_pool, tolerance_for
from _publish import publish
from tables import read

from dubito.certificate.certify import Slice, certify
from dubito.certificate.pool import StratumScores
from dubito.core.random import generator

MIN_ACCEPTED = 0.9
PARTS = ("settings", "drift", "strata", "stale", "looks")
MAIN = {"risk": 0.05, "n_control": 20, "bad_share": 0.1}
"""The defaults of a campaign, on a pool in which a tenth of all structures is wrong: twice what the risk allows."""

Row = dict[str, Any]


def judge(rng: np.random.Generator, pool: PlantedPool, n_control: int, tolerance: float, risk: float) -> Row:
    """Draw a control slice, certify, and compare with the truth about the rest."""
    drawn = np.zeros(len(pool), bool)
    drawn[rng.choice(len(pool), n_control, replace=False)] = True
    control = Slice(pool.scores[drawn], pool.errors[drawn], ("md",) * n_control)
    said = certify(
        control,
        {"md": StratumScores.of(pool.scores)},
        tolerance=tolerance,
        risk=risk,
        min_accepted_fraction=MIN_ACCEPTED,
    )
    threshold = -np.inf if said["threshold"] is None else said["threshold"]
    miss = said["miss_rate"]
    truth = miss_of(pool, ~drawn, threshold, tolerance)
    return {
        "drawn": drawn,
        "threshold": threshold,
        "miss": truth,
        "fraction": said["accepted_fraction"],
        "holds": said["holds"],
        "covered": miss["low"] - 1e-12 <= truth <= miss["high"] + 1e-12,
        "low": miss["low"],
        "high": miss["high"],
    }


def miss_of(pool: PlantedPool, rows: np.ndarray, threshold: float, tolerance: float) -> float:
    """Return the share of wrong structures among those of ``rows`` that a threshold accepts; 0 if none."""
    accepted = rows & (pool.scores <= threshold)
    return float((pool.errors[accepted] > tolerance).mean()) if accepted.any() else 0.0


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def setting(risk: float, n_control: int, bad_share: float, repeats: int, seed: int) -> Row:
    """Measure one setting: fresh pools, a fresh slice of each."""
    tolerance = tolerance_for(bad_share)
    rng = generator(seed, "certificate", f"{risk}", n_control, f"{bad_share}")
    found = [judge(rng, planted_pool(rng, N_POOL, RATIO), n_control, tolerance, risk) for _ in range(repeats)]
    some = [one for one in found if one["fraction"] > 0]
    miss, error = _mean([one["miss"] for one in found])
    held = [one["miss"] for one in found if one["holds"]]
    return {
        "risk": risk,
        "n_control": n_control,
        "bad_share": bad_share,
        "repeats": repeats,
        "miss_rate": miss,
        "standard_error": error,
        "accepted_something": len(some) / repeats,
        "miss_rate_where_accepted": float(np.mean([one["miss"] for one in some])) if some else None,
        "accepted_fraction_where_accepted": float(np.mean([one["fraction"] for one in some])) if some else None,
        "held": len(held) / repeats,
        "interval_coverage": float(np.mean([one["covered"] for one in found])),
        "interval_coverage_where_accepted": float(np.mean([one["covered"] for one in some])) if some else None,
        "median_upper_limit": float(np.median([one["high"] for one in some])) if some else None,
    }


def strata(risk: float, n_control: int, bad_share: float, repeats: int, seed: int) -> Row:
    """Measure two samplers, of which the second outgrows its uncertainties, with one threshold and with one each."""
    tolerance, rng = tolerance_for(bad_share), generator(seed, "strata", n_control)
    ratios = {"cool": RATIO, "hot": RATIO_AFTER}
    miss: dict[str, dict[str, list[float]]] = {how: {n: [] for n in (*ratios, "whole")} for how in ("one", "each")}
    grouped = 0
    for _ in range(repeats):
        pools = [planted_pool(rng, N_POOL // 2, ratio) for ratio in ratios.values()]
        pool = PlantedPool(*(np.concatenate([getattr(p, k) for p in pools]) for k in ("scores", "errors", "ratios")))
        names = np.repeat(list(ratios), N_POOL // 2)
        drawn = np.zeros(len(pool), bool)
        drawn[rng.choice(len(pool), n_control, replace=False)] = True
        for how, by_name in miss.items():
            labels = names if how == "each" else np.full(len(pool), "whole")
            scores = {str(name): StratumScores.of(pool.scores[labels == name]) for name in np.unique(labels)}
            control = Slice(pool.scores[drawn], pool.errors[drawn], tuple(map(str, labels[drawn])))
            said = certify(control, scores, tolerance=tolerance, risk=risk, min_accepted_fraction=MIN_ACCEPTED)
            grouped += how == "each" and len(said["strata"]) == len(ratios)
            limit = {m: s["threshold"] for s in said["strata"] for m in s["members"]}
            limits = np.array([-np.inf if limit[name] is None else limit[name] for name in labels])
            accepted = ~drawn & (pool.scores <= limits)
            for name, of in by_name.items():
                rows = accepted if name == "whole" else accepted & (names == name)
                of.append(float((pool.errors[rows] > tolerance).mean()) if rows.any() else 0.0)
    rates = {how: {name: _mean(values) for name, values in of.items()} for how, of in miss.items()}
    return {
        "risk": risk,
        "n_control": n_control,
        "repeats": repeats,
        "two_groups": grouped / repeats,
        "miss_rate": {how: {name: mean for name, (mean, _) in of.items()} for how, of in rates.items()},
        "standard_error": {how: {name: error for name, (_, error) in of.items()} for how, of in rates.items()},
    }


def stale(risk: float, n_control: int, bad_share: float, repeats: int, seed: int) -> list[Row]:
    """Measure a threshold that is kept when the pool moves, against one that is calibrated again."""
    tolerance, rng = tolerance_for(bad_share), generator(seed, "stale", n_control)
    moves = {"nothing": {}, "ratio 1.8 to 2.7": {"ratio": RATIO_AFTER}, "uncertainty x 1.5": {"sigma": 0.075}}
    kept: dict[str, list[float]] = {name: [] for name in moves}
    fresh: dict[str, list[float]] = {name: [] for name in moves}
    for _ in range(repeats):
        old = judge(rng, planted_pool(rng, N_POOL, RATIO), n_control, tolerance, risk)
        for name, change in moves.items():
            pool = planted_pool(rng, N_POOL, **{"ratio": RATIO, **change})
            kept[name].append(miss_of(pool, np.ones(len(pool), bool), old["threshold"], tolerance))
            fresh[name].append(judge(rng, pool, n_control, tolerance, risk)["miss"])
    rows = []
    for name in moves:
        (one, one_error), (two, two_error) = _mean(kept[name]), _mean(fresh[name])
        row = {"moved": name, "kept": one, "kept_standard_error": one_error}
        rows.append(row | {"recalibrated": two, "recalibrated_standard_error": two_error})
    return rows


def looks(bad_share: float, n_control: int, repeats: int, seed: int, *, risk: float = 0.05, most: int = 10) -> Row:
    """Let campaigns look at up to ten slices of pools that do not get better; stop at the first or second in a row."""
    tolerance, rng = tolerance_for(bad_share), generator(seed, "looks", n_control, f"{bad_share}")
    out: Row = {"risk": risk, "bad_share": bad_share, "n_control": n_control, "looks": most, "repeats": repeats}
    stopped: dict[int, list[float]] = {1: [], 2: []}
    single = []
    for _ in range(repeats):
        run, done = 0, set()
        for look in range(most):
            one = judge(rng, planted_pool(rng, N_POOL, RATIO), n_control, tolerance, risk)
            if look == 0:
                single.append(bool(one["holds"]))
            run = run + 1 if one["holds"] else 0
            for needed, misses in stopped.items():
                if run >= needed and needed not in done:
                    done.add(needed)
                    misses.append(one["miss"])
            if len(done) == len(stopped):
                break
    out["holds_in_one_look"] = float(np.mean(single))
    for needed, name in ((1, "first"), (2, "two_in_a_row")):
        misses = stopped[needed]
        out[f"certified_{name}"] = len(misses) / repeats
        out[f"miss_rate_at_stop_{name}"] = float(np.mean(misses)) if misses else None
        out[f"miss_rate_all_{name}"] = float(np.sum(misses)) / repeats
    return out


def part_of(name: str, repeats: int, seed: int) -> Any:
    """Measure one part."""
    if name == "settings":
        grid = [
            (risk, n, share) for risk in (0.05, 0.1) for n in (20, 40, 100) for share in (0.02, 0.05, 0.1, 0.2, 0.4)
        ]
        return [setting(risk, n_control, bad_share, repeats, seed) for risk, n_control, bad_share in grid]
    if name == "drift":
        return all_drifts(repeats, seed)
    if name == "strata":
        return strata(0.1, 100, 0.1, repeats, seed)
    if name == "stale":
        return stale(0.1, 40, 0.1, repeats, seed)
    return [looks(share, n, repeats, seed) for n in (20, 40) for share in (0.03, 0.05, 0.07, 0.1)]


def run(parts: Sequence[str], repeats: int, seed: int, before: dict[str, Any]) -> dict[str, Any]:
    """Measure some parts; the others are taken from an earlier run."""
    out = {name: part_of(name, repeats, seed) if name in parts else before[name] for name in PARTS}
    main = next(row for row in out["settings"] if all(row[key] == value for key, value in MAIN.items()))
    plain = out["drift"][0]["found"]
    return {
        "repeats": repeats,
        "risk": main["risk"],
        "miss_rate": main["miss_rate"],
        "standard_error": main["standard_error"],
        "drift_power": plain["ratio 1.8 to 2.7"]["drifted"],
        "false_alarm_rate": plain["nothing"]["drifted"],
        "main_setting": MAIN,
        "pool": N_POOL,
        "seed": seed,
        **out,
    }


def main() -> None:
    """Run it and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="200 repeats")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="the others stay as they were")
    chosen = parser.parse_args()
    name, repeats = ("certificate_short", 200) if chosen.short else ("certificate", 1000)
    before = {} if set(chosen.part) == set(PARTS) else read(name)
    if before and (before["repeats"], before["seed"]) != (repeats, chosen.seed):
        parser.error(f"{name}.json is of {before['repeats']} repeats and seed {before['seed']}: run all parts.")
    publish(name, run(chosen.part, repeats, chosen.seed, before))


if __name__ == "__main__":
    main()
