"""Memory and speed of scoring a large pool: does it stay within what its rule asks for?

    python benchmarks/memory.py          5,000 frames of each molecule (the same as --short), a minute
    python benchmarks/memory.py --full   100,000 frames of each

Writes benchmarks/results/memory.json (--full) or memory_short.json and prints it as one line. Each case is the
stage itself, `score_candidates` or `select_batch`, in a process of its own, with the network of the demo and
untrained weights: what they say does not matter here, what they cost does. `declared_mb` is what the rule asks for.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _publish import publish

ROOT = Path(__file__).parents[1]
MOLECULES = {"ammonia": 4, "27 atoms": 27}
PARTS = 4
MEMBERS = 4

# Run in a process of its own, so that its peak memory is that of the stage.
CHILD = """
import json, sys, time
from dubito.workflow.stage import _usage
stage, arguments = sys.argv[1], json.loads(sys.argv[2])
start = time.monotonic()
import importlib
from dubito.workflow.arguments import convert_arguments
run = importlib.import_module(f"dubito.stages.{stage}").run
loaded = time.monotonic()
line = run(**convert_arguments(run, arguments))
print(json.dumps({"line": line, "import_s": loaded - start, **_usage(start, 0)}))
"""


def declared_mb(rule: str, candidates: Path) -> int:
    """Return the memory that a rule asks for at its first attempt, MB, with these candidates."""
    from dubito.workflow.work import selecting_mb

    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        for block in re.split(r"\n(?=rule |checkpoint )", path.read_text()):
            found = re.search(rf'mem_mb=REQUESTS\.memory\("{rule}", (\w+)\)', block)
            if found:
                return selecting_mb(candidates) if found[1] == "selecting_mb" else int(found[1])
    raise LookupError(rule)


def skeleton(n_atoms: int) -> tuple[Any, Any]:
    """Return a geometry: ammonia, or a chain of CH2 groups with 27 atoms in all; numbers and Å."""
    if n_atoms == 4:
        x = np.array([[0, 0, 0.1], [0, 0.94, -0.27], [0.81, -0.47, -0.27], [-0.81, -0.47, -0.27]])
        return np.array([7, 1, 1, 1]), x
    carbons = [[1.27 * i, 0.44 * (-1) ** i, 0.0] for i in range(9)]
    hydrogens = [[x, y + 0.63 * np.sign(y), s * 0.89] for x, y, _ in carbons for s in (1, -1)]
    return np.array([6] * 9 + [1] * 18), np.array(carbons + hydrogens)


def make_pool(folder: Path, n_frames: int, n_atoms: int) -> list[Path]:
    """Write rattled frames as the jobs of a sampler would; return the files."""
    from dubito.data.store import write_structures
    from dubito.data.structures import Structures

    numbers, positions = skeleton(n_atoms)
    rng, files = np.random.default_rng(0), []
    for part in range(PARTS):
        n = n_frames // PARTS
        moved = positions + rng.normal(scale=0.05, size=(n, n_atoms, 3))
        found = Structures.build([numbers] * n, list(moved), origin__iteration=1, origin__sampler="langevin_300K")
        files.append(folder / f"job_{part}.h5")
        write_structures(files[-1], found, attributes={"stops": {"completed": 4}, "steps": n, "walkers": 4})
    return files


def make_model(folder: Path, sample: Any) -> tuple[Path, Path]:
    """Write an untrained ensemble of the demo's network and its fitted method."""
    from dubito.config.model import ModelConfig
    from dubito.data.statistics import fit_statistics
    from dubito.model.artifact import save_potential
    from dubito.model.potential import Potential
    from dubito.uncertainty.ensemble import EnsembleUncertainty

    labels = sample.with_columns(
        labels__energy=0.0, labels__forces=np.ones((int(sample.ptr[-1]), 3)), labels__mask=True
    )
    potential = Potential(ModelConfig(), fit_statistics(labels, ModelConfig().r_max_angstrom), MEMBERS)
    potential.initialise(0, list(range(MEMBERS)))
    ensemble, method = folder / "ensemble.safetensors", folder / "method.safetensors"
    save_potential(ensemble, potential, provenance={})
    EnsembleUncertainty.uncalibrated(potential).save(method)
    return ensemble, method


def measure(stage: str, **arguments: Any) -> dict[str, Any]:
    """Run a stage in a process of its own; return what it cost."""
    plain = {key: [str(v) for v in value] if isinstance(value, list) else value for key, value in arguments.items()}
    command = [sys.executable, "-c", CHILD, stage, json.dumps(plain, default=str)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{stage} failed:\n{done.stderr}")
    out: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return out


def case(n_frames: int, n_atoms: int, threads: int) -> dict[str, Any]:
    """Score and select a pool; return peak memory, time and throughput of both."""
    from dubito.data.store import read_structures

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pool = make_pool(folder, n_frames, n_atoms)
        ensemble, method = make_model(folder, read_structures(pool[0])[:8])
        scores = folder / "scores.h5"
        scored = measure(
            "score_candidates", ensemble=ensemble, uncertainty=method, method="ensemble", pool=pool, output=scores,
            threads=threads,
        )  # fmt: skip
        selected = measure(
            "select_batch", candidates=scores, dataset=None, selected=folder / "s.h5", manifest=folder / "s.json",
            rejected=folder / "r.csv", selection={}, sanity={"max_force_ev_per_angstrom": 1e6}, method="ensemble",
            structures_per_shard=8, remaining_labels=None, seed=1, iteration=1,
        )  # fmt: skip
        size_mb = round(scores.stat().st_size / 1e6, 1)
        costs = {"score_candidates": scored, "select_batch": selected}
        asked = {rule: declared_mb(rule, scores) for rule in costs}
    return {
        "frames": n_frames,
        "atoms": n_atoms,
        "scores_file_mb": size_mb,
        **{rule: told(cost, asked[rule], n_frames) for rule, cost in costs.items()},
    }


def told(cost: dict[str, Any], declared: int, n_frames: int) -> dict[str, Any]:
    """Return the figures of one stage."""
    peak = cost["max_rss_mb"]
    return {
        "peak_rss_mb": peak,
        "declared_mb": declared,
        "within": peak <= declared,
        "wall_s": round(cost["wall_s"], 2),
        "cpu_s": round(cost["cpu_s"], 2),
        "structures_per_s": round(n_frames / cost["wall_s"], 1),
    }


def main() -> None:
    """Run, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="100,000 frames instead of 5,000")
    parser.add_argument("--short", action="store_true", help="5,000 frames, the default")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    n_frames = 100_000 if options.full else 5_000
    start = time.time()
    cases = {name: case(n_frames, n_atoms, options.threads) for name, n_atoms in MOLECULES.items()}
    content = {"members": MEMBERS, "threads": options.threads, "cases": cases, "wall_s": round(time.time() - start, 1)}
    publish("memory" if options.full else "memory_short", content)


if __name__ == "__main__":
    main()
