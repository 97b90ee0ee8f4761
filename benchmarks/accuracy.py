"""What the radial splines cost in accuracy: force errors on 3BPA at a fixed training budget.

    python benchmarks/accuracy.py            # one member, few epochs (a minute or two)
    python benchmarks/accuracy.py --full     # four members, 60 epochs, and the splines compared over 3 seeds

Trains on frames at 300 K and tests at 300, 600 and 1200 K. Before splines, the radial network was evaluated for
each pair; splines of 2048 intervals follow that network within 1e-4 of its largest value, so they stand for it. Writes
benchmarks/results/accuracy.json (short form: accuracy_short.json).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _publish import publish

from dubito.config.model import ModelConfig
from dubito.config.training import TrainingConfig
from dubito.data.formats import read_any
from dubito.data.statistics import fit_statistics
from dubito.data.structures import Structures
from dubito.model.potential import Potential
from dubito.training.loop import Trainer

DATA = Path(__file__).parents[2] / "shared" / "data" / "3bpa"
TEMPERATURES = (300, 600, 1200)
INTERVALS = (32, 128, 2048)
N_VALID = 50


def train(structures: Structures, *, intervals: int, members: int, epochs: int, seed: int) -> tuple[Potential, float]:
    """Return a trained potential and the CPU seconds it took."""
    order = np.random.default_rng(seed).permutation(len(structures))
    valid, rest = structures[order[:N_VALID]], structures[order[N_VALID:]]
    config = ModelConfig(l_max=2, r_max_angstrom=5.0, n_spline_intervals=intervals)
    potential = Potential(config, fit_statistics(rest, 5.0), members)
    rows = list(range(members))
    potential.initialise(seed, rows)
    recipe = TrainingConfig(max_epochs=epochs, schedule="cosine", early_stopping_epochs=epochs, learning_rate=0.01)
    trainer = Trainer(potential, rest, valid, recipe, seed=seed, members=rows)
    start = time.process_time()
    trainer.run()
    return potential, time.process_time() - start


def errors(potential: Potential, tests: dict[int, Structures]) -> dict[str, dict[str, float]]:
    """Return root mean squared errors of the members' mean, by temperature."""
    out: dict[str, dict[str, float]] = {"force_rmse_mev_per_angstrom": {}, "energy_rmse_mev": {}}
    for temperature, structures in tests.items():
        prediction = potential.predict(structures)
        force = prediction.forces - structures.forces
        energy = prediction.energy - structures.energy
        out["force_rmse_mev_per_angstrom"][str(temperature)] = round(1e3 * float(np.sqrt(np.mean(force**2))), 1)
        out["energy_rmse_mev"][str(temperature)] = round(1e3 * float(np.sqrt(np.mean(energy**2))), 1)
    return out


def compare(structures: Structures, tests: dict[int, Structures], seeds: int, epochs: int) -> dict[str, Any]:
    """Return the mean over seeds of the errors of one member, by the splines' intervals."""
    out = {}
    for intervals in INTERVALS:
        found, seconds = [], []
        for seed in range(seeds):
            potential, cpu_s = train(structures, intervals=intervals, members=1, epochs=epochs, seed=seed)
            found.append(errors(potential, tests)["force_rmse_mev_per_angstrom"])
            seconds.append(cpu_s)
        out[str(intervals)] = {
            "force_rmse_mev_per_angstrom": {t: [line[t] for line in found] for t in found[0]},
            "cpu_s": round(float(np.mean(seconds)), 1),
        }
        sys.stderr.write(f"{intervals} intervals: {out[str(intervals)]}\n")
    return out


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--full", action="store_true", help="four members to the end of a schedule, and three seeds")
    parser.add_argument("--short", action="store_true", help="the default")
    full = parser.parse_args().full
    if not DATA.is_dir():
        sys.stdout.write(f"accuracy: skipped, the 3BPA frames are not there ({DATA.name} beside the repository)\n")
        return
    torch.set_num_threads(1)
    structures = read_any(DATA / "train_300K.xyz.gz")
    tests = {t: read_any(DATA / f"mini_test_{t}K.xyz.gz") for t in TEMPERATURES}
    content: dict[str, Any] = {
        "frames": len(structures) - N_VALID,
        "l_max": 2,
        "channels": 32,
        "layers": 3,
        "threads": 1,
    }
    epochs = 30 if full else 3
    content["intervals_epochs"] = epochs
    content["by_intervals"] = compare(structures, tests, seeds=3 if full else 1, epochs=epochs)
    if full:
        potential, cpu_s = train(structures, intervals=128, members=4, epochs=60, seed=0)
        content["four_members"] = {"epochs": 60, "cpu_s": round(cpu_s, 1), **errors(potential, tests)}
    publish("accuracy" if full else "accuracy_short", content)


if __name__ == "__main__":
    main()
