"""What it costs to select from a large pool: the stage `select_batch` itself, each selector in a process of its own.

    python benchmarks/selection.py          100,000 frames of 27 atoms, 500 labelled; 100 selected
    python benchmarks/selection.py --short  5,000 frames

Writes benchmarks/results/selection.json (or selection_short.json) and prints it as one line. 40 % of the frames are
turned copies of others: `duplicates_selected` counts those among the batch. Scores are random, the network (for
gradient features) has untrained weights: what they say does not matter here, what they cost does.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _publish import publish
from memory import make_model, measure, skeleton

N_ATOMS = 27
N_SELECT = 100
SHARE_OF_COPIES = 0.4


def make_files(folder: Path, n_frames: int, n_labelled: int) -> tuple[Path, Path, Path, dict[str, int]]:
    """Write a scored pool, a labelled set and an ensemble; return them, and of what each id is a copy."""
    from dubito.data.store import write_structures
    from dubito.data.structures import Structures
    from dubito.testing.structures import random_orthogonal, toy_labels

    numbers, x = skeleton(N_ATOMS)
    rng = np.random.default_rng(0)
    n_copies = round(SHARE_OF_COPIES * n_frames)
    origin = np.arange(n_frames)
    origin[n_frames - n_copies :] = rng.integers(0, n_frames - n_copies, size=n_copies)
    frames = x + rng.normal(scale=0.05, size=(n_frames - n_copies, N_ATOMS, 3))
    turns = np.array([random_orthogonal(i, proper=i % 2 == 0) for i in range(200)])
    turned = np.einsum("nai,nji->naj", frames[origin[n_frames - n_copies :]], turns[np.arange(n_copies) % 200])
    positions = np.concatenate([frames, turned])
    names = [f"langevin_{300 * (1 + i % 3)}K" for i in range(n_frames)]
    pool = Structures.build([numbers] * n_frames, list(positions), origin__iteration=1, origin__sampler=names)
    scores = rng.uniform(0.1, 1.0, size=n_frames - n_copies)[origin]
    sigma = np.repeat(scores, N_ATOMS)[:, None] * np.ones(3)
    write_structures(folder / "c.h5", pool, predictions={"ensemble": {"forces_uncertainty": sigma}})
    known = x + rng.normal(scale=0.05, size=(n_labelled, N_ATOMS, 3))
    labelled = toy_labels(Structures.build([numbers] * n_labelled, list(known)))
    write_structures(folder / "d.h5", labelled)
    ensemble, _ = make_model(folder, labelled[:8])
    return folder / "c.h5", folder / "d.h5", ensemble, dict(zip(pool.ids, origin.tolist(), strict=True))


def case(files: tuple[Path, Path, Path, dict[str, int]], folder: Path, selection: dict[str, Any]) -> dict[str, Any]:
    """Select once; return what it cost and how many of the batch are copies."""
    candidates, dataset, ensemble, origin = files
    cost = measure(
        "select_batch", candidates=candidates, dataset=dataset, selected=folder / "s.h5", manifest=folder / "s.json",
        rejected=folder / "r.csv", selection=selection | {"n_select": N_SELECT}, sanity={"bond_graph": "any"},
        method="ensemble", structures_per_shard=8, remaining_labels=None, seed=1, iteration=1, ensemble=ensemble,
    )  # fmt: skip
    plan = json.loads((folder / "s.json").read_text())
    return {
        **selection,
        "cpu_s": round(cost["cpu_s"], 1),
        "peak_rss_mb": cost["max_rss_mb"],
        "selected": plan["n_selected"],
        "duplicates_selected": plan["n_selected"] - len({origin[name] for name in plan["ids"]}),
    }


def main() -> None:
    """Run, write and print."""
    from dubito.config.selection import KNOWN_SELECTORS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="5,000 frames instead of 100,000")
    options = parser.parse_args()
    n_frames = 5_000 if options.short else 100_000
    wanted: list[dict[str, Any]] = [{"selector": name} for name in KNOWN_SELECTORS]
    wanted += [{"selector": name, "features": "gradient"} for name in ("max_det", "lcmd")]
    wanted += [{"selector": "top_uncertainty", "stratify_by_sampler": True}]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make_files(folder, n_frames, 500)
        cases = [case(files, folder, selection) for selection in wanted]
    content = {"frames": n_frames, "atoms": N_ATOMS, "labelled": 500, "copies": SHARE_OF_COPIES, "cases": cases}
    publish("selection_short" if options.short else "selection", content)


if __name__ == "__main__":
    main()
