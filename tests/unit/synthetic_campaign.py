"""A small campaign folder with planted errors, so that every number in its results has a closed form.

Every force component is predicted wrong by exactly ``force_error(k)`` (signs vary), every total energy
too high by exactly ``ENERGY_ERROR``; the claimed uncertainty of each component is
``SIGMA_FACTOR * force_error(k)``. With ``vary`` errors are Gaussian instead, as in a real campaign.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dubito.config import Config, parse_config
from dubito.core import progress
from dubito.core.files import read_json, write_json, write_text
from dubito.data.store import write_structures
from dubito.data.structures import Structures
from dubito.stages import choose_driver, decide, evaluate

METHOD = "ensemble"
ENERGY_ERROR = 0.008
SIGMA_FACTOR = 0.8
BARRIER = 0.25
MINIMUM = -1537.0
MEMBERS = np.array([-3.0, -1.0, 1.0, 3.0])
SHARD = 6


def force_error(iteration: int) -> float:
    """Planted absolute error of each force component by the model of an iteration, eV/Å."""
    return 0.4 / 2.0**iteration


def barrier_error(iteration: int) -> float:
    """Planted barrier error of the model of an iteration, eV."""
    return 0.3 * (-0.4) ** iteration


def member_spread(iteration: int) -> float:
    """Distance factor of the members' barriers, eV; their standard deviation is this times sqrt(20/3)."""
    return 0.01 / (1 + iteration)


@dataclass
class Builder:
    """Writes one campaign folder; every random number follows from the seed."""

    folder: Path
    config: Config
    n_new: int = 12
    n_control: int = 2
    n_failed: int = 1
    vary: bool = False
    threshold: float | None = 0.5
    n_test: int = 0
    # Structures of the gated pool whose scores the manifest tells; 0: none, as by an older dubito.
    n_pool: int = 0
    seed: int = 7
    # Further methods: from the length of each atom's force error (N,) to the standard deviation of a component (N,).
    rivals: Mapping[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)
    # What the fits of methods say of themselves, beyond what all do.
    fits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.data = Structures.empty()

    # --- structures and predictions -----------------------------------------------------------

    def ammonia(self, n: int, spread: float) -> Structures:
        """Return labelled NH3-like structures."""
        base = np.array([[0, 0, 0.1], [0.94, 0, -0.27], [-0.47, 0.81, -0.27], [-0.47, -0.81, -0.27]])
        moves = self.rng.normal(0, spread, (n, 4, 3))
        energy = MINIMUM + 10 * np.sum(moves**2, axis=(1, 2))
        return Structures.build(
            [[7, 1, 1, 1]] * n,
            list(base + moves),
            labels__energy=energy,
            labels__forces=(-20 * moves).reshape(-1, 3),
            labels__mask=np.ones(n, bool),
        )

    def predict(self, structures: Structures, iteration: int) -> dict[str, np.ndarray]:
        """Return predictions with the planted errors of the model of ``iteration``."""
        n_components = 3 * int(structures.ptr[-1])
        size = np.full(n_components, force_error(iteration))
        sigma = SIGMA_FACTOR * size
        error = size * np.where(np.arange(n_components) % 2, 1.0, -1.0)
        if self.vary:
            per_atom = np.repeat(self.rng.lognormal(0, 0.6, n_components // 3), 3)
            sigma = force_error(iteration) * per_atom / 2
            error = self.rng.normal(0, 1.15 * sigma)
        energy = structures.energy + ENERGY_ERROR * (self.rng.normal(size=len(structures)) if self.vary else 1.0)
        return {
            "energy": energy,
            "forces": structures.forces + error.reshape(-1, 3),
            "energies": np.repeat(energy / structures.n_atoms, structures.n_atoms),
            "forces_uncertainty": sigma.reshape(-1, 3),
            "energy_uncertainty": np.full(len(structures), ENERGY_ERROR),
            "energy_ensemble": energy[:, None] + 0.002 * MEMBERS,
        }

    def predict_all(self, structures: Structures, iteration: int) -> dict[str, dict[str, np.ndarray]]:
        """Return the predictions of all methods, which share their means."""
        said = self.predict(structures, iteration)
        length = np.linalg.norm(said["forces"] - structures.forces, axis=1)
        means = {name: said[name] for name in ("energy", "forces", "energies")}
        return {METHOD: said} | {
            name: means | {"forces_uncertainty": np.repeat(doubt(length)[:, None], 3, axis=1)}
            for name, doubt in self.rivals.items()
        }

    def write_profile(self, iteration: int) -> None:
        """Write the predicted inversion profile of one iteration."""
        x = np.linspace(-1.2, 0.2, 8)
        minimum, barrier = 1, 6
        shape = (1 - x**2) ** 2
        shape = (shape - shape[minimum]) / (shape[barrier] - shape[minimum])
        heights = 0.38 * x
        positions = [np.array([[0, 0, h], [1, 0, 0], [-0.5, 0.866, 0], [-0.5, -0.866, 0]]) for h in heights]
        n = len(x)
        structures = Structures.build(
            [[7, 1, 1, 1]] * n,
            positions,
            labels__energy=MINIMUM + BARRIER * shape,
            labels__forces=np.zeros((4 * n, 3)),
            labels__mask=np.ones(n, bool),
        )
        everything = self.predict_all(structures, iteration)
        said = everything[METHOD]
        said["energy"] = structures.energy + 0.5 + barrier_error(iteration) * shape
        said["energy_ensemble"] = said["energy"][:, None] + member_spread(iteration) * MEMBERS * shape[:, None]
        about = {
            "name": "inversion",
            "kind": "inversion",
            "coordinate": heights.tolist(),
            "coordinate_label": "height of N above the H plane",
            "coordinate_unit": "Å",
            "minimum_index": minimum,
            "barrier_index": barrier,
        }
        path = self.where(iteration) / "predictions" / "profile_inversion.h5"
        everything |= {name: {**everything[name], "energy": said["energy"]} for name in self.rivals}
        write_structures(path, structures, predictions=everything, attributes={"profile": about})

    @property
    def methods(self) -> list[str]:
        """All methods."""
        return [METHOD, *self.rivals]

    def batch(self, iteration: int) -> Path:
        """Return the file in which all methods judge a batch."""
        return self.where(iteration) / "predictions" / "batch.h5"

    def driver(self, iteration: int) -> str:
        """Return the method that drives an iteration."""
        chosen = self.where(iteration - 1) / "driver.json"
        return str(read_json(chosen)["method"]) if iteration and chosen.exists() else METHOD

    def where(self, iteration: int) -> Path:
        """Return the folder of one iteration."""
        return self.folder / f"iter_{iteration:03d}"

    # --- one iteration ------------------------------------------------------------------------

    def iteration(self, k: int) -> None:
        """Write the artefacts of iteration ``k`` up to its predictions."""
        where, n = self.where(k), self.n_new + self.n_control if k else self.n_new
        batch = self.ammonia(n, 0.04 + 0.02 * k)
        control = np.arange(n) >= self.n_new
        reason = np.where(control, "control", "uncertainty" if k else "initial").astype("S32")
        batch = batch.with_columns(origin__reason=reason, origin__sampler="langevin" if k else "rattle")
        failed = np.zeros(n, bool)
        failed[: self.n_failed if k else 0] = True
        predictions = self.predict_all(batch, k - 1) if k else None
        blank = {"labels/energy", "labels/forces", "labels/mask"}
        bare = Structures(
            **{
                f: getattr(batch, f)
                for f in ("ptr", "atomic_numbers", "positions", "cell", "pbc", "charge", "multiplicity")
            },
            columns={p: v for p, v in batch.columns.items() if p not in blank},
        )
        driver = self.driver(k)
        write_structures(where / "selected.h5", bare, predictions={driver: predictions[driver]} if k else None)
        if k and self.rivals:
            cost = {"n_atoms": 4 * n, "members_cpu_s": 0.2, "own_cpu_s": dict.fromkeys(predictions, 0.1)}
            write_structures(self.batch(k), bare, predictions=predictions, attributes={"cost": cost})
        for name in self.methods:
            about = {"method": name, "evaluations": 4.0, "evaluations_alone": 1.0, "fit_cpu_s": 2.5}
            write_json(where / "uncertainty" / f"{name}.json", about | dict(self.fits.get(name, {})))
        scores = np.where(control, np.linspace(0.1, 0.4, n), np.linspace(0.6, 1.6, n)) if k else np.zeros(n)
        self.write_manifest(k, batch, scores, reason)
        self.write_shards(k, batch, failed)
        if k:
            stops = {"uncertainty": 3 + k, "energy_ceiling": 1, "finished": 8 - k}
            about = {"stops": stops, "walkers": 12, "steps": 1000}
            write_structures(where / "pool" / "job_0.h5", bare, attributes=about)
        split = np.where(control & (k > 0), "control", np.where(np.arange(n) % 5 == 4, "valid", "train"))
        known = batch[~failed].with_columns(origin__split=split[~failed].astype("S8"))
        old = self.data
        if len(old):
            was = np.array(old.text("origin/split"))
            old = old.with_columns(origin__split=np.where(was == "control", "train", was).astype("S8"))
        self.data = Structures.concatenate([old, known])
        write_structures(where / "dataset.h5", self.data)
        write_text(where / "ensemble.safetensors", f"weights of iteration {k}")
        path = where / "predictions" / "dataset.h5"
        write_structures(path, self.data, predictions=self.predict_all(self.data, k))
        self.write_profile(k)
        if self.n_test:
            fixed = self.ammonia(self.n_test, 0.05)
            write_structures(where / "predictions" / "test.h5", fixed, predictions=self.predict_all(fixed, k))
        for stage, wall in (("explore_structures", 8.0), ("label_structures", 20.0), ("train_ensemble", 36.0)):
            event = {"stage": stage, "iteration": k, "wall_s": wall + k, "cpu_s": 2 * wall, "text": f"{stage} done"}
            progress.record(self.folder / "progress.jsonl", event="started", stage=stage, iteration=k)
            progress.record(self.folder / "progress.jsonl", event="finished", **event)

    def write_manifest(self, k: int, batch: Structures, scores: np.ndarray, reason: np.ndarray) -> None:
        """Write ``selection.json``."""
        manifest = {
            "iteration": k,
            "n_shards": -(-len(batch) // SHARD),
            "n_selected": len(batch),
            "n_control": self.n_control if k else 0,
            "method": self.driver(k) if k else None,
            "n_candidates": 240 if k else len(batch),
            "rejected": {"duplicate": 31, "too_close": 4} if k else {},
            "threshold": self.threshold if k else None,
            "ids": batch.ids,
            "reasons": [r.decode() for r in reason],
            "scores": scores.tolist() if k else [None] * len(batch),
        }
        if self.n_pool and k:
            others = np.linspace(0.05, 1.7, self.n_pool - len(batch))
            ranked = np.sort(np.concatenate([scores, others])).tolist()
            manifest |= {"pool_scores": {"langevin": {"n": self.n_pool, "quantiles": ranked}}}
            manifest |= {"strata": ["langevin"] * len(batch)}
        write_json(self.where(k) / "selection.json", manifest)

    def write_shards(self, k: int, batch: Structures, failed: np.ndarray) -> None:
        """Write the label shards and their reports."""
        for shard, start in enumerate(range(0, len(batch), SHARD)):
            rows = np.arange(start, min(start + SHARD, len(batch)))
            part, bad = batch[rows], failed[rows]
            energy, forces = part.energy.copy(), part.forces.copy()
            energy[bad] = np.nan
            forces[np.repeat(bad, part.n_atoms)] = np.nan
            part = part.with_columns(labels__energy=energy, labels__forces=forces, labels__mask=~bad)
            path = self.where(k) / "labels" / f"shard_{shard:03d}.h5"
            write_structures(path, part)
            ids = [part.ids[i] for i in np.flatnonzero(bad)]
            message = "No convergence after 80 cycles & 4 attempts; <b>HOMO</b>-LUMO gap below 0.1 eV."
            report = {
                "shard": shard,
                "done": int((~bad).sum()),
                "failed": [{"id": i, "reason": "scf_not_converged", "message": message} for i in ids],
                "reused": 1 if shard == 0 else 0,
                "cpu_s": 18.0,
                "wall_s": 10.0,
            }
            write_json(path.with_suffix(".json"), report)

    # --- measuring ----------------------------------------------------------------------------

    def evaluate(self, k: int) -> str:
        """Run the stage ``evaluate`` on iteration ``k``."""
        where = self.where(k)
        return evaluate.run(
            iteration=k,
            method=METHOD,
            dataset=where / "dataset.h5",
            selected=where / "selected.h5",
            shards=sorted((where / "labels").glob("*.h5")),
            shard_reports=sorted((where / "labels").glob("*.json")),
            manifest=where / "selection.json",
            predictions=where / "predictions" / "dataset.h5",
            profiles=[where / "predictions" / "profile_inversion.h5"],
            test=where / "predictions" / "test.h5" if self.n_test else None,
            output=where / "metrics.json",
            selection=self.config.selection,
            batch=self.batch(k) if self.batch(k).is_file() else None,
            fits=[self.where(k - 1) / "uncertainty" / f"{name}.json" for name in self.methods if k],
            previous=self.where(k - 1) / "metrics.json" if k else None,
            seed=self.seed,
        )

    def choose(self, k: int) -> str:
        """Run the stage ``choose_driver`` after iteration ``k``."""
        return choose_driver.run(
            iteration=k,
            dataset=self.where(k) / "dataset.h5",
            batches=[self.batch(i) for i in (k - 1, k) if i > 0],
            previous=self.where(k - 1) / "driver.json" if k else None,
            output=self.where(k) / "driver.json",
            auto=self.config.uncertainty.auto,
            candidates=self.config.uncertainty.candidates,
            seed=self.seed,
            fits=[self.where(k) / "uncertainty" / f"{name}.json" for name in self.config.uncertainty.candidates],
        )

    def decide(self, k: int) -> str:
        """Run the stage ``decide`` after iteration ``k``."""
        return decide.run(
            metrics=[self.where(i) / "metrics.json" for i in range(k + 1)],
            manifests=[self.where(i) / "selection.json" for i in range(k + 1)],
            output=self.where(k) / "decision.json",
            campaign=self.config.campaign,
            selection=self.config.selection,
            labelling=self.config.labelling,
            method=self.config.uncertainty.acquire_with,
            driver=self.where(k) / "driver.json" if self.rivals else None,
        )


def build(folder: Path, *, iterations: int = 4, config: Mapping[str, Any] | None = None, **options: Any) -> Builder:
    """Write a campaign of ``iterations`` iterations (the initial one included), measured and decided."""
    raw = {"evaluation": {"test_files": ["test.xyz"]} if options.get("n_test") else {}, **(config or {})}
    builder = Builder(folder, parse_config(raw), **options)
    for k in range(iterations):
        builder.iteration(k)
        builder.evaluate(k)
        if builder.rivals:
            builder.choose(k)
        builder.decide(k)
    return builder
