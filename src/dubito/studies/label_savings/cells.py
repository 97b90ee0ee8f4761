"""The cells of the study as files, and the order in which they are worth computing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dubito.core.errors import DataError
from dubito.core.files import read_object, write_json
from dubito.core.logs import get_logger
from dubito.studies.label_savings.pools import AMMONIA, LabelledPool, load_pool, missing
from dubito.studies.label_savings.settings import StudySettings

if TYPE_CHECKING:
    from dubito.studies.label_savings.loop import Start

log = get_logger(__name__)


@dataclass(frozen=True)
class Cell:
    """One campaign of the study."""

    pool: str
    selector: str
    seed: int

    def path(self, folder: Path) -> Path:
        """Return its file."""
        return folder / "cells" / self.pool / self.selector / f"{self.seed}.json"


def ammonia_file(folder: Path) -> Path:
    """Return where the labelled ammonia frames lie."""
    return folder / "ammonia.h5"


def cells_in_order(settings: StudySettings, n_first: int = 2) -> list[Cell]:
    """Return all cells: random and the first selectors of every pool and seed before the other selectors.

    Within a pool one seed after the other, so that whatever is finished is paired.
    """
    names = settings.all_selectors()
    out = []
    for some in (names[: n_first + 1], names[n_first + 1 :]):
        for pool in settings.pools:
            out += [Cell(pool, name, seed) for seed in range(settings.n_seeds) for name in some]
    return out


def is_finished(cell: Cell, folder: Path, settings: StudySettings) -> bool:
    """Return whether a cell has a result of these settings."""
    return read_cell(cell, folder, settings) is not None


def read_cell(cell: Cell, folder: Path, settings: StudySettings) -> dict[str, Any] | None:
    """Return the result of a cell, None where there is none, or one of other settings."""
    path = cell.path(folder)
    if not path.exists():
        return None
    found = read_object(path, pool=str, selector=str, seed=int, key=str, curve=list)
    return found if found["key"] == settings.cell_key(cell.pool) else None


def run_cell_file(
    cell: Cell, folder: Path, settings: StudySettings, pool: LabelledPool, start: Start | None = None
) -> dict[str, Any]:
    """Compute a cell and write its file."""
    from dubito.studies.label_savings.loop import run_cell

    found = run_cell(pool, cell.selector, cell.seed, settings, start)
    write_json(cell.path(folder), found)
    return found


def run_cells(
    cells: Iterable[Cell], folder: Path, settings: StudySettings, data: Path
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Compute the cells that are not finished, in order; yield each. Pools that are not there are skipped and named.

    A study that was stopped goes on where it was: finished cells are not computed again.
    """
    from dubito.studies.label_savings.loop import make_start

    pools: dict[str, LabelledPool] = {}
    # The latest, since cells of one pool and seed follow each other.
    starts: dict[tuple[str, int], Start] = {}
    told: set[str] = set()
    for cell in cells:
        if is_finished(cell, folder, settings):
            continue
        # Asked again each time: the ammonia frames may be labelled meanwhile.
        reason = None if cell.pool in pools else _not_there(cell.pool, folder, data)
        if reason is not None:
            if cell.pool not in told:
                log.warning("%s", reason)
            told.add(cell.pool)
            continue
        if cell.pool not in pools:
            pools[cell.pool] = load_pool(cell.pool, data, ammonia_file(folder))
        if (cell.pool, cell.seed) not in starts:
            starts = {(cell.pool, cell.seed): make_start(pools[cell.pool], cell.seed, settings)}
        yield cell, run_cell_file(cell, folder, settings, pools[cell.pool], starts[cell.pool, cell.seed])


def _not_there(name: str, folder: Path, data: Path) -> str | None:
    if name == AMMONIA and not ammonia_file(folder).exists():
        return f"{name}: skipped, its labelled frames {ammonia_file(folder)} are not there yet"
    return missing(name, data)


def finished_cells(folder: Path, settings: StudySettings) -> dict[tuple[str, str], dict[int, dict[str, Any]]]:
    """Return the finished cells by pool and selector, then by seed.

    Raises
    ------
    DataError
        When two campaigns of one seed did not start from the same labels: they are not paired.
    """
    out: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    starts: dict[tuple[str, int], str] = {}
    for cell in cells_in_order(settings):
        found = read_cell(cell, folder, settings)
        if found is None:
            continue
        start = starts.setdefault((cell.pool, cell.seed), found["initial"])
        if start != found["initial"]:
            raise DataError(
                f"{cell.path(folder)} started from other labels than the other selectors of its seed, so they can't be "
                "compared. The data have changed in between: delete the cells of this pool and run the study again."
            )
        out.setdefault((cell.pool, cell.selector), {})[cell.seed] = found
    return out
