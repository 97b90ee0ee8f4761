"""The history of a training as CSV; units are in the names of the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from dubito.core.errors import DataError
from dubito.core.files import write_text


@dataclass(frozen=True)
class Epoch:
    """One line of the history: errors of one member after one epoch (validation with averaged weights)."""

    epoch: int
    member: int
    learning_rate: float
    train_loss: float
    valid_loss: float
    train_force_rmse_ev_per_angstrom: float
    valid_force_rmse_ev_per_angstrom: float
    train_energy_rmse_ev_per_atom: float
    valid_energy_rmse_ev_per_atom: float
    wall_s: float


COLUMNS = tuple(f.name for f in fields(Epoch))


def write_history(path: Path, epochs: Iterable[Epoch]) -> None:
    """Write one line per epoch and member."""
    write_rows(path, [[f"{v:.6g}" if isinstance(v, float) else str(v) for v in astuple(e)] for e in epochs])


def write_rows(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Write lines that are text already."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    write_text(path, stream.getvalue())


def read_rows(path: Path) -> list[list[str]]:
    """Return the lines of a history without its header.

    Raises
    ------
    DataError
        When the columns are not those of a history.
    """
    lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    if not lines or tuple(lines[0]) != COLUMNS:
        raise DataError(f"{path} is not a training history: its columns are {lines[0] if lines else 'missing'}.")
    return lines[1:]
