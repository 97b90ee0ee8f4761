"""Choose which candidates are labelled, and record why each was or was not."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from dubito.config.sampling import SanityConfig
from dubito.config.selection import SelectionConfig
from dubito.core.errors import DataError
from dubito.core.files import write_json, write_text
from dubito.data.store import read_attributes, read_predictions, read_structures, write_structures
from dubito.data.structures import Array, Structures
from dubito.metrics.reduce import structure_max, worst_atom
from dubito.selection.batch import CONTROL, Batch, choose_batch

_COUNTS = ("stops", "steps", "walkers")


def run(
    *,
    candidates: Path,
    dataset: Path | None,
    selected: Path,
    manifest: Path,
    rejected: Path,
    selection: SelectionConfig,
    sanity: SanityConfig,
    method: str,
    structures_per_shard: int,
    remaining_labels: int | None,
    seed: int,
    iteration: int,
) -> str:
    """Write ``selected.h5``, ``selection.json`` and ``rejected.csv``.

    In iteration 0 everything sane and no duplicate is selected. Later the control slice is drawn from
    the gated pool first, then the selector chooses. The manifest's threshold is the force tolerance
    where scores are in eV/Å (a structure whose largest rms force-error length is below is accepted), and null
    where they have no unit.

    Raises
    ------
    DataError
        When candidates of a later iteration lack the predictions of ``method``, or when no initial
        structure passes the gates.
    """
    pool = read_structures(candidates)
    labelled = Structures.empty() if dataset is None else read_structures(dataset)
    said: dict[str, Array] = {}
    if iteration > 0 and len(pool):
        said = _predictions(candidates, method)
    scores, has_unit = _scores(said, pool) if iteration > 0 else (None, False)
    batch = choose_batch(
        pool,
        labelled=labelled,
        config=selection,
        sanity=sanity,
        seed=seed,
        iteration=iteration,
        scores=scores,
        energy=said.get("energy"),
        forces=said.get("forces"),
        remaining=remaining_labels,
    )
    if iteration == 0 and not batch.chosen:
        raise DataError(_nothing_left(candidates, pool, batch))
    chosen = pool[np.array(batch.chosen, dtype=int)].with_columns(origin__reason=batch.reasons or np.zeros(0, "S32"))
    attributes = {key: value for key, value in read_attributes(candidates).items() if key in _COUNTS}
    predictions = {method: _take(said, pool, batch.chosen)} if said else {}
    write_structures(selected, chosen, predictions=predictions, attributes=attributes)
    write_text(rejected, _table(pool, batch))
    plan = _plan(batch, chosen, scores, iteration) | {
        "n_shards": -(-len(batch.chosen) // structures_per_shard),
        "n_candidates": len(pool),
        "threshold": selection.force_tolerance_ev_per_angstrom if has_unit else None,
        "exploring": attributes,
    }
    write_json(manifest, plan)
    return _line(plan, remaining_labels)


def _plan(batch: Batch, chosen: Structures, scores: Array | None, iteration: int) -> dict[str, Any]:
    """Return what the manifest says of the batch."""
    return {
        "iteration": iteration,
        "n_selected": len(batch.chosen),
        "n_control": batch.reasons.count(CONTROL),
        "rejected": batch.counts(),
        "ids": chosen.ids,
        "reasons": batch.reasons,
        "scores": [None if scores is None else float(scores[i]) for i in batch.chosen],
    }


def _predictions(candidates: Path, method: str) -> dict[str, Array]:
    found = read_predictions(candidates)
    if method not in found:
        raise DataError(
            f"{candidates} lacks the predictions of '{method}' (it has: {', '.join(sorted(found)) or 'none'}). "
            "Score the candidates with that method first, or set uncertainty.acquire_with to one that is there."
        )
    return found[method]


def _scores(said: dict[str, Array], pool: Structures) -> tuple[Array, bool]:
    """Return one score per structure, and whether it is in eV/Å."""
    if not len(pool):
        return np.zeros(0), True
    if "forces_uncertainty" in said:
        return worst_atom(said["forces_uncertainty"], pool.ptr), True
    if "forces_score" in said:
        return structure_max(said["forces_score"], pool.ptr), False
    raise DataError(
        "The method that drives selection gives neither forces_uncertainty nor forces_score, so candidates "
        "can't be ranked. Choose another one in uncertainty.acquire_with."
    )


def _take(said: dict[str, Array], pool: Structures, rows: list[int]) -> dict[str, Array]:
    """Return the predictions of some structures."""
    from dubito.core.fields import PREDICTION_FIELDS

    atoms = np.concatenate([np.arange(pool.ptr[i], pool.ptr[i + 1]) for i in rows] or [np.zeros(0, int)])
    take = {"structure": np.array(rows, dtype=int), "atom": atoms}
    return {name: values[take[PREDICTION_FIELDS[name].level]] for name, values in said.items()}


def _table(pool: Structures, batch: Batch) -> str:
    """Return the rejected candidates as CSV."""
    ids, samplers, text = pool.ids, pool.text("origin/sampler"), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "sampler", "reason", "value"])
    for entry in batch.rejected:
        value = f"{entry.value:.6g}" if math.isfinite(entry.value) else ""
        writer.writerow([ids[entry.index], samplers[entry.index], entry.reason, value])
    return text.getvalue()


def _nothing_left(candidates: Path, pool: Structures, batch: Batch) -> str:
    worst = ", ".join(f"{reason} {count}" for reason, count in batch.counts().items())
    return (
        f"None of the {len(pool)} initial structures in {candidates} can be labelled ({worst or 'there are none'}). "
        "Mend the geometries, or widen sampling.sanity: min_distance means atoms that overlap, fragments that a "
        "structure falls into more parts than max_fragments allows (raise it for several molecules)."
    )


def _line(plan: dict[str, Any], remaining: int | None) -> str:
    text = f"{plan['n_selected']} of {plan['n_candidates']} candidates selected"
    if plan["n_control"]:
        text += f", {plan['n_control']} of them control"
    if plan["rejected"]:
        text += "; " + ", ".join(f"{count} {reason}" for reason, count in plan["rejected"].items())
    if remaining is not None:
        text += f"; {max(0, remaining - plan['n_selected'])} labels left in the budget"
    return text
