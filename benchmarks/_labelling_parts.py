"""Parts of benchmarks/labelling.py: threads against processes, starting guesses, SCFs that go nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from dubito.config.labelling import PyscfConfig
from dubito.data.structures import Structures
from dubito.labelling.base import LabellingFailure
from dubito.labelling.early_abort import Watch, patience_for, watched
from dubito.labelling.pyscf_labeller import PyscfLabeller

SCRIPT = Path(__file__).with_name("labelling.py")
CYCLES = 80


def worker(frames: Structures, threads: int) -> None:
    """Label the frames and print the seconds it took, without imports; runs in a process of its own."""
    labeller = PyscfLabeller(PyscfConfig(), threads=threads)
    labeller.label(frames[0])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    start = time.perf_counter()
    for one in frames:
        labeller.label(one)
    sys.stdout.write(json.dumps({"wall_s": time.perf_counter() - start}) + "\n")


def split_on_two_cores(molecules: dict[str, int]) -> dict[str, Any]:
    """Labels per hour of the same two cores: one process with two threads, two processes with one each."""
    out: dict[str, Any] = {}
    for molecule, n in molecules.items():
        one, two = (n / _seconds(molecule, n // k, threads=2 // k, processes=k) for k in (1, 2))
        out[molecule] = {
            "one_process_two_threads_per_hour": round(3600 * one),
            "two_processes_per_hour": round(3600 * two),
            "two_processes_gain": round(two / one, 2),
        }
    return out


def _seconds(molecule: str, n: int, *, threads: int, processes: int) -> float:
    """Wall seconds until all processes have labelled ``n`` frames each, started together."""
    command = [sys.executable, str(SCRIPT), "--worker", molecule, str(n), str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(processes)
    ]
    for process in running:  # all have imported and labelled one
        process.stdout.readline()
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    return max(json.loads(process.communicate()[0].splitlines()[-1])["wall_s"] for process in running)


def starting_guesses(molecules: dict[str, int]) -> dict[str, Any]:
    """SCF cycles and processor seconds from PySCF's guess, and from a neighbour's projected density matrix."""
    from labelling import ethanol
    from pyscf.scf.addons import project_dm_nr2nr

    from dubito.testing.structures import rattled

    labeller, out = PyscfLabeller(PyscfConfig(), threads=1), {}
    for molecule, n in molecules.items():
        for distance in (0.1, 0.01):
            frames = (
                rattled(n + 1, molecules="ammonia", displacement=distance)
                if molecule == "ammonia"
                else ethanol(n + 1, distance)
            )
            scfs = [labeller._mean_field(labeller._molecule(one)) for one in frames]
            scfs[0].kernel()
            cold, warm = [], []
            for i in range(1, n + 1):
                cold.append(_cost(scfs[i]))
                again = labeller._mean_field(scfs[i].mol)
                start = time.process_time()
                guess = project_dm_nr2nr(scfs[i - 1].mol, scfs[i - 1].make_rdm1(), again.mol)
                projecting = time.process_time() - start
                cycles, seconds = _cost(again, guess)
                warm.append((cycles, seconds + projecting))
            (c0, s0), (c1, s1) = np.mean(cold, axis=0), np.mean(warm, axis=0)
            out[f"{molecule}, {distance} Å"] = {
                "pairs": n,
                "cold_cycles": round(float(c0), 1),
                "warm_cycles": round(float(c1), 1),
                "cold_cpu_s": round(float(s0), 2),
                "warm_cpu_s": round(float(s1), 2),
                "saved": round(float(1 - s1 / s0), 3),
            }
    return out


def _cost(scf: Any, guess: Any = None) -> tuple[int, float]:
    start = time.process_time()
    scf.kernel(dm0=guess)
    return scf.cycles, time.process_time() - start


# --- SCFs that go nowhere -----------------------------------------------------------------------


def awkward(full: bool) -> dict[str, Structures]:
    """Return molecules: displaced, stretched, torn; oxides and dimers that plain DIIS finds hard."""
    from ase import Atoms
    from ase.build import molecule

    out, rng = {}, np.random.default_rng(0)
    for name in ("NH3", "H2O", "CH3CH2OH") if full else ("NH3", "H2O"):
        atoms = molecule(name)
        moves = {f"displaced {s} Å": atoms.positions + rng.normal(scale=s, size=(len(atoms), 3)) for s in (0.1, 0.3)}
        moves |= {f"stretched {f}": atoms.positions * f for f in (1.3, 1.6, 2.0, 2.5)}
        away = atoms.positions[-1] - atoms.positions[0]
        moves |= {"torn": np.vstack([atoms.positions[:-1], atoms.positions[-1] + 2 * away / np.linalg.norm(away)])}
        out |= {f"{name} {what}": Structures.build([atoms.numbers], [x]) for what, x in moves.items()}
    dimers = [("N2", 2.0, 1), ("N2", 2.5, 1), ("O2", 1.2, 1), ("O2", 1.2, 3), ("O2", 2.2, 1), ("C2", 1.6, 1),
              ("F2", 2.5, 1), ("LiF", 3.0, 1), ("CN", 2.2, 2)]  # fmt: skip
    oxides = [("FeO", 1.6, 1), ("FeO", 1.6, 3), ("FeO", 2.0, 1), ("FeO", 2.0, 5), ("MnO", 1.65, 2), ("MnO", 1.65, 4)]
    for name, distance, multiplicity in dimers + (oxides if full else []):
        numbers = Atoms(name).numbers
        out[f"{name} {distance} Å, multiplicity {multiplicity}"] = Structures.build(
            [numbers], [[[0, 0, 0], [0, 0, distance]]], multiplicity=multiplicity
        )
    return out


def early_abort(full: bool) -> dict[str, Any]:
    """Cycles and seconds of plain DIIS that stopping saves, and whether it ever stops an SCF that converges."""
    rows: dict[str, Any] = {}
    for xc in ("PBE", "HF") if full else ("PBE",):
        labeller = PyscfLabeller(PyscfConfig(xc=xc, basis="sto-3g"), threads=1)
        for name, one in awkward(full).items():
            rows[f"{xc} {name}"] = _both_ways(labeller, one)
    hopeless = {name: row for name, row in rows.items() if not row["converges"]}
    return {
        "basis": "sto-3g",
        "structures": len(rows),
        "converging": len(rows) - len(hopeless),
        # By how much the label of the second rung differs from that of the SCF that would have converged by chance.
        "converging_but_stopped_energy_mev": {
            name: row["difference_mev"] for name, row in rows.items() if row["converges"] and row["stopped"]
        },
        "hopeless": len(hopeless),
        "hopeless_stopped": sum(row["stopped"] for row in hopeless.values()),
        "hopeless_cycles": sum(row["cycles"] for row in hopeless.values()),
        "hopeless_cycles_with_abort": sum(row["cycles_with_abort"] for row in hopeless.values()),
        "cpu_s_of_labels": {
            key: round(sum(row[key] for row in hopeless.values()), 1) for key in ("label_cpu_s", "label_abort_cpu_s")
        },
        "lower_start_gains": {name: row["gain_ev"] for name, row in hopeless.items() if abs(row["gain_ev"]) > 1e-3},
    }


def _both_ways(labeller: PyscfLabeller, one: Structures) -> dict[str, Any]:
    """Follow plain DIIS for all its cycles, and with the watch that may stop it; then label with and without it."""
    molecule = labeller._molecule(one)
    long, short = Watch(), Watch(patience=patience_for(CYCLES))
    scf = labeller._mean_field(molecule)
    energies: list[Any] = []
    watched(scf, scf.kernel, long)
    stopping = labeller._mean_field(molecule)
    watched(stopping, stopping.kernel, short)
    row = {
        "converges": bool(scf.converged),
        "cycles": long.cycles,
        "cycles_with_abort": short.cycles,
        "stopped": bool(short.reason),
    }
    if scf.converged and not row["stopped"]:
        return row
    for key, abort in (("label_cpu_s", False), ("label_abort_cpu_s", True)):
        other = PyscfLabeller(labeller.config.model_copy(update={"early_abort": abort}), threads=1)
        start = time.process_time()
        try:
            energies.append(other.label(one).energy)
        except LabellingFailure:
            energies.append(np.nan)
        row[key] = time.process_time() - start
    if scf.converged:
        return {**row, "difference_mev": round(1e3 * (energies[1] - energies[0]), 4)}
    return {**row, "gain_ev": round(_last_cycle_energy(labeller, molecule) - energies[1], 3)}


def _last_cycle_energy(labeller: PyscfLabeller, molecule: Any) -> float:
    """Energy, eV, that second-order steps reach from the orbitals of the last cycle instead of the lowest."""
    from dubito.core.units import HARTREE_EV

    scf = labeller._mean_field(molecule)
    scf.kernel()
    newton = scf.newton()
    newton.max_cycle = CYCLES
    newton.kernel(scf.mo_coeff, scf.mo_occ)
    return float(newton.e_tot) * HARTREE_EV if newton.converged else np.nan
