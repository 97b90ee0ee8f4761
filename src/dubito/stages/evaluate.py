"""Measure one iteration: errors, calibration, miss rate and barriers, before anybody judges them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dubito.config.selection import SelectionConfig
from dubito.core.errors import DataError
from dubito.core.files import read_json, write_json
from dubito.core.random import seed_for
from dubito.data.store import read_structures
from dubito.data.structures import Structures
from dubito.metrics.binomial import clopper_pearson
from dubito.metrics.calibration import coverage, miscalibration_area
from dubito.metrics.errors import mae, max_error, per_atom, rmse, rmse_relative_sd
from dubito.metrics.profile import EnergyProfile
from dubito.metrics.ranking import spearman
from dubito.metrics.reduce import atom_norm
from dubito.reporting.evaluated import Evaluated, join_labels, read_evaluated, read_profile
from dubito.stages._bakeoff import bakeoff, costs_of
from dubito.stages._certificate import certificate_of, miss_rate_of
from dubito.stages._control_slice import CONTROL, as_drawn


def run(
    *,
    iteration: int,
    method: str,
    dataset: Path,
    selected: Path,
    shards: list[Path],
    shard_reports: list[Path],
    manifest: Path,
    predictions: Path,
    profiles: list[Path],
    test: Path | None,
    output: Path,
    selection: SelectionConfig,
    batch: Path | None = None,
    fits: list[Path] | None = None,
    previous: Path | None = None,
    seed: int = 0,
) -> str:
    """Write ``metrics.json`` of one iteration.

    ``new`` and ``control`` are judged by the model that selected them, before it was trained on them;
    all other sets by the model of this iteration. Under ``bakeoff`` all methods are compared on the new ones.

    Parameters
    ----------
    method : whose word counts where the manifest names no other, that drove this iteration
    batch : the selected structures with what all methods said of them; None: ``selected`` has it of the only one
    fits : what fitting the methods that judged the batch cost
    previous : ``metrics.json`` of the iteration before

    Raises
    ------
    DataError
        When files that belong together don't (ids, predictions, manifest).
    """
    data = read_structures(dataset)
    new = join_labels(selected if batch is None else batch, shards)
    said = read_json(manifest)
    method = said.get("method") or method
    sets = _sets(data, predictions, profiles, test, new if iteration > 0 else None)
    certificate = certificate_of(sets.get(CONTROL), said, method, selection, previous, seed=seed)
    if CONTROL in sets:
        # All else that is said of the control slice stands for the pool too.
        sets[CONTROL] = as_drawn(sets[CONTROL], said)
    metrics = {
        "iteration": iteration,
        "labels": _labels(data, len(new), [read_json(path) for path in shard_reports]),
        "errors": _errors(sets, method),
        "uncertainty": _uncertainties(sets),
        "miss_rate": miss_rate_of(certificate) or _miss_rate(sets.get(CONTROL), said, method, selection),
        "certificate": certificate,
        "physics": {curve.name: barrier_of(curve) for curve in (read_profile(path, method) for path in profiles)},
        "method": method,
        "bakeoff": bakeoff(
            {name: sets[name] for name in ("new", CONTROL) if name in sets},
            costs_of(fits or [], batch),
            tolerance=selection.force_tolerance_ev_per_angstrom,
            seed=seed_for(seed, "bakeoff", iteration),
        ),
    }
    write_json(output, _finite(metrics))
    return _line(metrics)


def _sets(
    data: Structures, predictions: Path, profiles: Sequence[Path], test: Path | None, new: Evaluated | None
) -> dict[str, Evaluated]:
    """Return the non-empty sets to be judged, by name."""
    trained = read_evaluated(predictions)
    if trained.structures.ids != data.ids:
        raise DataError(
            f"{predictions} does not hold the structures of the dataset it should predict "
            f"({len(trained)} against {len(data)}). Delete it and start the campaign again."
        )
    sets = {name: trained.where("origin/split", name) for name in ("train", "valid")}
    if new is not None:
        sets["new"] = new
        sets[CONTROL] = new.where("origin/reason", CONTROL)
    if test is not None:
        sets["test"] = read_evaluated(test)
    sets |= {path.stem: read_evaluated(path) for path in profiles}
    return {name: part for name, part in sets.items() if len(part)}


def _labels(data: Structures, new: int, reports: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    split = data.text("origin/split")
    return {
        "total": len(data),
        "train": split.count("train"),
        "valid": split.count("valid"),
        "control": split.count(CONTROL),
        "new": new,
        "failed": sum(len(report["failed"]) for report in reports),
        "reused": sum(int(report["reused"]) for report in reports),
    }


def _errors(sets: Mapping[str, Evaluated], method: str) -> dict[str, dict[str, Any]]:
    """Return the errors of all sets; of the control slice also the worst of each structure, for the planner."""
    found: dict[str, dict[str, Any]] = {name: errors_of(part, method) for name, part in sets.items()}
    if CONTROL in sets:
        worst = sets[CONTROL].worst_force_error(method)
        found[CONTROL]["worst_force_errors"] = [w if math.isfinite(w) else None for w in worst.tolist()]
    return found


def errors_of(part: Evaluated, method: str) -> dict[str, float | int]:
    """Return the errors of one set: energies per atom and in total, forces by component."""
    said, n_atoms = part.means(method), part.structures.n_atoms
    energy, reference = said["energy"], part.structures.energy
    shares = per_atom(energy, n_atoms), per_atom(reference, n_atoms)
    forces = said["forces"], part.structures.forces
    return {
        "n_structures": len(part),
        "n_atoms": int(n_atoms.sum()),
        "energy_rmse_ev_per_atom": rmse(*shares),
        "energy_mae_ev_per_atom": mae(*shares),
        "energy_rmse_ev": rmse(energy, reference),
        "force_rmse_ev_per_angstrom": rmse(*forces),
        "force_rmse_relative_sd": rmse_relative_sd(*forces, part.structures.ptr),
        "force_mae_ev_per_angstrom": mae(*forces),
        "force_max_ev_per_angstrom": max_error(*forces),
    }


def _uncertainties(sets: Mapping[str, Evaluated]) -> dict[str, dict[str, dict[str, float | int]]]:
    """Return, by method and set, how well doubt matches error; every method in the files is judged."""
    methods = sorted({method for part in sets.values() for method in part.predictions})
    return {
        method: {name: uncertainty_of(part, method) for name, part in sets.items() if method in part.predictions}
        for method in methods
    }


def uncertainty_of(part: Evaluated, method: str) -> dict[str, float | int]:
    """Return ranking (by atom) and calibration (by force component) of one method on one set.

    A method that gives only a score is ranked; its calibration is NaN.
    """
    said, difference = part.of(method), part.force_difference(method)
    sigma = said.get("forces_uncertainty")
    doubt = atom_norm(sigma) if sigma is not None else said.get("forces_score")
    nothing = float("nan")
    return {
        "n": len(difference),
        "spearman_force": nothing if doubt is None else spearman(doubt, atom_norm(difference)),
        "coverage_68": nothing if sigma is None else coverage(difference, sigma, 0.68),
        "coverage_95": nothing if sigma is None else coverage(difference, sigma, 0.95),
        "miscalibration_area": nothing if sigma is None else miscalibration_area(difference, sigma),
        "mean_uncertainty_ev_per_angstrom": nothing if sigma is None else float(np.mean(atom_norm(sigma))),
    }


def _miss_rate(
    control: Evaluated | None, manifest: Mapping[str, Any], method: str, selection: SelectionConfig
) -> dict[str, Any]:
    """Return the share of trusted control structures whose worst force error exceeds the tolerance.

    For manifests of an older dubito, and where there is no control slice; else the certificate says it. Trusted: score
    at or below the manifest's threshold; without a threshold everything is. An error that is not a number counts as a
    miss.
    """
    accepted, missed, n_control = 0, 0, 0
    if control is not None:
        n_control = len(control)
        threshold = manifest.get("threshold")
        score_of = dict(zip(manifest["ids"], manifest["scores"], strict=True))
        ids = control.structures.ids
        unknown = [name for name in ids if name not in score_of]
        if unknown:
            raise DataError(
                f"The manifest of iteration {manifest.get('iteration')} has no score for control structure "
                f"{unknown[0][:8]}: manifest and selection don't belong together. Delete both and start again."
            )
        trusted = np.array([threshold is None or score_of[name] <= threshold for name in ids], dtype=bool)
        right = control.worst_force_error(method) <= selection.force_tolerance_ev_per_angstrom
        accepted, missed = int(trusted.sum()), int((trusted & ~right).sum())
    low, high = clopper_pearson(missed, accepted)
    return {
        "value": missed / accepted if accepted else None,
        "low": low,
        "high": high,
        "n_accepted": accepted,
        "n_control": n_control,
        # Structures that can't be labelled can't be judged either: their number is the bias to keep in mind.
        "n_control_failed": max(0, int(manifest.get("n_control") or 0) - n_control),
        "tolerance_ev_per_angstrom": selection.force_tolerance_ev_per_angstrom,
        "risk": selection.risk,
    }


def barrier_of(profile: EnergyProfile) -> dict[str, float | None]:
    """Return the barrier of one profile, its error (predicted minus reference) and uncertainty."""
    return {
        "barrier_reference_ev": profile.barrier_reference,
        "barrier_predicted_ev": profile.barrier_predicted,
        "barrier_error_ev": profile.barrier_error,
        "barrier_uncertainty_ev": profile.barrier_uncertainty,
        "max_profile_error_ev": profile.max_error,
    }


def _finite(value: Any) -> Any:
    """Replace what JSON can't hold (NaN, infinity) by null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _line(metrics: Mapping[str, Any]) -> str:
    """Say in one line what was found."""
    labels, said = metrics["labels"], []
    for name, words in (("new", "unseen structures"), ("valid", "validation"), ("test", "test set")):
        if name in metrics["errors"]:
            said.append(f"{words} {1000 * metrics['errors'][name]['force_rmse_ev_per_angstrom']:.0f} meV/Å")
    text = f"{labels['total']} labels ({labels['new']} new, {labels['failed']} failed)"
    if said:
        text += "; force RMSE: " + ", ".join(said)
    for name, barrier in metrics["physics"].items():
        text += f"; {name} barrier {1000 * barrier['barrier_error_ev']:+.0f} meV off"
    return text
