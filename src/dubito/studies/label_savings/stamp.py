"""Cells made before cells named their data: after a check they are given the hash of today's data."""

from __future__ import annotations

from pathlib import Path

from dubito.core.errors import DataError
from dubito.core.files import write_json
from dubito.studies.label_savings.cells import Cell, ammonia_file, cells_in_order, pools_here, read_any_cell
from dubito.studies.label_savings.loop import draw_initial, hash_initial
from dubito.studies.label_savings.pools import LabelledPool, load_pool
from dubito.studies.label_savings.settings import STUDY_VERSION, StudySettings


def stamp_cells(folder: Path, settings: StudySettings, data: Path) -> int:
    """Write hash of the data and version into cells of these settings that have none; return how many.

    What can be checked is: the ids of the initial set, drawn anew, the ids of all picks, and the sizes of pool and
    test. Labels can't be: whoever stamps vouches that they have not changed since. ``stamped`` stays in the file.

    Raises
    ------
    DataError
        When a cell does not come from these data; no cell is changed then.
    """
    pools: dict[str, LabelledPool] = {}
    checked = []
    here = set(pools_here(settings, folder, data))
    for cell in cells_in_order(settings):
        found = read_any_cell(cell, folder) if cell.pool in here else None
        if found is None or "data" in found or found["key"] != settings.cell_key(cell.pool):
            continue
        if cell.pool not in pools:
            pools[cell.pool] = load_pool(cell.pool, data, ammonia_file(folder))
        pool = pools[cell.pool]
        same = (
            found.get("initial") == hash_initial(pool, draw_initial(pool, cell.seed, settings))
            and (found.get("n_pool"), found.get("n_test")) == (len(pool.structures), len(pool.test))
            and {name for batch in found.get("picks", []) for name in batch} <= set(pool.structures.ids)
        )
        if not same:
            raise DataError(_other(cell, folder))
        checked.append((cell, found | {"data": pool.data_hash, "version": STUDY_VERSION, "stamped": True}))
    for cell, content in checked:
        write_json(cell.path(folder), content)
    return len(checked)


def _other(cell: Cell, folder: Path) -> str:
    return (
        f"{cell.path(folder)} started from other structures than the data of today give, or selected some that they "
        "do not hold, so it can't be stamped; nothing was. Delete the cells of this pool and run the study again, or "
        "name the data they came from with --data."
    )
