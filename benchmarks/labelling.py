"""Throughput of DFT labels: what density fitting, grids, threads, starting guesses and early aborts cost and save.

    python benchmarks/labelling.py            # under two minutes: ammonia and ethanol
    python benchmarks/labelling.py --full     # more frames, and 3BPA at the level of its data: half an hour
    python benchmarks/labelling.py --split    # only processes against threads; the rest of the result stays
    python benchmarks/labelling.py --table    # print the tables of docs/labelling.md from the last run

Writes benchmarks/results/labelling.json (short form: labelling_short.json) and prints it as one line. Costs are
processor seconds of the process, so that other work on the machine disturbs them little; only the comparison of
threads with processes is in wall time. A short run keeps what the last full one found out about 3BPA, with its date.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _labelling_parts import early_abort, split_on_two_cores, starting_guesses, worker
from _publish import publish

from dubito.config.labelling import PyscfConfig
from dubito.data.structures import Structures
from dubito.labelling.base import Label
from dubito.labelling.pyscf_labeller import PyscfLabeller
from dubito.testing.structures import rattled

RESULT = Path(__file__).parent / "results" / "labelling.json"
DATA = Path(__file__).parents[2] / "shared" / "data"
DATA_LEVEL_3BPA = {"xc": "wb97x", "basis": "6-31g*"}

REFERENCE = {"density_fit": False, "grid_level": 5, "conv_tol_hartree": 1e-11}
VARIANTS: dict[str, dict[str, Any]] = {
    "default (DF, grid 3, 1e-9)": {},
    "DF, grid 2": {"grid_level": 2},
    "DF, grid 4": {"grid_level": 4},
    "DF, grid 1, 1e-6 (draft)": {"grid_level": 1, "conv_tol_hartree": 1e-6},
    "DF by PySCF's choice of auxiliary basis": {"auxbasis": None},
    "no DF, grid 3": {"density_fit": False},
    "no DF, grid 2": {"density_fit": False, "grid_level": 2},
    "no DF, grid 4": {"density_fit": False, "grid_level": 4},
}
FEW = ("default (DF, grid 3, 1e-9)", "DF, grid 2", "DF, grid 1, 1e-6 (draft)", "no DF, grid 3")
GRIDS = (0, 1, 2, 3, 4)
TOLERANCES = (1e-5, 1e-6, 1e-7, 1e-8, 1e-9)


def ethanol(n: int, displacement: float, seed: int = 0) -> Structures:
    """Return displaced copies of ethanol."""
    from ase.build import molecule

    atoms, rng = molecule("CH3CH2OH"), np.random.default_rng(seed)
    moved = [atoms.positions + rng.normal(scale=displacement, size=atoms.positions.shape) for _ in range(n)]
    return Structures.build([atoms.numbers] * n, moved)


def three_bpa(n: int) -> Structures | str:
    """Return frames of 3BPA at 300 K, or why there are none."""
    path = DATA / "3bpa" / "train_300K.xyz.gz"
    if not path.is_file():
        return "the data set 3BPA is not at hand (shared/data/3bpa/train_300K.xyz.gz beside the repository)"
    from dubito.data.formats import read_any

    return read_any(path)[:n]


def labels_of(frames: Structures, settings: dict[str, Any]) -> tuple[list[Label], float]:
    """Return the labels, and processor seconds each."""
    labeller = PyscfLabeller(PyscfConfig(**settings), threads=1)
    start = time.process_time()
    found = [labeller.label(one) for one in frames]
    return found, (time.process_time() - start) / len(frames)


def differences(found: list[Label], reference: list[Label]) -> dict[str, float]:
    """Return errors in meV and meV/Å; the energy's also after removing the constant shift."""
    energy = np.array([a.energy - b.energy for a, b in zip(found, reference, strict=True)])
    forces = np.concatenate([(a.forces - b.forces).ravel() for a, b in zip(found, reference, strict=True)])
    return {
        "max_energy_error_mev": round(1e3 * float(np.abs(energy).max()), 3),
        "max_relative_energy_error_mev": round(1e3 * float(np.abs(energy - energy.mean()).max()), 3),
        "max_force_error_mev_per_angstrom": round(1e3 * float(np.abs(forces).max()), 3),
        "rms_force_error_mev_per_angstrom": round(1e3 * float(np.sqrt(np.mean(forces**2))), 3),
    }


def accuracy(frames: Structures, variants: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Cost of each variant, and its distance to a tight SCF without density fitting on a fine grid."""
    reference, seconds = labels_of(frames, REFERENCE)
    table: dict[str, Any] = {"reference (no DF, grid 5, 1e-11)": {"cpu_s_per_label": round(seconds, 2)}}
    for name, settings in variants.items():
        found, seconds = labels_of(frames, settings)
        table[name] = {
            "cpu_s_per_label": round(seconds, 2),
            "labels_per_core_hour": round(3600 / seconds),
            **differences(found, reference),
        }
    return table


def numerics(frames: Structures) -> dict[str, Any]:
    """Error of grid and of SCF convergence, each alone: all else equal, density fitting included."""
    fine, _ = labels_of(frames, {"grid_level": 5})
    tight, _ = labels_of(frames, {"conv_tol_hartree": 1e-12})
    grids = {f"grid {level}": differences(labels_of(frames, {"grid_level": level})[0], fine) for level in GRIDS}
    return grids | {
        f"conv {tolerance:g}": differences(labels_of(frames, {"conv_tol_hartree": tolerance})[0], tight)
        for tolerance in TOLERANCES
    }


def large_molecule(n: int) -> dict[str, Any]:
    """Cost of 3BPA at the level of its data, and what density fitting saves and changes there."""
    frames = three_bpa(n)
    if isinstance(frames, str):
        return {"skipped": frames}
    found, seconds = labels_of(frames, DATA_LEVEL_3BPA)
    exact, slow = labels_of(frames[:1], {**DATA_LEVEL_3BPA, "density_fit": False})
    return {
        "level": "wB97X/6-31G*",
        "frames": n,
        "cpu_s_per_label": round(seconds, 1),
        "labels_per_core_hour": round(3600 / seconds, 1),
        "without_density_fit": {"cpu_s_per_label": round(slow, 1), **differences(found[:1], exact)},
        "default_level": {"cpu_s_per_label": round(labels_of(frames[:1], {})[1], 1)},
        "measured": time.strftime("%Y-%m-%d"),
    }


def remembered_large_molecule() -> dict[str, Any]:
    """Return what the last full run measured, so that a short one does not lose it."""
    if RESULT.is_file():
        kept = json.loads(RESULT.read_text()).get("3bpa", {})
        if "measured" in kept:
            return dict(kept)
    return {"skipped": "only in --full"}


def measure(full: bool) -> dict[str, Any]:
    """Run everything."""
    ammonia, larger = rattled(6 if full else 2, molecules="ammonia"), ethanol(3 if full else 1, 0.05)
    labels_of(ammonia[:1], {})  # imports and tables, once
    few = VARIANTS if full else {name: VARIANTS[name] for name in FEW}
    tables = {"ammonia": said("accuracy", accuracy, ammonia, VARIANTS), "ethanol": said("", accuracy, larger, few)}
    large = said("3BPA", large_molecule, 2) if full else remembered_large_molecule()
    default = next(iter(VARIANTS))
    frames = {"ammonia": ammonia, "ethanol": larger} if full else {"ammonia": ammonia}
    rates = {name: table[default]["labels_per_core_hour"] for name, table in tables.items()}
    return {
        "short": not full,
        "level": "PBE/def2-SVP",
        "labels_per_core_hour": rates | {"3bpa": large.get("labels_per_core_hour")},
        "accuracy": tables,
        "numerics": {name: said("numerics", numerics, some) for name, some in frames.items()},
        "split_on_two_cores": said(
            "split", split_on_two_cores, {"ammonia": 16, "ethanol": 8} if full else {"ammonia": 8}
        ),
        "starting_guesses": said("guesses", starting_guesses, {"ammonia": 6, "ethanol": 4} if full else {"ammonia": 4}),
        "early_abort": said("early abort", early_abort, full),
        "3bpa": large,
    }


def said(what: str, part: Callable[..., Any], *arguments: Any) -> Any:
    """Run a part and say on stderr how long it took."""
    start, cpu = time.perf_counter(), time.process_time()
    out = part(*arguments)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    sys.stderr.write(f"{what or part.__name__}: {wall:.0f} s, of which {cpu:.0f} s here on a processor\n")
    return out


def print_tables() -> None:
    """Print the tables of docs/labelling.md."""
    out = json.loads(RESULT.read_text())
    lines = ["| molecule | settings | CPU s | labels per core-hour | energy, meV | force, meV/Å |", "|---" * 6 + "|"]
    for molecule, table in out["accuracy"].items():
        for name, row in table.items():
            rate, energy = row.get("labels_per_core_hour", ""), row.get("max_energy_error_mev", "")
            force = row.get("max_force_error_mev_per_angstrom", "")
            lines.append(f"| {molecule} | {name} | {row['cpu_s_per_label']} | {rate} | {energy} | {force} |")
    lines += ["", "| numerical settings | " + " | ".join(f"{m}, rms meV/Å" for m in out["numerics"]) + " |"]
    lines += ["|---" * (1 + len(out["numerics"])) + "|"]
    for name in next(iter(out["numerics"].values())):
        values = [str(table[name]["rms_force_error_mev_per_angstrom"]) for table in out["numerics"].values()]
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    for key in ("labels_per_core_hour", "split_on_two_cores", "starting_guesses", "early_abort", "3bpa"):
        lines += ["", f"{key}: {json.dumps(out[key])}"]
    sys.stdout.write("\n".join(lines) + "\n")


def main() -> None:
    """Measure, write and print; or print the last tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--short", action="store_true", help="ammonia and ethanol, under two minutes (the default)")
    group.add_argument("--full", action="store_true", help="more frames, and 3BPA")
    group.add_argument("--table", action="store_true", help="print the tables of the last run and measure nothing")
    group.add_argument("--split", action="store_true", help="measure only processes against threads; keep the rest")
    group.add_argument("--worker", nargs=3, metavar=("MOLECULE", "N", "THREADS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.table:
        print_tables()
    elif options.worker:
        molecule, n, threads = options.worker
        frames = rattled(int(n), molecules="ammonia") if molecule == "ammonia" else ethanol(int(n), 0.05)
        worker(frames, int(threads))
    elif options.split:
        kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        found = split_on_two_cores({"ammonia": 16, "ethanol": 8})
        publish("labelling", {**kept, "split_on_two_cores": {**found, "date": time.strftime("%Y-%m-%d")}})
    else:
        publish("labelling" if options.full else "labelling_short", measure(options.full))


if __name__ == "__main__":
    main()
