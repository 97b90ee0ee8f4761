"""A campaign of four files with its ledger: start.h5 -> dataset.h5 -> model.safetensors -> metrics.json."""

from __future__ import annotations

import os
import time
from pathlib import Path

from dubito.core.hashing import hash_file
from dubito.core.ledger import NAME, SHA256, append, read_ledger, state_of

NAMES = ("iter_000/start.h5", "iter_000/dataset.h5", "iter_000/model.safetensors", "iter_000/metrics.json")
FOLDER = Path("results", "small")
LEDGER = FOLDER / NAME
START, DATASET, MODEL, METRICS = (FOLDER / name for name in NAMES)
USERS_FILE = Path("molecules.xyz")


def seconds(path: Path) -> float:
    """Return the time of a file."""
    return path.stat().st_mtime


def date(path: Path, moment: float) -> None:
    """Give a file another time."""
    os.utime(path, (moment, moment))


def about(path: Path) -> dict[str, object]:
    """Describe a file as a line of the ledger does."""
    state = state_of(path)
    return {"sha256": hash_file(path, SHA256), "size": state.size, "mtime_ns": state.mtime_ns}


def make(path: Path, inputs: list[Path], content: str = "", when: float | None = None, **more: object) -> None:
    """Write a file and the line about it, as a job does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content or f"{path} made from {inputs}")
    if when is not None:
        date(path, when)
    line = {
        "stage": f"make_{path.stem}",
        "iteration": 0,
        "part": "",
        "time": time.time(),
        "inputs": {str(p): about(p) for p in inputs},
        "outputs": {str(path): about(path)},
        "host": "node7",
        "slurm_job": "4711",
        "code": "0.1.0+g123456789abc",
        "versions": {"python": "3.11", "dubito": "0.1.0"},
        "config_hash": "cafe",
        "wall_s": 1.5,
        "cpu_s": 2.5,
        "seed": 7,
    }
    append(LEDGER, {**line, **more})


def small_campaign() -> float:
    """Make the campaign in the working folder, an hour ago; return when."""
    began = time.time() - 3600
    USERS_FILE.write_text("1\n\nH 0 0 0\n")
    date(USERS_FILE, began - 100)
    make(START, [USERS_FILE], when=began)
    make(DATASET, [START], when=began + 10)
    make(MODEL, [DATASET], when=began + 20)
    make(METRICS, [MODEL, DATASET], when=began + 30)
    return began


def lines() -> int:
    """Return the number of lines of the ledger."""
    return len(read_ledger(LEDGER).entries)
