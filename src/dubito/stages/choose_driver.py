"""Choose the uncertainty method that drives the next iteration, from what all methods said of the latest batches.

The challenger has to be better by a margin at the lower end of a paired interval, else all stays as it is: each switch
changes what is explored, and with a dozen structures the order of good methods is mostly chance. The interval is
widened for the number of challengers (Bonferroni), since the best of many is ahead by chance more often than one.
Batches are judged one by one and averaged: models differ between iterations, and so do the scales of scores.

A method that could not be fitted to the latest model can't drive. One that doubts all atoms alike there does not take
over, whatever it was worth before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dubito.config.uncertainty import AutoConfig
from dubito.core.errors import ModelError
from dubito.core.files import read_json, write_json
from dubito.core.random import seed_for
from dubito.data.store import read_predictions, read_structures
from dubito.metrics.bootstrap import paired_difference
from dubito.reporting.evaluated import Evaluated, with_labels
from dubito.stages._bakeoff import Array, decision_value, judged
from dubito.stages._driver_words import kept, lost, remarks, switched
from dubito.stages._resampling import MOST_ATOMS, n_resamples, thinned
from dubito.stages._unfitted import REMEDY, listed

# Most and least: ends of an interval that is widened for many challengers need some hundreds.
N_RESAMPLES, LEAST_RESAMPLES = 1000, 300


def run(
    *,
    iteration: int,
    dataset: Path,
    batches: list[Path],
    previous: Path | None,
    output: Path,
    auto: AutoConfig,
    candidates: list[str],
    seed: int,
    fits: list[Path] | None = None,
) -> str:
    """Write ``driver.json``: the method that drives the next iteration, the one before, and why.

    Parameters
    ----------
    dataset : holds the labels of the batches
    batches : the latest batches with what all methods said of them
    previous : ``driver.json`` of the iteration before; None: nothing has been chosen yet
    candidates : methods that may drive
    fits : what ``fit_uncertainty`` wrote beside the states of the candidates for the latest model

    Raises
    ------
    ModelError
        When none of the candidates could be fitted.
    """
    driver = auto.start_with if previous is None else str(read_json(previous)["method"])
    if driver not in candidates:
        # It was taken out of the configuration since.
        driver = auto.start_with
    labelled = read_structures(dataset)
    parts = [with_labels(Evaluated(read_structures(path), read_predictions(path)), labelled) for path in batches]
    said = [read_json(path) for path in fits or []]
    chosen = choose(
        [part for part in parts if len(part)],
        driver,
        candidates,
        auto,
        seed_for(seed, "driver", iteration),
        unfitted={fit["method"]: str(fit["not_fitted"]) for fit in said if "not_fitted" in fit},
        flat=[fit["method"] for fit in said if fit.get("flat")],
    )
    # The time makes each choice another file. Snakemake takes one of equal content for unchanged and lets the decision
    # that waits for it be; the loop, which waits for the decision, would end there.
    write_json(output, {"iteration": iteration, "chosen_at": datetime.now(UTC).isoformat(), **chosen})
    return str(chosen["reason"])


def choose(
    batches: Sequence[Evaluated],
    driver: str,
    candidates: Sequence[str],
    auto: AutoConfig,
    seed: int,
    *,
    unfitted: Mapping[str, str] | None = None,
    flat: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the method that drives next, the one that drove, the reason, and the table behind it.

    Parameters
    ----------
    batches : labelled structures, each judged by the model that had not seen them
    unfitted : methods that could not be fitted to the latest model, with the reason
    flat : methods whose doubt is the same for all atoms there

    Raises
    ------
    ModelError
        When none of the candidates could be fitted.
    """
    unfitted = dict(unfitted or {})
    able = [name for name in candidates if name not in unfitted]
    if not able:
        reasons = {name: unfitted[name] for name in candidates}
        raise ModelError(f"No method that may drive could be fitted. {listed(reasons)} In short: {REMEDY}.")
    n = sum(len(batch) for batch in batches)
    challengers = [name for name in able if name != driver and name not in flat]
    level = 1 - (1 - auto.level) / max(1, len(challengers))
    others = [name for name in candidates if name != driver]
    table = _table(batches, driver, others, level, seed) if n >= auto.min_structures and batches else []
    if driver in unfitted:
        chosen = _substitute(table, able, challengers, auto)
        reason = lost(driver, unfitted[driver], chosen)
    else:
        row = _winner(table, challengers, auto)
        chosen = driver if row is None else str(row["method"])
        known = [row for row in table if row["method"] in (driver, *challengers)]
        reason = kept(driver, known, n, auto) if row is None else switched(driver, row, known, n, auto)
    return {
        "method": chosen,
        "previous": driver,
        "criterion": "decision_value",
        "n_structures": n,
        **({"interval_level": round(level, 6)} if table else {}),
        "table": table,
        "reason": reason + remarks(driver, chosen, candidates, unfitted, flat),
    }


def _winner(
    table: Sequence[Mapping[str, Any]], challengers: Sequence[str], auto: AutoConfig
) -> Mapping[str, Any] | None:
    """Return the best of the challengers that are shown to be ahead by the margin."""
    ahead = [r for r in table if r["method"] in challengers and r["low"] is not None and r["low"] > auto.margin]
    return max(ahead, key=lambda row: float(row["value"])) if ahead else None


def _substitute(
    table: Sequence[Mapping[str, Any]], able: Sequence[str], challengers: Sequence[str], auto: AutoConfig
) -> str:
    """Return who drives instead of a driver that could not be fitted: the best by value, else the one to start with."""
    values = {row["method"]: row["value"] for row in table if row["value"] is not None}
    known = [name for name in challengers if name in values]
    if known:
        return max(known, key=lambda name: float(values[name]))
    willing = challengers or able
    return auto.start_with if auto.start_with in willing else willing[0]


def _table(
    batches: Sequence[Evaluated], driver: str, challengers: Sequence[str], level: float, seed: int
) -> list[dict[str, Any]]:
    """Return the decision value of all, and how far the challengers are ahead of the driver (first row)."""
    batches = [thinned(batch, seed, MOST_ATOMS // len(batches)) for batch in batches]
    own, structure = _pooled(batches, driver)
    n_drawn = n_resamples(len(structure), N_RESAMPLES, LEAST_RESAMPLES)
    value = _number(_mean_value(*own)) if own else None
    table = [{"method": driver, "value": value, "difference": None, "low": None, "high": None}]
    for name in challengers:
        said, _ = _pooled(batches, name)
        row: dict[str, Any] = {"method": name, "value": None, "difference": None, "low": None, "high": None}
        if said:
            row["value"] = _number(_mean_value(*said))
        if said and own:
            found = paired_difference(
                _mean_value, said, own, structure=structure, seed=seed, level=level, n_resamples=n_drawn
            )
            row |= {"difference": _number(found.value), "low": _number(found.low), "high": _number(found.high)}
        table.append(row)
    return table


def _pooled(batches: Sequence[Evaluated], method: str) -> tuple[tuple[Array, ...], Array]:
    """Return doubt, error and number of the batch of all atoms, and their structures.

    Nothing where any is no number, or where the method was not fitted when one of the batches was judged.
    """
    parts = [judged(batch, method) for batch in batches]
    structure, first = [], 0
    for batch, part in zip(batches, parts, strict=True):
        if part is None or not part.is_finite:
            return (), np.zeros(0)
        structure.append(part.structure + first)
        first += len(batch)
    known = [part for part in parts if part is not None]
    number = np.repeat(np.arange(len(known)), [len(part.doubt) for part in known])
    columns = [np.concatenate([part.arrays[i] for part in known]) for i in range(3)]
    return (*columns, number), np.concatenate(structure)


def _mean_value(doubt: Array, difference: Array, sigma: Array, batch: Array) -> float:
    """Return the decision value within each batch, averaged over their atoms."""
    total, atoms = 0.0, 0
    for number in np.unique(batch):
        rows = batch == number
        total += decision_value(doubt[rows], difference[rows], sigma[rows]) * int(rows.sum())
        atoms += int(rows.sum())
    return total / atoms if atoms else float("nan")


def _number(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
