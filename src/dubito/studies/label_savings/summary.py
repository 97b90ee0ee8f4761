"""From finished cells to the result of the study; whatever is finished counts, and how much that is, is said."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.core.errors import DataError
from dubito.studies.label_savings.cells import NO_HASH, cells_in_order, data_hashes, finished_cells
from dubito.studies.label_savings.goals import goals
from dubito.studies.label_savings.savings import saving
from dubito.studies.label_savings.settings import StudySettings

Array = NDArray[Any]
Json = dict[str, Any]

RANDOM = "random"
TARGET = "force_rmse_mev_per_angstrom"
# What else is compared: by the same rule, each with its own target.
OTHERS = {
    "hard_forces": "hard_force_rmse_mev_per_angstrom",
    "energy": "energy_rmse_mev",
    "energy_without_offset": "energy_spread_mev",
    "other_test": "other_force_rmse_mev_per_angstrom",
}
_POINTS = (TARGET, *OTHERS.values())


def summarise(folder: Path, settings: StudySettings, data: Path | None = None) -> Json:
    """Return the result of what is finished: per pool the curves, per ``<pool>.<selector>`` what it saves.

    Parameters
    ----------
    data : folder of the labelled files, by default that of the settings; cells of other data do not count

    Raises
    ------
    DataError
        When no pool has a pair of campaigns of the same seed.
    """
    hashes = data_hashes(settings, folder, data or Path(settings.data_folder))
    cells, refused = finished_cells(folder, settings, hashes)
    savings: Json = {}
    pools: Json = {}
    for pool in settings.pools:
        of_random = cells.get((pool, RANDOM), {})
        if of_random:
            pools[pool] = _pool(pool, cells, settings)
        for selector in settings.all_selectors()[1:]:
            own = cells.get((pool, selector), {})
            both = sorted(set(own) & set(of_random))
            if both:
                pair = [of_random[s] for s in both], [own[s] for s in both]
                savings[f"{pool}.{selector}"] = _compare(*pair, settings)
    if not savings:
        raise DataError(_nothing(folder, sum(map(len, cells.values())), refused))
    done, of = sum(map(len, cells.values())), len(cells_in_order(settings))
    return {
        "finished_cells": done,
        "cells": of,
        "is_complete": done == of,
        "not_counted": refused,
        "stamped": sum(bool(one.get("stamped")) for group in cells.values() for one in group.values()),
        "data_not_compared": sorted({pool for pool, _ in cells} - set(hashes)),
        "cpu_s": round(sum(one["cpu_s"] for group in cells.values() for one in group.values())),
        "rule": _rule(settings),
        "settings": settings.model_dump(mode="json", exclude={"data_folder"}),
        "savings": savings,
        "goals": goals(savings, settings),
        "pools": pools,
    }


def _nothing(folder: Path, done: int, refused: dict[str, int]) -> str:
    listed = "".join(f", {n} with {reason}" for reason, n in refused.items())
    advice = "let the study run on: snakemake --cores 1 study_label_savings"
    if NO_HASH in refused:
        advice = (
            "if their data have not changed since, give them their hash: python benchmarks/label_savings.py "
            f"--folder {folder} --stamp; otherwise {advice}"
        )
    return f"{folder} holds no finished campaigns that could be compared ({done} finished{listed}): {advice}"


def _rule(settings: StudySettings) -> str:
    return (
        f"target: force RMSE of random (mean over seeds) at {100 * settings.target_share:.0f} % of the labels it adds; "
        "no control slice; the same initial sets, pools, weights at the start and steps for all selectors"
    )


def _pool(pool: str, cells: dict[tuple[str, str], dict[int, Json]], settings: StudySettings) -> Json:
    """Return what describes a pool, and the mean curves of its selectors."""
    first = next(iter(cells[pool, RANDOM].values()))
    curves = {}
    for selector in settings.all_selectors():
        own = cells.get((pool, selector), {})
        if own:
            curves[selector] = {
                "seeds": sorted(own),
                **{key: _rounded(_curves(list(own.values()), key).mean(axis=0)) for key in _points(first)},
                f"{TARGET}_by_seed": [_rounded(row) for row in _curves(list(own.values()), TARGET)],
            }
    return {
        "n_pool": first["n_pool"],
        "n_test": first["n_test"],
        "hard": first["hard"],
        "labels": _labels(first),
        "curves": curves,
    }


def _points(cell: Json) -> list[str]:
    return [key for key in _POINTS if key in cell["curve"][0]]


def _labels(cell: Json) -> list[int]:
    return [point["labels"] for point in cell["curve"]]


def _curves(cells: list[Json], key: str) -> Array:
    return np.array([[point[key] for point in cell["curve"]] for cell in cells])


def _compare(of_random: list[Json], own: list[Json], settings: StudySettings) -> Json:
    """Return what a selector saves of each error."""
    options: Any = {
        "target_share": settings.target_share,
        "level": settings.level,
        "n_resamples": settings.n_resamples,
        "seed": settings.seed,
    }
    labels = _labels(own[0])

    def of(key: str) -> Json:
        found = saving(labels, _curves(of_random, key), _curves(own, key), **options)
        return {name: _four(value) for name, value in asdict(found).items()}

    out = of(TARGET)
    out["seeds"] = [cell["seed"] for cell in own]
    last = [float(_curves(cells, TARGET)[:, -1].mean()) for cells in (of_random, own)]
    out["error_at_the_end_over_random"] = _four(last[1] / last[0])
    return out | {name: of(key) for name, key in OTHERS.items() if key in own[0]["curve"][0]}


def _rounded(values: Array) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def _four(value: Any) -> Any:
    """Round a number to four digits; NaN, which JSON has not, becomes null."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if np.isfinite(value) else None
    return value
