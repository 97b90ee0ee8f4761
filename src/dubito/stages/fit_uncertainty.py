"""Fit one uncertainty method to the trained ensemble."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dubito.data.device import choose_device
from dubito.data.store import read_structures
from dubito.model.artifact import load_potential
from dubito.uncertainty.registry import method_class


def run(
    *,
    ensemble: Path,
    dataset: Path,
    method: str,
    output: Path,
    seed: int,
    threads: int,
    device: str = "cpu",
    gpus: int = 0,
) -> str:
    """Fit ``method`` on the training structures, calibrate it on the others (validation and control), save it."""
    torch.set_num_threads(threads)
    structures = read_structures(dataset)
    split = np.array(structures.text("origin/split"))
    valid = structures[split != "train"]
    potential = load_potential(ensemble, choose_device(device, gpus))
    fitted = method_class(method).fit(potential, structures[split == "train"], valid, seed=seed)
    fitted.save(output)
    factor = getattr(fitted, "factor", None)
    detail = f", calibration factor {factor:.2f}" if factor is not None else ""
    return f"{method} fitted, calibrated on {len(valid)} structures{detail}"
