"""Choose the uncertainty method that drives the next iteration, from what all methods said of the latest batches.

The challenger has to be better by a margin at the lower end of a paired interval, else all stays as it is: each switch
changes what is explored, and with a dozen structures the order of good methods is mostly chance. The interval is
widened for the number of challengers (Bonferroni), since the best of many is ahead by chance more often than one.
Batches are judged one by one and averaged: models differ between iterations, and so do the scales of scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dubito.config.uncertainty import AutoConfig
from dubito.core.files import read_json, write_json
from dubito.core.random import seed_for
from dubito.data.store import read_predictions, read_structures
from dubito.metrics.bootstrap import paired_difference
from dubito.reporting.evaluated import Evaluated, with_labels
from dubito.stages._bakeoff import Array, decision_value, judged

N_RESAMPLES = 1000


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
) -> str:
    """Write ``driver.json``: the method that drives the next iteration, the one before, and why.

    Parameters
    ----------
    dataset : holds the labels of the batches
    batches : the latest batches with what all methods said of them
    previous : ``driver.json`` of the iteration before; None: nothing has been chosen yet
    candidates : methods that may drive

    Raises
    ------
    DataError
        When a batch lacks the predictions of a candidate.
    """
    driver = auto.start_with if previous is None else str(read_json(previous)["method"])
    if driver not in candidates:
        # It was taken out of the configuration since.
        driver = auto.start_with
    labelled = read_structures(dataset)
    parts = [with_labels(Evaluated(read_structures(path), read_predictions(path)), labelled) for path in batches]
    chosen = choose(
        [part for part in parts if len(part)], driver, candidates, auto, seed_for(seed, "driver", iteration)
    )
    # The time makes each choice another file. Snakemake takes one of equal content for unchanged and lets the decision
    # that waits for it be; the loop, which waits for the decision, would end there.
    write_json(output, {"iteration": iteration, "chosen_at": datetime.now(UTC).isoformat(), **chosen})
    return str(chosen["reason"])


def choose(
    batches: Sequence[Evaluated], driver: str, candidates: Sequence[str], auto: AutoConfig, seed: int
) -> dict[str, Any]:
    """Return the method that drives next, the one that drove, the reason, and the table behind it.

    Parameters
    ----------
    batches : labelled structures, each judged by the model that had not seen them
    """
    n, challengers = sum(len(batch) for batch in batches), [name for name in candidates if name != driver]
    kept = {"method": driver, "previous": driver, "criterion": "decision_value", "n_structures": n, "table": []}
    if not batches:
        return kept | {"reason": f"{driver} drives: no new structure has been labelled and judged yet."}
    if n < auto.min_structures:
        few = f"{n} newly labelled structures are fewer than the {auto.min_structures} of uncertainty.auto"
        return kept | {"reason": f"{driver} keeps driving: {few}.min_structures."}
    level = 1 - (1 - auto.level) / max(1, len(challengers))
    table = _table(batches, driver, challengers, level, seed)
    ahead = [row for row in table if row["low"] is not None and row["low"] > auto.margin]
    chosen = max(ahead, key=lambda row: float(row["value"])) if ahead else None
    return kept | {
        "method": driver if chosen is None else chosen["method"],
        "interval_level": round(level, 6),
        "table": table,
        "reason": _kept(driver, table, n, auto) if chosen is None else _switched(driver, chosen, table, n, auto),
    }


def _table(
    batches: Sequence[Evaluated], driver: str, challengers: Sequence[str], level: float, seed: int
) -> list[dict[str, Any]]:
    """Return the decision value of all, and how far the challengers are ahead of the driver (first row)."""
    own, structure = _pooled(batches, driver)
    value = _number(_mean_value(*own)) if own else None
    table = [{"method": driver, "value": value, "difference": None, "low": None, "high": None}]
    for name in challengers:
        said, _ = _pooled(batches, name)
        row: dict[str, Any] = {"method": name, "value": None, "difference": None, "low": None, "high": None}
        if said:
            row["value"] = _number(_mean_value(*said))
        if said and own:
            found = paired_difference(
                _mean_value, said, own, structure=structure, seed=seed, level=level, n_resamples=N_RESAMPLES
            )
            row |= {"difference": _number(found.value), "low": _number(found.low), "high": _number(found.high)}
        table.append(row)
    return table


def _pooled(batches: Sequence[Evaluated], method: str) -> tuple[tuple[Array, ...], Array]:
    """Return doubt, error and number of the batch of all atoms, and their structures; nothing where any is no number.

    Raises
    ------
    DataError
        When a batch lacks the method.
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


def _switched(driver: str, row: Mapping[str, Any], table: Sequence[Mapping[str, Any]], n: int, auto: AutoConfig) -> str:
    return (
        f"{row['method']} takes over from {driver}: on the latest {n} new structures its ranking brings "
        f"{row['value']:.2f} of what a perfect one would, against {_said(table[0]['value'])}, and the lower end of the "
        f"difference, {row['low']:.2f}, is above the margin of {auto.margin:g}."
    )


def _kept(driver: str, table: Sequence[Mapping[str, Any]], n: int, auto: AutoConfig) -> str:
    known = [row for row in table[1:] if row["difference"] is not None]
    if not known:
        return f"{driver} keeps driving: no other method could be compared with it on the latest {n} new structures."
    best = max(known, key=lambda row: float(row["difference"]))
    if best["difference"] <= 0:
        return f"{driver} keeps driving: no other method ranked the errors of the latest {n} new structures better."
    return (
        f"{driver} keeps driving: {best['method']} is ahead by {best['difference']:.2f} on the latest {n} new "
        f"structures, but the lower end of the difference, {_said(best['low'])}, is not above the margin "
        f"of {auto.margin:g}."
    )


def _said(value: float | None) -> str:
    return "nothing that can be measured" if value is None else f"{value:.2f}"
