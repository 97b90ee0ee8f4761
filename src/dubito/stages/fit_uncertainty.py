"""Fit one uncertainty method to the trained ensemble."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dubito.config.uncertainty import UncertaintyConfig
from dubito.core.files import write_json
from dubito.data.device import choose_device
from dubito.data.store import read_structures
from dubito.model.artifact import load_potential
from dubito.uncertainty.registry import method_class


def run(
    *,
    ensemble: Path,
    dataset: Path,
    method: str,
    uncertainty: UncertaintyConfig,
    output: Path,
    about: Path,
    seed: int,
    threads: int,
    device: str = "cpu",
    gpus: int = 0,
) -> str:
    """Fit ``method`` on the training structures, calibrate it on the others (validation and control), save it.

    Parameters
    ----------
    uncertainty : only the method's own section and ``calibration`` count
    about : JSON beside the state: what the fit and a prediction cost, and how it was calibrated
    """
    torch.set_num_threads(threads)
    structures = read_structures(dataset)
    split = np.array(structures.text("origin/split"))
    valid = structures[split != "train"]
    potential = load_potential(ensemble, choose_device(device, gpus))
    start = time.process_time()
    train = structures[split == "train"]
    fitted = method_class(method).fit(potential, train, valid, seed=seed, config=uncertainty)
    seconds = time.process_time() - start
    fitted.save(output)
    write_json(about, {"method": method, "fit_cpu_s": round(seconds, 3), **_about(fitted, potential.n_members)})
    factor = getattr(fitted, "factor", None)
    detail = f", calibration factor {factor:.2f}" if factor is not None else ""
    return f"{method} fitted, calibrated on {len(valid)} structures{detail}"


def _about(fitted: Any, n_members: int) -> dict[str, Any]:
    """Return what a fitted method gives and costs.

    ``evaluations`` is the price of a prediction by this ensemble; ``evaluations_alone`` what the method would need if
    it were the only reason for having members: a method of one network does with one.
    """
    extra = fitted.evaluations - n_members
    needed = n_members if getattr(fitted, "min_members", 1) > 1 else 1
    calibration = getattr(fitted, "calibration", None)
    return {
        "targets": sorted(fitted.targets),
        "is_sigma": getattr(fitted, "is_sigma", None),
        "evaluations": float(fitted.evaluations),
        "evaluations_alone": float(needed + extra),
        "calibration": {} if calibration is None else calibration.state()[1],
    }
