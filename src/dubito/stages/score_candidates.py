"""Predict the whole pool with one uncertainty method."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from dubito.core.progress import track
from dubito.data.store import read_attributes, read_structures, write_structures
from dubito.data.structures import Array, Structures
from dubito.uncertainty.base import Predictor

# Memory grows with the structures predicted at once, not with the pool.
CHUNK = 256


def run(*, ensemble: Path, uncertainty: Path, method: str, pool: list[Path], output: Path, threads: int) -> str:
    """Join the candidates of all jobs and write them with the predictions of ``method``.

    The attributes of the jobs (stops, steps, walkers) are added up. A pool may be empty.
    """
    structures = Structures.concatenate([read_structures(path) for path in pool])
    attributes = add_attributes([read_attributes(path) for path in pool])
    predictions: dict[str, dict[str, Array]] = {}
    if len(structures):
        from dubito.uncertainty.registry import load_method

        predictor = load_method(method, ensemble, uncertainty, threads=threads)
        predictions[method] = predict_in_chunks(predictor, structures)
    write_structures(output, structures, predictions=predictions, attributes=attributes)
    return f"{len(structures)} candidates of {len(pool)} jobs scored by '{method}'"


def predict_in_chunks(predictor: Predictor, structures: Structures, chunk: int = CHUNK) -> dict[str, Array]:
    """Return the arrays of a prediction, computed for ``chunk`` structures at a time."""
    starts = range(0, len(structures), chunk)
    parts = [
        predictor.predict(structures[start : start + chunk]).fields()
        for start in track(starts, len(starts), "scoring (chunks)")
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else {})}


def add_attributes(jobs: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up what the jobs counted: stops by reason, steps and walkers."""
    stops: Counter[str] = Counter()
    for job in jobs:
        stops.update({str(reason): int(count) for reason, count in job.get("stops", {}).items()})
    out: dict[str, Any] = {"stops": dict(sorted(stops.items()))}
    for key in ("steps", "walkers"):
        out[key] = sum(int(job.get(key, 0)) for job in jobs)
    return out
