"""Pools for the benchmark of adaptive scoring: ensembles trained on few frames, and molecular dynamics made with them.

Everything made is kept in a folder, so that a benchmark goes on where it was.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dubito.config.langevin import LangevinConfig
from dubito.config.model import ModelConfig
from dubito.config.sanity import SanityConfig
from dubito.config.training import TrainingConfig
from dubito.core.files import read_json, write_json
from dubito.core.hashing import hash_json
from dubito.data.formats import read_any
from dubito.data.prediction import Prediction
from dubito.data.statistics import fit_statistics
from dubito.data.store import read_structures, write_structures
from dubito.data.structures import Structures
from dubito.model.artifact import load_potential, save_potential
from dubito.model.potential import Potential
from dubito.training.loop import Trainer
from dubito.uncertainty.ensemble import EnsembleUncertainty

DATA = Path(__file__).parents[2] / "shared" / "data"
N_MEMBERS = 8
# The network of the default configuration.
MODEL = ModelConfig()
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class System:
    """Where the labels come from, how many are learnt from, and at which temperatures the pool is made."""

    name: str
    file: str
    n_train: int
    epochs: int
    temperatures: tuple[float, ...]
    n_walkers: int
    n_steps: int


SYSTEMS = {
    s.name: s
    for s in (
        System("ethanol", "rmd17/ethanol_train01.xyz.gz", 100, 150, (300.0, 600.0, 900.0), 99, 1000),
        System("acac", "acac/train_300K.xyz.gz", 100, 150, (300.0, 600.0, 900.0), 99, 1000),
        System("3bpa", "3bpa/train_300K.xyz.gz", 100, 120, (300.0, 600.0, 1200.0), 60, 1000),
    )
}


@dataclass(frozen=True)
class Case:
    """A trained ensemble with its training set and the pool made with it.

    Attributes
    ----------
    said : what each member says of the pool
    train_cpu_s, explore_cpu_s, members_cpu_s : CPU seconds to train, to explore, and to evaluate each member alone
    """

    system: System
    ensemble: Potential
    train: Structures
    valid: Structures
    pool: Structures
    folder: Path
    cost: dict[str, Any]

    def said(self, member: int) -> Prediction:
        """Return what one member says of the pool, latents and features included."""
        with np.load(self.folder / f"member_{member}.npz") as found:
            arrays = {name: found[name].astype("f8") for name in found.files}
        return Prediction(self.pool.ptr, arrays["energy"], arrays["energies"], arrays["forces"],
                          latent=arrays["latent"], features=arrays["features"])  # fmt: skip


def load_case(name: str, folder: Path, seed: int = 1) -> Case:
    """Return a case, made as far as an earlier run did not make it."""
    system = SYSTEMS[name]
    frames = read_any(DATA / system.file)
    order = np.random.default_rng(seed).permutation(len(frames))
    train, valid = frames[order[: system.n_train]], frames[order[system.n_train : system.n_train + 40]]
    key = hash_json([seed, N_MEMBERS, repr(system), MODEL.model_dump(mode="json")])
    folder = folder / f"{name}_{key[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    costs = folder / "cost.json"
    cost: dict[str, Any] = read_json(costs) if costs.exists() else {}

    def timed(what: str, start: float) -> None:
        cost[what] = round(time.process_time() - start, 1)
        write_json(costs, cost)
        sys.stderr.write(f"{name}: {what} {cost[what]}\n")

    if not (folder / "ensemble.safetensors").exists():
        start = time.process_time()
        save_potential(folder / "ensemble.safetensors", _trained(system, train, valid, seed), provenance={})
        timed("train_cpu_s", start)
    ensemble = load_potential(folder / "ensemble.safetensors")
    if not (folder / "pool.h5").exists():
        from dubito.sampling.langevin import LangevinSampler

        start = time.process_time()
        fitted = EnsembleUncertainty.fit(ensemble, train, valid, seed=seed)
        cost["valid_force_rmse_ev_per_angstrom"] = float(
            np.sqrt(np.mean((ensemble.predict(valid).forces - valid.forces) ** 2))
        )
        config = LangevinConfig(
            temperatures_K=list(system.temperatures), n_walkers=system.n_walkers, n_steps=system.n_steps,
            save_every_steps=10, stop_uncertainty_ev_per_angstrom=2.0,
        )  # fmt: skip
        found = LangevinSampler(config, SanityConfig()).sample(fitted, train, seed=seed, iteration=1)
        write_structures(folder / "pool.h5", found.candidates)
        timed("explore_cpu_s", start)
    pool = read_structures(folder / "pool.h5")
    for number in range(N_MEMBERS):
        path = folder / f"member_{number}.npz"
        if not path.exists():
            start = time.process_time()
            found = ensemble.member(number).predict(pool)
            timed(f"member_{number}_cpu_s", start)
            small = {name: getattr(found, name).astype("f4") for name in ("energies", "forces", "latent", "features")}
            np.savez(path, energy=found.energy, **small)
    return Case(system, ensemble, train, valid, pool, folder, cost)


def _trained(system: System, train: Structures, valid: Structures, seed: int) -> Potential:
    recipe = TrainingConfig(
        max_epochs=system.epochs, schedule="cosine", early_stopping_epochs=system.epochs, learning_rate=0.01
    )
    potential = Potential(MODEL, fit_statistics(train, MODEL.r_max_angstrom), N_MEMBERS)
    potential.initialise(seed, list(range(N_MEMBERS)))
    Trainer(potential, train, valid, recipe, seed=seed, members=list(range(N_MEMBERS))).run()
    return potential


if __name__ == "__main__":
    for each in sys.argv[2:]:
        load_case(each, Path(sys.argv[1]))
