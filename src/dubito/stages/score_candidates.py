"""Predict the whole pool with one uncertainty method."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from dubito.config.scoring import ScoringConfig
from dubito.config.selection import SelectionConfig
from dubito.core.errors import ModelError
from dubito.data.store import read_attributes
from dubito.stages._predicting import predict_files
from dubito.stages._together import Say, alone
from dubito.stages._unfitted import REMEDY, why_unfitted

# The only method whose score takes all members.
ADAPTIVE = "ensemble"


def run(
    *,
    ensemble: Path,
    uncertainty: Path,
    method: str,
    pool: list[Path],
    output: Path,
    threads: int,
    device: str = "cpu",
    gpus: int = 0,
    dataset: Path | None = None,
    scoring: ScoringConfig | None = None,
    selection: SelectionConfig | None = None,
    seed: int = 0,
    metrics: Path | None = None,
) -> str:
    """Join the candidates of all jobs and write them with the predictions of ``method``, a piece at a time.

    The attributes of the jobs (stops, steps, walkers) are added up. A pool may be empty.

    Parameters
    ----------
    dataset, scoring, selection, seed : what adaptive scoring needs (:mod:`dubito.stages._adaptive`), with the training
        structures of ``ensemble``; None: all members are asked about all candidates
    metrics : ``metrics.json`` of the iteration before, where its certificate bounds what is selected

    Raises
    ------
    ModelError
        When the method was not fitted.
    """

    def load() -> Any:
        from dubito.uncertainty.registry import load_method

        reason = why_unfitted(uncertainty)
        if reason is not None:
            raise ModelError(f"'{method}' could not be fitted, so it can't drive: {reason} In short: {REMEDY}.")
        return load_method(method, ensemble, uncertainty, threads=threads, device=device, gpus=gpus)

    def say() -> Say:
        return alone(method, load())

    attributes = add_attributes([read_attributes(path) for path in pool])
    wants = scoring is not None and scoring.adaptive
    if method == ADAPTIVE and wants and scoring and selection and dataset:
        from dubito.stages._adaptive import score_adaptively

        settings: dict[str, Any] = {"scoring": scoring, "selection": selection, "seed": seed, "metrics": metrics}
        count, note = score_adaptively(load(), dataset, pool, output, attributes, **settings)
        return f"{count} candidates of {len(pool)} jobs scored by '{method}'; {note}"
    count = predict_files(say, pool, output, attributes)
    note = f"; adaptive scoring is for '{ADAPTIVE}' alone, so all members were evaluated" if wants else ""
    return f"{count} candidates of {len(pool)} jobs scored by '{method}'{note}"


def add_attributes(jobs: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up what the jobs counted: stops by reason, steps and walkers."""
    stops: Counter[str] = Counter()
    for job in jobs:
        stops.update({str(reason): int(count) for reason, count in job.get("stops", {}).items()})
    out: dict[str, Any] = {"stops": dict(sorted(stops.items()))}
    for key in ("steps", "walkers"):
        out[key] = sum(int(job.get(key, 0)) for job in jobs)
    return out
