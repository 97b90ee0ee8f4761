"""Adaptive scoring: evaluations spent and candidates missed, against the full ensemble on the same pools.

    python benchmarks/adaptive_scoring.py --cache FOLDER [--systems ethanol acac 3bpa] [--seeds 10]

Pools are molecular dynamics made with an ensemble trained on 100 frames (see `_scoring_cases.py`). Each seed takes
other members, another first member and another draw. Trained networks and pools are kept in the folder. Costs are
counted in evaluations; CPU seconds are those of the stage itself, full and adaptive one after the other, three times.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _publish import publish
from _scoring_cases import DATA, N_MEMBERS, SYSTEMS, Case, load_case

from dubito.config.sanity import SanityConfig
from dubito.config.scoring import ScoringConfig
from dubito.config.selection import SelectionConfig
from dubito.data.store import read_attributes, read_predictions, write_structures
from dubito.metrics.ranking import spearman
from dubito.metrics.reduce import structure_max, worst_atom
from dubito.model.artifact import save_potential
from dubito.scoring.cascade import FIT, Cascade, Rule, Verdict
from dubito.scoring.cheap import NAMES, CheapScore
from dubito.scoring.evaluations import Evaluations
from dubito.scoring.matter import share_that_matters
from dubito.scoring.upper_estimate import UpperEstimate
from dubito.selection.batch import choose_batch
from dubito.stages import score_candidates
from dubito.uncertainty.ensemble import EnsembleUncertainty

RECALL, N_SELECT = 0.95, 150
MEMBERS = (4, 5, 8)
Array = np.ndarray[Any, Any]


class Truth:
    """What all members say of a pool, and the cheap features of each."""

    def __init__(self, case: Case) -> None:
        self.case = case
        said = [case.said(number) for number in range(N_MEMBERS)]
        self.forces = np.stack([one.forces for one in said]).astype("f4")
        self.features = []
        for number, one in enumerate(said):
            cheap = CheapScore.fit(case.ensemble.member(number), case.train)
            self.features.append(cheap.features(case.pool, one, cheap.distances(case.pool, one)))

    def scores(self, members: Array) -> Array:
        """Return the full scores (n,): the largest rms length of the members' deviation, before calibration."""
        variance = self.forces[members].astype("f8").var(axis=0, ddof=1)
        return structure_max(np.sqrt(variance.sum(axis=1)), self.case.pool.ptr)


def cascade(
    truth: Truth, n_members: int, seed: int, rule: Rule, order: Array | None = None
) -> tuple[Verdict, Array, dict[str, float]]:
    """Run one cascade; return it with the full scores and what it cost and found."""
    members = np.random.default_rng(seed).permutation(N_MEMBERS)[:n_members]
    scores = truth.scores(members)
    verdict = Cascade(
        truth.features[int(members[0])],
        lambda rows: scores[rows],
        n_members=n_members,
        rule=rule,
        seed=seed,
        order=order,
    ).decide()
    account = Evaluations(len(scores), int(verdict.full.sum()), n_members, len(truth.case.train))
    best, mine = top(scores), top(np.where(verdict.full, scores, verdict.estimate))
    matter = scores >= (verdict.threshold or 0.0)
    found = {
        "compute_ratio": account.ratio,
        "recall": len(best & mine) / N_SELECT,
        "jaccard": len(best & mine) / len(best | mine),
        "recall_above_threshold": float(verdict.full[matter].mean()),
        "drawn": (verdict.n_fit + verdict.n_calibration) / len(scores),
        "gave_up": float(bool(verdict.note)),
    }
    return verdict, scores, found


def top(scores: Array) -> set[int]:
    """Return the candidates of the N_SELECT largest scores."""
    return set(np.argsort(-scores, kind="stable")[:N_SELECT].tolist())


def summary(found: list[dict[str, float]]) -> dict[str, float]:
    """Return means over seeds, the smallest recall and the largest ratio."""
    out = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
    out["recall_min"] = min(one["recall"] for one in found)
    out["compute_ratio_max"] = max(one["compute_ratio"] for one in found)
    return out


def marginal(truth: Truth, seed: int) -> dict[str, float]:
    """Return coverage and recall of an upper bound that holds for 95 % of all candidates, with 1200 draws."""
    members = np.random.default_rng(seed).permutation(N_MEMBERS)[:5]
    logs, features = np.log(truth.scores(members)), truth.features[int(members[0])]
    rows = np.random.default_rng(seed).permutation(len(logs))
    fit, draw, rest = rows[:FIT], rows[FIT:1200], rows[1200:]
    model = UpperEstimate.fit(features[fit], logs[fit])
    upper = model(features)
    excess = np.sort(logs[draw] - upper[draw])
    upper = upper + excess[int(np.ceil(0.95 * (len(draw) + 1))) - 1]
    best = np.intersect1d(rest, list(top(np.exp(logs))))
    level = np.sort(logs)[-N_SELECT]
    return {"coverage": float(np.mean(logs[rest] <= upper[rest])), "recall": float(np.mean(upper[best] >= level))}


def shifted(truth: Truth, seed: int, rule: Rule) -> bool:
    """Return whether a calibration from the coldest part ends in full scores for all; the fit saw the whole pool."""
    samplers = np.array(truth.case.pool.text("origin/sampler"))
    rng = np.random.default_rng(seed)
    first = rng.permutation(len(samplers))[:FIT]
    rest = np.setdiff1d(rng.permutation(len(samplers)), first)
    cold = samplers[rest] == "langevin_300K"
    order = np.concatenate([first, rng.permutation(rest[cold]), rng.permutation(rest[~cold])])
    verdict, _, _ = cascade(truth, 5, seed, rule, order)
    return bool(verdict.full.all())


def stage(case: Case, n_members: int = 5) -> dict[str, Any]:
    """Run the stage on the pool, with and without, and select from both files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        some = case.ensemble.part(range(n_members))
        save_potential(folder / "ensemble.safetensors", some, provenance={})
        EnsembleUncertainty.fit(some, case.train, case.valid, seed=1).save(folder / "state.safetensors")
        write_structures(folder / "dataset.h5", case.train)
        write_structures(folder / "pool.h5", case.pool)
        selection = SelectionConfig(n_select=N_SELECT)
        paths: dict[str, Any] = {
            "ensemble": folder / "ensemble.safetensors",
            "uncertainty": folder / "state.safetensors",
            "pool": [folder / "pool.h5"],
            "dataset": folder / "dataset.h5",
        }
        seconds: dict[str, list[float]] = {"full": [], "adaptive": []}
        for _ in range(3):
            for kind, times in seconds.items():
                start = time.process_time()
                score_candidates.run(
                    method="ensemble", output=folder / f"{kind}.h5", threads=1, seed=1, selection=selection,
                    scoring=ScoringConfig(adaptive=kind == "adaptive", recall=RECALL), **paths,
                )  # fmt: skip
                times.append(time.process_time() - start)
        batches = {}
        for kind in seconds:
            said = read_predictions(folder / f"{kind}.h5")["ensemble"]
            batch = choose_batch(
                case.pool, labelled=case.train, config=selection, sanity=SanityConfig(), seed=1, iteration=1,
                scores=worst_atom(said["forces_uncertainty"], case.pool.ptr), energy=said["energy"],
                forces=said["forces"],
            )  # fmt: skip
            chosen = zip(batch.chosen, batch.reasons, strict=True)
            batches[kind] = {row for row, reason in chosen if reason == "uncertainty"}
        told = read_attributes(folder / "adaptive.h5")["adaptive"]
        both = batches["full"] & batches["adaptive"]
        times = {f"{kind}_cpu_s": round(float(np.median(values)), 2) for kind, values in seconds.items()}
        return {
            **times,
            "cpu_ratio": times["adaptive_cpu_s"] / times["full_cpu_s"],
            "compute_ratio": told["compute_ratio"],
            "batch": len(batches["full"]),
            "batch_recall": len(both) / len(batches["full"]),
            "batch_jaccard": len(both) / len(batches["full"] | batches["adaptive"]),
            "guarantee": told["guarantee"],
        }


def measure(name: str, cache: Path, seeds: int) -> dict[str, Any]:
    """Return all figures of one system."""
    case = load_case(name, cache)
    truth, n = Truth(case), len(case.pool)
    share = share_that_matters(ScoringConfig(), SelectionConfig(n_select=N_SELECT), n)
    rule = Rule(RECALL, share)
    samplers, counts = np.unique(case.pool.text("origin/sampler"), return_counts=True)
    members = np.random.default_rng(0).permutation(N_MEMBERS)[:5]
    scores = truth.scores(members)
    out: dict[str, Any] = {
        "n": n,
        "pool": dict(zip(samplers.tolist(), counts.tolist(), strict=True)),
        "n_train": len(case.train),
        "cost": case.cost,
        "spearman": {
            each: spearman(truth.features[int(members[0])][:, column], scores) for column, each in enumerate(NAMES)
        },
        "members": {},
    }
    for n_members in MEMBERS:
        found = [cascade(truth, n_members, seed, rule)[2] for seed in range(seeds)]
        out["members"][str(n_members)] = summary(found)
    for label, more in (
        ("hard", Rule(RECALL, 0.6)),
        ("recall_0.9", Rule(0.9, share)),
        ("recall_0.98", Rule(0.98, share)),
    ):
        out[label] = summary([cascade(truth, 5, seed, more)[2] for seed in range(seeds)])
    out["shift_refused"] = float(np.mean([shifted(truth, seed, rule) for seed in range(seeds)]))
    trap = [marginal(truth, seed) for seed in range(seeds)]
    out["marginal"] = {key: float(np.mean([one[key] for one in trap])) for key in trap[0]}
    out["stage"] = stage(case)
    return out


def main() -> None:
    """Measure all systems whose data are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    there = [name for name in arguments.systems if (DATA / SYSTEMS[name].file).exists()]
    skipped = {name: f"{DATA / SYSTEMS[name].file} is missing" for name in arguments.systems if name not in there}
    if not there:
        sys.stderr.write(f"Nothing is measured: {skipped}\n")
        return
    systems = {name: measure(name, arguments.cache, arguments.seeds) for name in there}
    five = [found["members"]["5"] for found in systems.values()]
    headline = {key: float(np.mean([one[key] for one in five])) for key in ("compute_ratio", "recall", "jaccard")}
    hard = [found["hard"] for found in systems.values()]
    publish(
        "adaptive_scoring",
        {
            **headline,
            "hard_pool_compute_ratio": float(np.max([one["compute_ratio_max"] for one in hard])),
            "hard_pool_recall": float(np.min([one["recall_min"] for one in hard])),
            "recall_target": RECALL,
            "n_select": N_SELECT,
            "seeds": arguments.seeds,
            "systems": systems,
            "skipped": sorted(skipped),
        },
    )


if __name__ == "__main__":
    main()
