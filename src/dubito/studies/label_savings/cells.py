"""The cells of the study as files, and the order in which they are worth computing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dubito.core.errors import ConfigError, DataError
from dubito.core.files import read_object, write_json
from dubito.core.logs import get_logger
from dubito.studies.label_savings.pools import AMMONIA, LabelledPool, load_pool, missing
from dubito.studies.label_savings.settings import STUDY_VERSION, StudySettings

if TYPE_CHECKING:
    from dubito.studies.label_savings.loop import Start

log = get_logger(__name__)

NO_HASH = "no hash of their data"


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


def possible_cells(settings: StudySettings, data: Path) -> list[Cell]:
    """Return the cells whose data are here, those worth most first.

    Raises
    ------
    ConfigError
        When there is none: the study could only ever wait.
    """
    reasons = {pool: missing(pool, data) for pool in settings.pools}
    found = [cell for cell in cells_in_order(settings) if reasons[cell.pool] is None]
    if not found:
        listed = "; ".join(reason for reason in reasons.values() if reason is not None)
        raise ConfigError(
            f"No campaign of the study can run, since the data folder {data}"
            f"{'' if data.is_dir() else ', which is no folder,'} holds no pool of it ({listed}). Name the folder that "
            "does: --config data_folder=FOLDER, or data_folder in the study's settings."
        )
    return found


def is_finished(cell: Cell, folder: Path, settings: StudySettings, data_hash: str | None = None) -> bool:
    """Return whether a cell has a result of these settings, this version and, where given, these data."""
    return read_cell(cell, folder, settings, data_hash) is not None


def read_cell(cell: Cell, folder: Path, settings: StudySettings, data_hash: str | None = None) -> dict[str, Any] | None:
    """Return the result of a cell, None where there is none that counts: see :func:`why_not`."""
    found = read_any_cell(cell, folder)
    return found if found is not None and not why_not(found, cell, settings, data_hash) else None


def read_any_cell(cell: Cell, folder: Path) -> dict[str, Any] | None:
    """Return what the file of a cell holds, of whatever settings and data; None where there is no file."""
    path = cell.path(folder)
    return read_object(path, pool=str, selector=str, seed=int, key=str, curve=list) if path.exists() else None


def why_not(found: dict[str, Any], cell: Cell, settings: StudySettings, data_hash: str | None) -> str:
    """Return why a result doesn't count, empty when it does: other settings, another version, none or other data.

    Without ``data_hash`` (the data are not here) it has to name its data, and which they were is not compared.
    """
    if found["key"] != settings.cell_key(cell.pool):
        return "other settings"
    if "data" not in found:
        return NO_HASH
    if found.get("version") != STUDY_VERSION:
        return "another version of the study"
    return "other data" if data_hash is not None and found["data"] != data_hash else ""


def data_hashes(settings: StudySettings, folder: Path, data: Path) -> dict[str, str]:
    """Return the hash of the data of each pool that is here."""
    here = pools_here(settings, folder, data)
    return {pool: load_pool(pool, data, ammonia_file(folder)).data_hash for pool in here}


def pools_here(settings: StudySettings, folder: Path, data: Path) -> list[str]:
    """Return the pools that can be made now."""
    return [pool for pool in settings.pools if _not_there(pool, folder, data) is None]


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
        # Asked again each time: the ammonia frames may be labelled meanwhile.
        reason = None if cell.pool in pools else _not_there(cell.pool, folder, data)
        if reason is not None:
            if cell.pool not in told:
                log.warning("%s", reason)
            told.add(cell.pool)
            continue
        if cell.pool not in pools:
            pools[cell.pool] = load_pool(cell.pool, data, ammonia_file(folder))
        if is_finished(cell, folder, settings, pools[cell.pool].data_hash):
            continue
        if (cell.pool, cell.seed) not in starts:
            starts = {(cell.pool, cell.seed): make_start(pools[cell.pool], cell.seed, settings)}
        yield cell, run_cell_file(cell, folder, settings, pools[cell.pool], starts[cell.pool, cell.seed])


def _not_there(name: str, folder: Path, data: Path) -> str | None:
    if name == AMMONIA and not ammonia_file(folder).exists():
        return f"{name}: skipped, its labelled frames {ammonia_file(folder)} are not there yet"
    return missing(name, data)


def finished_cells(
    folder: Path, settings: StudySettings, hashes: Mapping[str, str]
) -> tuple[dict[tuple[str, str], dict[int, dict[str, Any]]], dict[str, int]]:
    """Return the finished cells by pool and selector, then by seed; and how many do not count, by reason.

    Parameters
    ----------
    hashes : of the data, see :func:`data_hashes`; cells of a pool that is not in it have to agree with each other

    Raises
    ------
    DataError
        When two campaigns of one seed did not start from the same labels, or of one pool saw other data: they are
        not paired.
    """
    out: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    refused: Counter[str] = Counter()
    starts: dict[tuple[str, int], str] = {}
    seen = dict(hashes)
    for cell in cells_in_order(settings):
        found = read_any_cell(cell, folder)
        if found is None:
            continue
        reason = why_not(found, cell, settings, hashes.get(cell.pool))
        if reason:
            refused[reason] += 1
            continue
        start = starts.setdefault((cell.pool, cell.seed), found["initial"])
        if (start, seen.setdefault(cell.pool, found["data"])) != (found["initial"], found["data"]):
            raise DataError(
                f"{cell.path(folder)} started from other labels than the other selectors of its seed, so they can't be "
                "compared. The data have changed in between: delete the cells of this pool and run the study again."
            )
        out.setdefault((cell.pool, cell.selector), {})[cell.seed] = found
    return out, dict(refused)
