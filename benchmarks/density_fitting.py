"""Error of forces by density fitting, against none: five displaced ammonia molecules, PBE/def2-SVP.

    python benchmarks/density_fitting.py

Writes benchmarks/results/density_fitting.json and prints it as one line.
"""

from __future__ import annotations

import time

import numpy as np
from _publish import publish

from dubito.config.labelling import PyscfConfig
from dubito.labelling.pyscf_labeller import PyscfLabeller
from dubito.testing.structures import rattled

CHOICES = {
    "none": {"density_fit": False},
    "def2-universal-jkfit": {"auxbasis": "def2-universal-jkfit"},
    "null (PySCF's choice)": {"auxbasis": None},
}


def main() -> None:
    """Measure, write and print."""
    molecules = list(rattled(5, molecules="ammonia"))
    forces, seconds = {}, {}
    for name, options in CHOICES.items():
        labeller = PyscfLabeller(PyscfConfig(**options), threads=1)
        start = time.process_time()
        forces[name] = np.concatenate([labeller.label(one).forces for one in molecules])
        seconds[name] = round((time.process_time() - start) / len(molecules), 2)
    table = {
        name: {
            "rms_mev_per_angstrom": round(1e3 * float(np.sqrt(np.mean((f - forces["none"]) ** 2))), 2),
            "max_mev_per_angstrom": round(1e3 * float(np.abs(f - forces["none"]).max()), 2),
            "cpu_s_per_label": seconds[name],
        }
        for name, f in forces.items()
    }
    publish("density_fitting", {"table": table})


if __name__ == "__main__":
    main()
