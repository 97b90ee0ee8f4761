"""What the studies of uncertainty share: 3BPA, trained ensembles (kept between runs), and how a method is judged."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dubito.config.model import ModelConfig
from dubito.config.training import TrainingConfig
from dubito.config.uncertainty import UncertaintyConfig
from dubito.core.files import read_json, write_json
from dubito.core.hashing import hash_file, hash_json
from dubito.data.formats import read_any
from dubito.data.statistics import fit_statistics
from dubito.data.structures import Structures
from dubito.metrics.calibration import coverage, miscalibration_area
from dubito.metrics.ranking import auroc_error, auroc_shift, fixed_tolerance, spearman, spearman_within
from dubito.metrics.reduce import atom_norm, structure_max
from dubito.metrics.reliability import ence_with_null, sharpness
from dubito.metrics.scoring import gaussian_nll
from dubito.metrics.sparsification import ause, gain_share
from dubito.model.artifact import load_potential, save_potential
from dubito.model.potential import Potential
from dubito.training.loop import Trainer
from dubito.uncertainty.calibration import fit_conformal
from dubito.uncertainty.registry import method_class

DATA = Path(__file__).parents[2] / "shared" / "data" / "3bpa"
# Trained networks are kept here, so that a study goes on where it was.
MODELS = Path(__file__).parents[1] / "results" / "benchmarks" / "doubt"
TEMPERATURES = (300, 600, 1200)
N_CALIBRATION, N_VALID = 60, 40
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """One seed: its split of the frames at 300 K, and the network trained on it."""

    seed: int
    ensemble: Potential
    train: Structures
    calibration: Structures
    tests: dict[int, Structures]
    train_cpu_s: float
    key: str

    @property
    def single(self) -> Potential:
        """The first member alone."""
        return self.ensemble.member(0)


def load_case(seed: int, *, epochs: int, members: int, model: ModelConfig, n_train: int = 400) -> Case:
    """Return a case; the network is trained unless an earlier run left it.

    Calibration frames are seen by nothing; those for early stopping by the schedule alone; the test frames are those
    of the mixed set that do not occur in the training set.
    """
    frames = read_any(DATA / "train_300K.xyz.gz")
    order = np.random.default_rng(seed).permutation(len(frames))
    calibration, valid = frames[order[:N_CALIBRATION]], frames[order[N_CALIBRATION : N_CALIBRATION + N_VALID]]
    train = frames[order[N_CALIBRATION + N_VALID :][:n_train]]
    recipe = TrainingConfig(max_epochs=epochs, schedule="cosine", early_stopping_epochs=epochs, learning_rate=0.01)
    key = hash_json([seed, members, n_train, model.model_dump(mode="json"), recipe.model_dump(mode="json")])
    path = MODELS / f"seed_{seed}_{key}.safetensors"
    seconds = path.with_suffix(".txt")
    if not path.exists():
        potential = Potential(model, fit_statistics(train, model.r_max_angstrom), members)
        potential.initialise(seed, list(range(members)))
        start = time.process_time()
        Trainer(potential, train, valid, recipe, seed=seed, members=list(range(members))).run()
        MODELS.mkdir(parents=True, exist_ok=True)
        seconds.write_text(f"{time.process_time() - start:.1f}")
        save_potential(path, potential, provenance={"benchmark": "doubt", "seed": seed})
    tests = {t: read_any(DATA / f"mini_test_{t}K.xyz.gz") for t in TEMPERATURES}
    return Case(seed, load_potential(path), train, calibration, tests, float(seconds.read_text()), key)


def tolerance_of(case: Case) -> float:
    """Return the force error (eV/Å) above which an atom is wrong: the 95th percentile on the calibration frames."""
    said = case.single.predict(case.calibration)
    return fixed_tolerance(atom_norm(said.forces - case.calibration.forces), 95.0)


def kept(case: Case, what: Any, make: Callable[[], Any]) -> Any:
    """Return what an earlier run made with the same code and settings, or make it: a study goes on where it was."""
    source = Path(__file__).parents[1] / "src" / "dubito"
    files = sorted([*(source / "uncertainty").rglob("*.py"), *(source / "metrics").glob("*.py"), Path(__file__)])
    key = hash_json([case.key, what, [hash_file(file) for file in files]])
    path = MODELS / f"found_{key}.json"
    if not path.exists():
        found = make()
        MODELS.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
        return found
    return read_json(path)


def fit(case: Case, potential: Potential, method: str, config: UncertaintyConfig) -> tuple[Any, float]:
    """Fit a method and calibrate it on the calibration frames; return it with the CPU seconds it took."""
    start = time.process_time()
    fitted = method_class(method).fit(potential, case.train, case.calibration, seed=case.seed, config=config)
    return fitted, time.process_time() - start


def transfer(case: Case, fitted: Any, potential: Potential, config: UncertaintyConfig) -> Any:
    """Return what a method learnt of the first member, calibrated to the errors of the mean of all members."""
    other = type(fitted)(potential)
    other.restore(*fitted.state())
    other.calibrate(case.calibration, config)
    return other


def judge(case: Case, fitted: Any, fit_s: float) -> dict[str, Any]:
    """Measure a fitted method on the test frames."""
    bounds = _bounds(fitted, case.calibration)
    by_temperature: dict[str, dict[str, Any]] = {}
    raws, errors, levels, per_structure = [], [], {}, {}
    predict_s = 0.0
    for t, structures in case.tests.items():
        start = time.process_time()
        given = fitted.predict(structures)
        predict_s += time.process_time() - start
        difference = given.forces - structures.forces
        raw, error, sigma = given.scores["forces"], atom_norm(difference), given.uncertainty["forces"]
        raws.append(raw)
        errors.append(error)
        per_structure[t] = (
            np.add.reduceat(raw, structures.ptr[:-1]) / structures.n_atoms,
            structure_max(raw, structures.ptr),
            np.add.reduceat(given.scores["energies"], structures.ptr[:-1]) / structures.n_atoms,
        )
        levels[t] = float(np.mean(raw)), float(np.mean(given.scores["energies"]))
        by_temperature[str(t)] = {
            "spearman": spearman(raw, error),
            "spearman_energies": spearman(given.scores["energies"], error),
            "spearman_elements": spearman_within(raw, error, structures.atomic_numbers.astype(int)).mean,
            "auroc": auroc_error(raw, error, tolerance_of(case)),
            "area": miscalibration_area(difference, sigma),
            "coverage_68": coverage(difference, sigma, 0.68),
            "coverage_95": coverage(difference, sigma, 0.95),
            "nll": float(np.mean(gaussian_nll(difference, sigma))),
            "sharpness_mev": 1e3 * sharpness(sigma),
            "conformal_95_component": float(np.mean(np.abs(difference) <= bounds[0] * sigma)),
            "conformal_95_atom": float(np.mean(error <= bounds[1] * atom_norm(sigma))),
            **_before(fitted, difference, raw),
        }
        if t == min(TEMPERATURES):
            measured = ence_with_null(difference, sigma, seed=0)
            by_temperature[str(t)] |= {"ence": measured.value, "ence_null": measured.null_mean}
    pooled_raw, pooled_error = np.concatenate(raws), np.concatenate(errors)
    return {
        "by_temperature": by_temperature,
        "auroc_error": auroc_error(pooled_raw, pooled_error, tolerance_of(case)),
        "ause": ause(pooled_raw, pooled_error),
        "gain_share_10": gain_share(pooled_raw, pooled_error, 0.1),
        "shift": {
            f"{t}_{kind}": auroc_shift(per_structure[300][i], per_structure[t][i])
            for t in (600, 1200) for i, kind in enumerate(("mean", "max"))
        },
        "shift_energies": auroc_shift(per_structure[300][2], per_structure[1200][2]),
        "growth": levels[1200][0] / levels[300][0] if fitted.is_sigma else None,
        "growth_energies": levels[1200][1] / levels[300][1] if fitted.is_sigma else None,
        "evaluations": fitted.evaluations,
        "fit_cpu_s": fit_s,
        "predict_cpu_s": predict_s,
    }  # fmt: skip


def _bounds(fitted: Any, calibration: Structures) -> tuple[float, float]:
    """Return the conformal factors at 95 % for a force component, and for the length of an atom's error."""
    given = fitted.predict(calibration)
    difference, sigma, ptr = given.forces - calibration.forces, given.uncertainty["forces"], calibration.ptr
    component = fit_conformal(np.abs(difference).ravel(), sigma.ravel(), 3 * ptr, 0.95, per="atom")
    atom = fit_conformal(atom_norm(difference), atom_norm(sigma), ptr, 0.95, per="atom")
    return component.factor, atom.factor


def _before(fitted: Any, difference: Array, raw: Array) -> dict[str, float | None]:
    """Return area and NLL of the raw standard deviations; scores have none."""
    if not fitted.is_sigma or not np.all(raw > 0):
        return {"area_before": None, "nll_before": None}
    sigma = np.repeat(raw[:, None], 3, axis=1)
    return {
        "area_before": miscalibration_area(difference, sigma),
        "nll_before": float(np.mean(gaussian_nll(difference, sigma))),
    }


def plain_cpu_s(case: Case) -> float:
    """Return the CPU seconds in which the single model predicts all test frames (median of five)."""
    one, seconds = case.single, []
    for _ in range(5):
        start = time.process_time()
        for structures in case.tests.values():
            one.predict(structures)
        seconds.append(time.process_time() - start)
    return float(np.median(seconds))


def mean_over(found: list[Any]) -> Any:
    """Return the mean over seeds of equal trees of numbers (None stays None)."""
    first = found[0]
    if isinstance(first, dict):
        return {key: mean_over([one[key] for one in found]) for key in first}
    return None if any(value is None for value in found) else float(np.mean(found))


def rounded(value: Any) -> Any:
    """Round to four digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def say(text: str) -> None:
    """Tell how far a study is."""
    sys.stderr.write(text + "\n")


def one_thread() -> None:
    """Run on one thread, so that CPU seconds are those of the work."""
    torch.set_num_threads(1)
