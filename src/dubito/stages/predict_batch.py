"""Ask all uncertainty methods about the selected batch, before its labels are known to the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dubito.data.prediction import Array
from dubito.data.store import read_structures
from dubito.data.structures import Structures
from dubito.stages._predicting import predict_files
from dubito.stages._together import load_together

# Structures of the trial before time is taken: the first use of a method compiles and imports.
_TRIAL = 2


def run(
    *,
    ensemble: Path,
    uncertainty: list[Path],
    methods: list[str],
    selected: Path,
    output: Path,
    threads: int,
    device: str = "cpu",
    gpus: int = 0,
) -> str:
    """Write the selected structures with the predictions of all fitted ``methods`` of the model that selected them.

    The root attribute ``cost`` says how many atoms were predicted, what the members' evaluation cost that all methods
    share (``members_cpu_s``), and what each method cost on top (``own_cpu_s``), in seconds of processor time.
    """
    together = load_together(methods, ensemble, uncertainty, threads=threads, device=device, gpus=gpus)
    structures = read_structures(selected)
    if len(structures):
        together(structures[:_TRIAL])
        together.forget()
    attributes: dict[str, Any] = {"cost": {"n_atoms": int(structures.ptr[-1])}}

    def say(part: Structures) -> Mapping[str, Mapping[str, Array]]:
        said = together(part)
        # Attributes are written when the last piece is.
        attributes["cost"] |= {"members_cpu_s": together.members_s, "own_cpu_s": together.own_s}
        return said

    count = predict_files(lambda: say, [selected], output, attributes)
    return f"{count} structures doubted by {', '.join(together.names)}"
