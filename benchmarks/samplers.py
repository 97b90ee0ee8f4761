"""What each sampler finds in one pool: how many candidates, how doubtful, and how wrong the model is about them.

    python benchmarks/samplers.py                    run config/examples/samplers.yaml, ethanol in a minimal basis
    python benchmarks/samplers.py --results FOLDER   take a campaign that has run

Candidates drawn at random from each sampler are labelled besides, so that doubt stands beside the true error. Writes
benchmarks/results/samplers.json and prints it as one line.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _campaign import ROOT, run_campaign
from _publish import publish

from dubito.config import load_config
from dubito.core.random import generator
from dubito.data.store import read_attributes, read_structures
from dubito.data.structures import Structures
from dubito.labelling.base import Label
from dubito.labelling.registry import make_labeller
from dubito.labelling.service import label_one
from dubito.metrics.reduce import atom_norm, structure_max, worst_atom
from dubito.uncertainty.base import Predictor
from dubito.uncertainty.registry import load_method

EXAMPLE = ROOT / "config" / "examples" / "samplers.yaml"


def errors_of(chosen: Structures, predictor: Predictor, labeller: Any) -> list[float]:
    """Return the error of the worst atom's force, eV/Å, of those that can be labelled."""
    predicted, out = predictor.predict(chosen), list[float]()
    for i, one in enumerate(chosen):
        label = label_one(one, labeller, None).result
        if isinstance(label, Label):
            wrong = predicted.forces[chosen.ptr[i] : chosen.ptr[i + 1]] - label.forces
            out.append(float(atom_norm(wrong).max()))
    return out


def describe(found: Structures, predictor: Predictor, labeller: Any, tolerance: float, n: int) -> dict[str, Any]:
    """Return doubt and error of the candidates of one sampler, eV/Å."""
    said = predictor.predict(found)
    doubt = worst_atom(said.uncertainty["forces"], said.ptr)
    drawn = generator(0, "samplers").permutation(len(found))[:n]
    errors = errors_of(found[drawn], predictor, labeller)
    return {
        "candidates": len(found),
        "largest_force_median": round(float(np.median(structure_max(atom_norm(said.forces), said.ptr))), 3),
        "doubt_median": round(float(np.median(doubt)), 3),
        "doubt_p90": round(float(np.quantile(doubt, 0.9)), 3),
        "share_of_doubt_above_tolerance": round(float((doubt > tolerance).mean()), 3),
        "labelled": len(errors),
        "error_median": round(float(np.median(errors)), 3),
        "share_of_errors_above_tolerance": round(float((np.array(errors) > tolerance).mean()), 3),
    }


def main() -> None:
    """Run, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="results of a campaign that has run, such as results/samplers")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--labels", type=int, default=8, help="candidates of each sampler that are labelled")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        results = options.results or run_campaign(Path(name), EXAMPLE, options.cores)[0]
        config = load_config(results / "config.yaml")
        before, now = results / "iter_000", results / "iter_001"
        method = config.uncertainty.first_driver
        predictor = load_method(method, before / "ensemble.safetensors", before / f"uncertainty/{method}.safetensors")
        labeller = make_labeller(config.labelling.labeller)
        tolerance = config.selection.force_tolerance_ev_per_angstrom
        rows: dict[str, Any] = {}
        jobs = []
        for job in range(config.sampling.n_jobs):
            path = now / "pool" / f"job_{job}.h5"
            found, about = read_structures(path), read_attributes(path)
            kind = config.sampling.sampler_of_job(job).kind
            jobs.append({"kind": kind, **{key: about[key] for key in ("walkers", "steps", "stops")}})
            names = np.array(found.text("origin/sampler"))
            for sampler in dict.fromkeys(names.tolist()):
                rows[sampler] = describe(found[names == sampler], predictor, labeller, tolerance, options.labels)
    publish("samplers", {"tolerance_ev_per_angstrom": tolerance, "jobs": jobs, "samplers": rows})


if __name__ == "__main__":
    main()
