"""Wrong labels planted among honest ones: how many are found, and how many honest ones are refused.

    python benchmarks/insane_labels.py CAMPAIGN ...   folders of finished campaigns (results/<name>), and 3BPA
    python benchmarks/insane_labels.py --short        3BPA only, one small network

Each label of a campaign is judged as its labelling job would have judged it: beside the labels of its shard, against
the prediction of the ensemble that selected it. Then each is spoilt, one at a time, in five ways. Frames of 3BPA at
300, 600 and 1200 K are judged in shards of eight against networks trained at 300 K only: honest labels of structures
that the ensemble has reason to doubt. Everything is seeded. Writes benchmarks/results/insane_labels.json
(insane_labels_short.json) and prints it as one line.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from _doubt import DATA, fit, load_case
from _publish import publish

from dubito.config.labelling import LabelChecksConfig
from dubito.config.model import ModelConfig
from dubito.config.uncertainty import UncertaintyConfig
from dubito.data.store import read_predictions, read_structures
from dubito.data.structures import Structures
from dubito.labelling.outliers import outliers
from dubito.labelling.sane import insane
from dubito.reporting.evaluated import Evaluated, with_labels

SHARD = 8
CHECKS = LabelChecksConfig()
Json = dict[str, Any]
Array = np.ndarray[Any, Any]


def other_state(one: Structures, rng: np.random.Generator) -> Array:
    """Return forces of the right size without net force and torque that have nothing else in common with the label."""
    positions, n = one.positions, len(one.positions)
    axes = np.eye(3)
    moves = [np.tile(axis, n) for axis in axes] + [
        np.cross(axis, positions - positions.mean(0)).ravel() for axis in axes
    ]
    basis = np.linalg.svd(np.stack(moves, 1), full_matrices=False)[0]
    drawn = rng.normal(size=3 * n)
    drawn -= basis @ (basis.T @ drawn)
    return (drawn * np.linalg.norm(one.forces) / np.linalg.norm(drawn)).reshape(n, 3)


def spoilt(name: str, one: Structures, rng: np.random.Generator) -> tuple[float, Array]:
    """Return a label with one fault."""
    energy, forces = float(one.energy[0]), one.forces.copy()
    if name == "energy +1 eV":
        return energy + 1.0, forces
    if name == "another state, 16 eV up":
        return energy + 16.0, other_state(one, rng)
    if name == "force of one atom flipped":
        forces[rng.integers(len(forces))] *= -1
    elif name == "all forces flipped":
        forces *= -1
    elif name == "all forces times 1.2":
        forces *= 1.2
    return energy, forces


FAULTS = (
    "another state, 16 eV up",
    "energy +1 eV",
    "force of one atom flipped",
    "all forces flipped",
    "all forces times 1.2",
)


def with_label(structures: Structures, row: int, energy: float, forces: Array) -> Structures:
    """Return the structures with one label replaced."""
    energies, all_forces = structures.energy.copy(), structures.forces.copy()
    energies[row] = energy
    all_forces[structures.ptr[row] : structures.ptr[row + 1]] = forces
    return structures.with_columns(labels__energy=energies, labels__forces=all_forces)


def judged(shards: list[tuple[Structures, Mapping[str, Array]]], seed: int = 0) -> Json:
    """Return refusals of honest labels, and the share of each planted fault that is refused, and by what."""
    rng = np.random.default_rng(seed)
    n, refused = 0, 0
    hits: dict[str, list[tuple[bool, bool]]] = {name: [] for name in FAULTS}
    for structures, said in shards:
        n += len(structures)
        refused += len(set(outliers(structures, said, CHECKS)) | set(insane(structures, CHECKS)))
        for row in range(len(structures)):
            one = structures[row]
            for name in FAULTS:
                wrong = with_label(structures, row, *spoilt(name, one, rng))
                hits[name].append((row in insane(wrong, CHECKS), row in outliers(wrong, said, CHECKS)))
    return {
        "labels": n,
        "shards": len(shards),
        "honest_refused": refused,
        "found": {
            name: {
                "share": round(float(np.mean([a or b for a, b in found])), 3),
                "by_outlier": round(float(np.mean([b for _, b in found])), 3),
                "by_net_force_or_torque": round(float(np.mean([a for a, _ in found])), 3),
            }
            for name, found in hits.items()
        },
    }


def shards_of(folder: Path) -> Iterator[tuple[Structures, Mapping[str, Array]]]:
    """Yield the labelled shards of one iteration with what the driver said of their structures."""
    chosen = Evaluated(read_structures(folder / "selected.h5"), read_predictions(folder / "selected.h5"))
    for path in sorted((folder / "labels").glob("shard_*.h5")):
        part = with_labels(chosen, read_structures(path))
        if len(part) and part.predictions:
            yield part.structures, next(iter(part.predictions.values()))


def campaigns(folders: list[Path]) -> Json:
    """Judge the iterations of campaigns; those with an analytic potential are many and small, and counted together."""
    out: Json = {}
    rehearsals: list[tuple[Structures, Mapping[str, Array]]] = []
    seen: set[bytes] = set()
    for path in sorted(p for folder in folders for p in folder.glob("iter_*") if (p / "selected.h5").exists()):
        shards = list(shards_of(path))
        content = b"".join(part.energy.tobytes() for part, _ in shards)
        if not shards or content in seen:
            continue
        seen.add(content)
        method = read_structures(next((path / "labels").glob("shard_*.h5"))).text("provenance/method")[0]
        if method.startswith("teacher"):
            rehearsals += shards
        else:
            out[f"{path.parent.name}, iteration {int(path.name[5:])}"] = judged(shards)
    if rehearsals:
        out["rehearsals, little trained"] = judged(rehearsals)
    return out


def three_bpa(*, short: bool) -> Json:
    """Judge frames of 3BPA against networks that learnt much, and little, at 300 K."""
    sizes: dict[str, Json] = {"60 labels, 4 epochs": {"epochs": 4, "members": 2, "n_train": 60}}
    if not short:
        sizes["400 labels, 80 epochs"] = {"epochs": 80, "members": 4}
    out: Json = {}
    for name, settings in sizes.items():
        case = load_case(0, model=ModelConfig(l_max=1 if "60" in name else 2, r_max_angstrom=5.0), **settings)
        fitted, _ = fit(case, case.ensemble, "ensemble", UncertaintyConfig())
        rng, cut = np.random.default_rng(1), {}
        frames = {str(t): some[np.sort(rng.permutation(len(some))[:40])] for t, some in case.tests.items()}
        frames["all mixed"] = Structures.concatenate(list(frames.values()))
        for temperature, some in frames.items():
            order = rng.permutation(len(some))
            shards = []
            for i in range(0, len(order) - SHARD + 1, SHARD):
                part = some[order[i : i + SHARD]]
                given = fitted.predict(part)
                said = {"energy": given.energy, "forces": given.forces}
                said |= {f"{key}_uncertainty": given.uncertainty[key] for key in ("energy", "forces")}
                shards.append((part, said))
            cut[temperature] = judged(shards)
        out[name] = cut
    return out


def total(parts: list[Json]) -> Json:
    """Sum several judgements."""
    n = sum(p["labels"] for p in parts)
    found = {name: round(sum(p["labels"] * p["found"][name]["share"] for p in parts) / max(n, 1), 3) for name in FAULTS}
    return {"labels": n, "honest_refused": sum(p["honest_refused"] for p in parts), "found": found}


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaigns", nargs="*", type=Path, help="folders of finished campaigns")
    parser.add_argument("--short", action="store_true", help="one small network of 3BPA and the campaigns named")
    options = parser.parse_args()
    found = campaigns(options.campaigns)
    content: Json = {
        "factor": CHECKS.outlier_factor,
        "campaigns": found,
        "totals": {name: total([part]) for name, part in found.items()},
    }
    if DATA.is_dir():
        content["3bpa"] = three_bpa(short=options.short)
        content["totals"] |= {f"3BPA, {name}": total(list(parts.values())) for name, parts in content["3bpa"].items()}
    publish("insane_labels_short" if options.short else "insane_labels", content)


if __name__ == "__main__":
    main()
