"""Find candidates with the model of the previous iteration."""

from __future__ import annotations

from pathlib import Path

from dubito.config.sampling import SamplingConfig
from dubito.data.store import read_structures, write_structures
from dubito.sampling.registry import make_sampler


def run(
    *,
    ensemble: Path,
    uncertainty: Path,
    method: str,
    dataset: Path,
    output: Path,
    sampling: SamplingConfig,
    seed: int,
    iteration: int,
    job: int,
    threads: int,
    device: str = "cpu",
    gpus: int = 0,
) -> str:
    """Write the candidates of one job, with stop reasons and step counts as attributes.

    ``sampling`` holds the sampler of this job alone; jobs are numbered through all samplers of the campaign.

    Raises
    ------
    DataError
        When no labelled structure is sane enough to start from.
    """
    from dubito.uncertainty.registry import load_method

    predictor = load_method(method, ensemble, uncertainty, threads=threads, device=device, gpus=gpus)
    sampler = make_sampler(sampling)
    found = sampler.sample(predictor, read_structures(dataset), seed=seed, iteration=iteration, job=job)
    attributes = {"stops": dict(found.stops), "steps": found.steps, "walkers": found.walkers}
    write_structures(output, found.candidates, attributes=attributes)
    stops = ", ".join(f"{reason} {count}" for reason, count in found.stops.items())
    # What is one step of one walker is elsewhere one structure that is predicted.
    return f"{len(found.candidates)} candidates from {found.walkers} {found.are}, {found.steps} steps; stops: {stops}"
