"""Samplers that look for doubt beside those that don't: doubt, true error and evaluations, against a known truth.

    python benchmarks/seeking_samplers.py            # two networks, minutes
    python benchmarks/seeking_samplers.py --short    # one, fewer steps, to see that it runs

The truth is a double well like that of ammonia (dubito.labelling.potentials); four members learn 60 structures
displaced by 0.05 Å, 60 more calibrate them. ``samplers``: each sampler's candidates. ``to_doubt``: steps of walkers
until an atom's doubt is 1 eV/Å, plain and pulled, from the same starts with the same random numbers; a walker that does
not get there counts with all its steps, so that ratios are lower bounds. ``targets``: displacements, by their aims.
Writes benchmarks/results/seeking_samplers.json.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import torch
from _publish import publish

from dubito.config.biased_sampling import AdversarialConfig, BiasedLangevinConfig
from dubito.config.langevin import LangevinConfig
from dubito.config.model import ModelConfig
from dubito.config.sampling import SamplingConfig
from dubito.config.sanity import SanityConfig
from dubito.config.training import TrainingConfig
from dubito.core.random import generator
from dubito.data.sanity import REASONS, SanityCheck
from dubito.data.statistics import fit_statistics
from dubito.data.structures import Structures
from dubito.labelling.potentials import DoubleWellAmmonia
from dubito.metrics.reduce import atom_norm, structure_max, worst_atom
from dubito.model.potential import Potential
from dubito.sampling.base import Sampled
from dubito.sampling.registry import make_sampler
from dubito.testing.structures import rattled
from dubito.training.loop import Trainer
from dubito.uncertainty.ensemble import EnsembleUncertainty

Json = dict[str, Any]
MEMBERS, WALKERS, MAX_LABELS = 4, 24, 150
SANITY = SanityConfig()


def truth(structures: Structures) -> Structures:
    """Label structures."""
    said = [DoubleWellAmmonia().evaluate(one) for one in structures]
    return structures.with_columns(
        labels__energy=[energy for energy, _, _ in said],
        labels__forces=np.concatenate([forces for _, forces, _ in said]),
        labels__mask=True,
    )


def displaced(n: int, seed: int) -> Structures:
    """Return labelled ammonia."""
    return truth(rattled(n, seed=seed, displacement=0.05, molecules="ammonia"))


def train(seed: int, epochs: int) -> tuple[EnsembleUncertainty, Structures]:
    """Return a fitted ensemble and what it was trained on."""
    labelled, members = displaced(60, 10 * seed + 1), list(range(MEMBERS))
    config = ModelConfig(l_max=1, n_layers=2, r_max_angstrom=4.0)
    potential = Potential(config, fit_statistics(labelled, 4.0), MEMBERS)
    potential.initialise(seed, members)
    schedule = TrainingConfig(max_epochs=epochs, n_members=MEMBERS)
    Trainer(potential, labelled, displaced(30, 10 * seed + 2), schedule, seed=seed, members=members).run()
    method = EnsembleUncertainty.fit(potential.requires_grad_(False), labelled, displaced(60, 10 * seed + 3), seed=seed)
    return method, labelled


def explore(settings: Json, method: EnsembleUncertainty, labelled: Structures) -> Sampled:
    """Run one sampler."""
    config = SamplingConfig.model_validate({"sampler": settings})
    return make_sampler(config).sample(method, labelled, seed=1, iteration=1)


def judge(found: Sampled, method: EnsembleUncertainty, labelled: Structures) -> Json:
    """Return what was found, how doubtful and how wrong it is (eV/Å), and whether it is sane in truth."""
    out: Json = {"candidates": len(found.candidates), "evaluations": found.steps, "stops": dict(found.stops)}
    if not len(found.candidates):
        return out
    said = method.predict(found.candidates)
    doubt = worst_atom(said.uncertainty["forces"], said.ptr)
    drawn = np.sort(generator(0, "labelled").permutation(len(doubt))[:MAX_LABELS])
    known = truth(found.candidates[drawn])
    mine = method.predict(known)
    error = structure_max(atom_norm(mine.forces - known.forces), mine.ptr)
    sane = SanityCheck(SANITY, labelled).check(known, energy=known.energy, forces=known.forces).sane
    return out | {
        "doubt": doubt.tolist(),
        "error": error.tolist(),
        "sane": sane.tolist(),
        "energy": ((known.energy - labelled.energy.min()) / known.n_atoms).tolist(),
    }


def joined(parts: list[Json]) -> Json:
    """Return quantiles over all networks together."""
    stops: dict[str, int] = {}
    for part in parts:
        for reason, count in part["stops"].items():
            stops[reason] = stops.get(reason, 0) + count
    pooled = {key: np.array([x for p in parts for x in p.get(key, [])]) for key in ("doubt", "error", "sane", "energy")}
    candidates, evaluations = (sum(part[key] for part in parts) for key in ("candidates", "evaluations"))
    out: Json = {"candidates": candidates, "evaluations": evaluations, "stops": stops}
    if candidates:
        out |= {
            "doubt_median": round(float(np.median(pooled["doubt"])), 3),
            "doubt_p95": round(float(np.quantile(pooled["doubt"], 0.95)), 3),
            "error_median": round(float(np.median(pooled["error"])), 3),
            "error_p95": round(float(np.quantile(pooled["error"], 0.95)), 3),
            "truly_sane": round(float(pooled["sane"].mean()), 3),
            "energy_above_min_median_ev_per_atom": round(float(np.median(pooled["energy"])), 3),
        }
    return out


def steps_of(settings: Json, method: EnsembleUncertainty, labelled: Structures, n_steps: int) -> tuple[Json, list[int]]:
    """Return the stops of walkers and the steps that each made."""
    found = explore(settings | {"save_every_steps": 1, "n_steps": n_steps}, method, labelled)
    names = found.candidates.text("origin/trajectory")
    made = [sum(name.endswith(f"walker{w}") for name in names) for w in range(WALKERS)]
    return dict(found.stops), made


def to_doubt(cases: list[tuple[EnsembleUncertainty, Structures]], *, n_steps: int) -> list[Json]:
    """Return how many steps plain and pulled walkers make, in pairs."""
    rows = []
    for kelvin in (300.0, 600.0):
        base = {"temperatures_K": [kelvin], "n_walkers": WALKERS}
        plain = [steps_of({"kind": "langevin", **base}, *case, n_steps) for case in cases]
        before = np.concatenate([made for _, made in plain])
        reached = sum(stops.get("uncertainty", 0) for stops, _ in plain)
        rows.append({"temperature_K": kelvin, "bias_fraction": 0.0, "reached": reached, "walkers": len(before),
                     "mean_steps": round(float(before.mean()), 1)})  # fmt: skip
        for fraction, hydrogen in ((0.1, True), (0.25, True), (0.25, False), (0.5, True), (1.0, True)):
            settings = {"kind": "biased_langevin", "bias_fraction": fraction, "bias_hydrogen": hydrogen, **base}
            pulled = [steps_of(settings, *case, n_steps) for case in cases]
            after = np.concatenate([made for _, made in pulled])
            stops = [found for found, _ in pulled]
            draws = generator(0, "bootstrap").integers(len(after), size=(2000, len(after)))
            ratios = before[draws].sum(axis=1) / after[draws].sum(axis=1)
            rows.append({
                "temperature_K": kelvin, "bias_fraction": fraction, "bias_hydrogen": hydrogen, "walkers": len(after),
                "reached": sum(found.get("uncertainty", 0) for found in stops),
                "insane": sum(n for found in stops for why, n in found.items() if why in REASONS),
                "mean_steps": round(float(after.mean()), 1),
                "ratio": round(float(before.sum() / after.sum()), 2),
                "low": round(float(np.quantile(ratios, 0.025)), 2), "high": round(float(np.quantile(ratios, 0.975)), 2),
            })  # fmt: skip
        sys.stderr.write(f"to a doubt at {kelvin:g} K: {[row.get('ratio') for row in rows]}\n")
    return rows


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--short", action="store_true", help="one network, fewer steps")
    short = parser.parse_args().short
    torch.set_num_threads(1)
    cases = [train(seed, 20 if short else 150) for seed in ((0,) if short else (0, 1))]
    n_steps = 150 if short else 600
    ladder = {"temperatures_K": [300.0, 600.0], "n_walkers": WALKERS, "n_steps": n_steps}
    tasks: dict[str, Json] = {
        "langevin": {"kind": "langevin", **ladder},
        "biased_langevin": {"kind": "biased_langevin", **ladder},
        "adversarial": {"kind": "adversarial", "n_structures": 60},
        "normal_modes": {"kind": "normal_modes", "temperatures_K": [300.0, 600.0], "n_structures": 60},
        "rattle": {"kind": "rattle", "displacements_angstrom": [0.05, 0.1, 0.2], "n_structures": 60},
    }
    samplers = {}
    for name, settings in tasks.items():
        samplers[name] = joined([judge(explore(settings, *case), *case) for case in cases])
        sys.stderr.write(f"{name}: {samplers[name]}\n")
    targets = {}
    for target in (0.3, 0.6, 1.0, 2.0):
        aim = {"kind": "adversarial", "n_structures": 60, "target_error_ev_per_angstrom": target}
        targets[str(target)] = joined([judge(explore(aim, *case), *case) for case in cases])
    errors = [method.predict(labelled) for method, labelled in cases]
    content = {
        "networks": len(cases),
        "factors": [round(float(method.factor or 0), 3) for method, _ in cases],
        "training_force_rmse_ev_per_angstrom": [
            round(float(np.sqrt(np.mean((said.forces - labelled.forces) ** 2))), 4)
            for said, (_, labelled) in zip(errors, cases, strict=True)
        ],
        "defaults": {
            "bias_fraction": BiasedLangevinConfig().bias_fraction,
            "stop_uncertainty_ev_per_angstrom": LangevinConfig().stop_uncertainty_ev_per_angstrom,
            "target_error_ev_per_angstrom": AdversarialConfig().target_error_ev_per_angstrom,
        },
        "samplers": samplers,
        "targets": targets,
        "n_steps": n_steps,
        "to_doubt": to_doubt(cases, n_steps=n_steps),
    }
    publish("seeking_samplers_short" if short else "seeking_samplers", content)


if __name__ == "__main__":
    main()
