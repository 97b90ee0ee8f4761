"""Time per atom against the number of atoms, members and threads, on periodic silicon.

    python benchmarks/scaling.py            # the short form: up to 1,000 atoms
    python benchmarks/scaling.py --full     # up to 10,648 atoms

Neighbour list and graph, geometry, and the network (energies and forces) are measured apart. Writes
benchmarks/results/scaling.json (short form: scaling_short.json). Medians of wall times.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _publish import publish

from dubito.config.model import ModelConfig
from dubito.core.random import generator
from dubito.data.graphs import build_graph
from dubito.data.statistics import Statistics
from dubito.data.structures import Structures
from dubito.model.potential import Potential

R_MAX = 4.0
LATTICE = 5.43
# Cells along each axis of the cubic cell of eight atoms; the first is a molecule-sized cluster without a cell.
CELLS = {"short": (1, 2, 3, 5), "full": (1, 2, 3, 5, 8, 11)}
MEMBERS = (1, 4, 8)
LEAST_REPEATS, SECONDS = 3, 1.5


def silicon(n: int, seed: int = 0) -> Structures:
    """Return ``8 n^3`` displaced atoms of silicon, periodic."""
    sites = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]]) / 4
    shifts = np.array([[i, j, k] for i in range(n) for j in range(n) for k in range(n)])
    positions = LATTICE * (sites[None] + shifts[:, None]).reshape(-1, 3)
    positions += generator(seed, "silicon").normal(scale=0.05, size=positions.shape)
    return Structures.build([[14] * len(positions)], [positions], cell=n * LATTICE * np.eye(3)[None], pbc=True)


def median_ms(action: Callable[[], object]) -> float:
    """Return the median wall time of an action."""
    times: list[float] = []
    action()
    while len(times) < LEAST_REPEATS or (sum(times) < 1e3 * SECONDS and len(times) < 50):
        start = time.perf_counter()
        action()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def measure(structures: Structures, members: int, threads: int, l_max: int) -> dict[str, Any]:
    """Return the parts of one evaluation."""
    torch.set_num_threads(threads)
    statistics_ = Statistics((14,), np.zeros(1), np.ones(1), 1.0, 16.0)
    potential = Potential(ModelConfig(l_max=l_max, r_max_angstrom=R_MAX), statistics_, members)
    potential.initialise(0, list(range(members)))
    graph = build_graph(structures, potential.species, R_MAX, potential.dtype)
    geometry = potential.geometry(graph)
    atoms = graph.n_atoms
    parts = {
        "neighbours_ms": median_ms(lambda: build_graph(structures, potential.species, R_MAX, potential.dtype)),
        "geometry_ms": median_ms(lambda: potential.geometry(graph)),
        "network_ms": median_ms(lambda: potential.evaluate(graph, geometry)),
    }
    return {
        "atoms": atoms,
        "pairs": len(graph.center),
        "l_max": l_max,
        "members": members,
        "threads": threads,
        **{key: round(value, 3) for key, value in parts.items()},
        "us_per_atom": round(1e3 * sum(parts.values()) / atoms, 2),
        "network_us_per_atom_and_member": round(1e3 * parts["network_ms"] / atoms / members, 2),
    }


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--full", action="store_true", help="up to 10,648 atoms")
    parser.add_argument("--short", action="store_true", help="the default")
    form = "full" if parser.parse_args().full else "short"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    lines = [measure(silicon(n), 1, 1, l_max) for n in CELLS[form] for l_max in (1, 2)]
    lines += [measure(silicon(3), members, 1, 1) for members in MEMBERS[1:]]
    lines += [measure(silicon(n), 1, cores, l_max) for n in CELLS[form][1:] for l_max in (1, 2) if cores > 1]
    content = {"r_max_angstrom": R_MAX, "channels": 32, "layers": 3, "dtype": "float32", "rows": lines}
    publish("scaling" if form == "full" else "scaling_short", content)


if __name__ == "__main__":
    main()
