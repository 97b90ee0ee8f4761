"""Hard structures: how many plain DIIS loses, how many the SCF ladder recovers, and in which state.

    python benchmarks/scf_ladder.py           all of them, under ten CPU minutes; goes on where it was stopped
    python benchmarks/scf_ladder.py --short   a handful, under a minute
    python benchmarks/scf_ladder.py --fresh   forget what earlier runs found

Plain DIIS is PySCF's default with our `max_cycle`; the ladder is `dubito.labelling.scf_ladder`. What both find is
compared with the lowest energy of all: theirs, and those of second-order SCFs from other guesses (atoms, Hückel,
superposed potentials, smeared electrons), of which the best is followed down until it is stable. A converged label
more than 0.05 eV above that is of an excited state. Writes benchmarks/results/scf_ladder.json (scf_ladder_short.json)
and prints it as one line, the figure before it. Found energies are kept in results/benchmarks/scf_ladder.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _publish import publish
from _scf_structures import Hard, hard

from dubito.config.labelling import PyscfConfig
from dubito.core.files import read_json, write_json
from dubito.core.hashing import hash_file, hash_json
from dubito.core.units import HARTREE_EV
from dubito.labelling.base import LabellingFailure
from dubito.labelling.pyscf_labeller import PyscfLabeller
from dubito.labelling.scf_ladder import climb, second_order
from dubito.labelling.stability import BROKEN, settled

KEPT = Path(__file__).parents[1] / "results" / "benchmarks" / "scf_ladder"
CODE = Path(__file__).parents[1] / "src" / "dubito" / "labelling"
# Many structures matter more here than the last digit of one.
LEVEL = {"density_fit": False, "grid_level": 1}
ABOVE_EV = 0.05
GUESSES = ("atom", "huckel", "vsap")
START_CYCLES, NEWTON_CYCLES = 25, 15
Json = dict[str, Any]


def timed(run: Callable[[], Json]) -> Json:
    """Return what ``run`` finds, and what it costs."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = run()
    return {
        **found,
        "wall_s": round(time.perf_counter() - wall, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
    }


def plain(labeller: PyscfLabeller, molecule: Any) -> Json:
    """Run DIIS as PySCF does it by default."""
    scf = labeller._mean_field(molecule)
    try:
        scf.kernel()
    except BROKEN as error:
        return {"converged": False, "cycles": 0, "energy_ev": None, "broke": str(error)[:80]}
    done = bool(scf.converged)
    return {
        "converged": done,
        "cycles": int(scf.cycles),
        "energy_ev": float(scf.e_tot) * HARTREE_EV if done else None,
    }


def ladder(labeller: PyscfLabeller, molecule: Any) -> Json:
    """Climb the ladder as a label does."""
    try:
        found = climb(lambda: labeller._mean_field(molecule), labeller.config.max_cycle)
    except LabellingFailure as failure:
        return {"converged": False, "rung": failure.attempts, "energy_ev": None, "stopped": str(failure)[:300]}
    return {
        "converged": True,
        "rung": found.attempts,
        "energy_ev": float(found.scf.e_tot) * HARTREE_EV,
        "stopped": found.stopped,
    }


def starts(labeller: PyscfLabeller, molecule: Any) -> Json:
    """Converge from other guesses, and follow the lowest solution down."""
    found: dict[str, Any] = {}
    for guess in (*GUESSES, "smeared"):
        try:
            found[guess] = _from(labeller, molecule, guess)
        except BROKEN:
            found[guess] = None
    converged = {guess: scf for guess, scf in found.items() if scf is not None}
    if not converged:
        return {"converged": 0, "energies_ev": {}, "energy_ev": None}
    lowest = min(converged.values(), key=lambda scf: float(scf.e_tot))
    stable, _ = settled(lowest, lambda: labeller._mean_field(molecule), lambda scf: second_order(scf, NEWTON_CYCLES))
    return {
        "converged": len(converged),
        "energies_ev": {guess: float(scf.e_tot) * HARTREE_EV for guess, scf in converged.items()},
        "energy_ev": float(stable.e_tot) * HARTREE_EV,
    }


def _from(labeller: PyscfLabeller, molecule: Any, guess: str) -> Any:
    """Return a converged second-order SCF from a guess, or None."""
    from pyscf.scf.addons import smearing

    scf = labeller._mean_field(molecule)
    if guess == "smeared":
        warm = smearing(labeller._mean_field(molecule), sigma=0.02, method="fermi", fix_spin=bool(molecule.spin))
        warm.max_cycle = START_CYCLES
        warm.kernel()
        scf.mo_coeff, scf.mo_occ = warm.mo_coeff, scf.get_occ(warm.mo_energy, warm.mo_coeff)
    else:
        scf.init_guess, scf.max_cycle = guess, START_CYCLES
        scf.kernel()
        if scf.converged:
            return scf
    return scf if second_order(scf, NEWTON_CYCLES) else None


PARTS: dict[str, tuple[Callable[[PyscfLabeller, Any], Json], tuple[str, ...]]] = {
    "plain": (plain, ()),
    "ladder": (ladder, ("scf_ladder.py", "stability.py", "early_abort.py")),
    "starts": (starts, ()),
}
"""What is run, and the files whose change makes it run again."""


def row(one: Hard) -> Json:
    """Return what all ways find for one structure, from earlier runs where these have it."""
    import pyscf

    labeller = PyscfLabeller(PyscfConfig(**LEVEL, **one.settings), threads=1)
    molecule = labeller._molecule(one.structure)
    found: Json = {}
    for name, (run, files) in PARTS.items():
        key = hash_json([one.structure.ids[0], name, labeller.settings(), labeller.config.max_cycle,
                         pyscf.__version__, [hash_file(CODE / file) for file in files]])  # fmt: skip
        path = KEPT / f"{name}_{key}.json"
        if not path.exists():
            KEPT.mkdir(parents=True, exist_ok=True)
            write_json(path, timed(lambda run=run: run(labeller, molecule)))
        found[name] = read_json(path)
    return found


def above(found: Json, name: str) -> float | None:
    """Return how far one way ended above the lowest solution known, eV; None where it ended nowhere."""
    energies = [found[part]["energy_ev"] for part in PARTS if found[part]["energy_ev"] is not None]
    own = found[name]["energy_ev"]
    return None if own is None else round(own - min(energies), 3)


def table(structures: list[Hard]) -> list[Json]:
    """Run everything, saying how far it is."""
    rows = []
    for i, one in enumerate(structures):
        found = row(one)
        plain_above, ladder_above = above(found, "plain"), above(found, "ladder")
        rows.append(
            {
                "category": one.category,
                "name": one.name,
                "level": f"{one.settings['xc']}/{one.settings['basis']}",
                "plain": {**found["plain"], "above_lowest_ev": plain_above},
                "ladder": {**found["ladder"], "above_lowest_ev": ladder_above},
                "starts": found["starts"],
                "ladder_is_lowest": ladder_above is not None and ladder_above <= ABOVE_EV,
            }
        )
        sys.stderr.write(
            f"{i + 1}/{len(structures)} {one.name}: plain {plain_above}, ladder {ladder_above} eV above the lowest, "
            f"rung {found['ladder']['rung']} {found['ladder']['stopped'][:60]}\n"
        )
    return rows


def counts(rows: list[Json]) -> Json:
    """Return how many of some structures each way converges, and in which state."""

    def excited(name: str) -> int:
        return sum(r[name]["converged"] and r[name]["above_lowest_ev"] > ABOVE_EV for r in rows)

    lost = [r for r in rows if not r["plain"]["converged"]]
    return {
        "structures": len(rows),
        "plain_diis": sum(r["plain"]["converged"] for r in rows),
        "ladder": sum(r["ladder"]["converged"] for r in rows),
        "lost_by_plain_diis": len(lost),
        "recovered": sum(r["ladder"]["converged"] for r in lost),
        "recovered_in_the_lowest_state": sum(r["ladder_is_lowest"] for r in lost),
        "excited_labels": {"plain_diis": excited("plain"), "ladder": excited("ladder")},
    }


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a handful, under a minute")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs found")
    options = parser.parse_args()
    if options.fresh:
        shutil.rmtree(KEPT, ignore_errors=True)
    rows = table([one for one in hard() if one.in_short or not options.short])
    categories = list(dict.fromkeys(r["category"] for r in rows))
    content = {
        **counts(rows),
        "by_category": {name: counts([r for r in rows if r["category"] == name]) for name in categories},
        "rungs": dict(sorted(Counter(r["ladder"]["rung"] for r in rows if r["ladder"]["converged"]).items())),
        "excited_above_ev": ABOVE_EV,
        "level": LEVEL,
        "cpu_s": round(sum(r[part]["cpu_s"] for r in rows for part in PARTS), 1),
        "cpu_s_of_lost": {
            name: round(sum(r[name]["cpu_s"] for r in rows if not r["plain"]["converged"]), 1)
            for name in ("plain", "ladder")
        },
        "table": rows,
    }
    c = content
    sys.stdout.write(
        f"Of {c['structures']} hard structures plain DIIS converges {c['plain_diis']}, the ladder {c['ladder']}; of "
        f"the {c['lost_by_plain_diis']} that plain DIIS loses the ladder recovers {c['recovered']}, "
        f"{c['recovered_in_the_lowest_state']} of them in the lowest state known.\n"
    )
    publish("scf_ladder_short" if options.short else "scf_ladder", content)


if __name__ == "__main__":
    main()
