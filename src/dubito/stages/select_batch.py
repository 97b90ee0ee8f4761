"""Choose which candidates are labelled, and record why each was or was not."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dubito.config.sanity import SanityConfig
from dubito.config.selection import SelectionConfig
from dubito.core.errors import DataError
from dubito.core.files import write_json, write_text
from dubito.data.store import read_attributes, read_structures, write_structures
from dubito.data.streaming import StructuresReader, pieces
from dubito.data.structures import Array, Structures
from dubito.metrics.reduce import structure_max, worst_atom
from dubito.selection.batch import CONTROL, Batch, choose_batch
from dubito.selection.strata import pool_scores
from dubito.stages._accepted import TrustedBefore, accepted_up_to, scoring_mode
from dubito.stages._shards import plan_shards

_COUNTS = ("stops", "steps", "walkers")
# What the table of rejected candidates says of each.
_COLUMNS = ("origin/sampler",)
# Scores are made of pieces of so many structures and atoms.
_PIECE = (4096, 65536)


def run(
    *,
    candidates: Path,
    dataset: Path | None,
    selected: Path,
    manifest: Path,
    rejected: Path,
    selection: SelectionConfig,
    sanity: SanityConfig,
    method: str | None,
    structures_per_shard: int | Literal["auto"],
    remaining_labels: int | None,
    seed: int,
    iteration: int,
    places: int = 1,
    fixed_s: float = 2.0,
    ensemble: Path | None = None,
    metrics: Path | None = None,
    counts_electrons: bool = True,
    threads: int = 1,
) -> str:
    """Write ``selected.h5``, ``selection.json`` and ``rejected.csv``.

    In iteration 0 everything sane and no duplicate is selected. Later the control slice is drawn from
    the gated pool first, then the selector chooses. The manifest's threshold is the force tolerance
    where scores are in eV/Å (a structure whose largest rms force-error length is below is accepted), and null
    where they have no unit. How the batch is cut into labelling jobs stands in the manifest, and is read from there
    ever after (``places``, ``fixed_s``: see :func:`dubito.stages._shards.plan_shards`).

    Parameters
    ----------
    method : the one that drives, and ranks, this iteration; None in iteration 0, where nothing is ranked
    ensemble : the network of the iteration before, where diversity is measured with its features
    metrics : ``metrics.json`` of the iteration before, where its certificate bounds what is selected
    counts_electrons : whether the labeller needs a charge and multiplicity that exist

    Raises
    ------
    DataError
        When candidates of a later iteration lack the predictions of ``method``, or when no initial
        structure passes the gates.
    """
    labelled = Structures.empty() if dataset is None else read_structures(dataset)
    with StructuresReader(candidates) as reader:
        # A pool may be large: of its columns and predictions only what ranks and gates it is read.
        pool = reader.structures(slice(0, len(reader)), _COLUMNS)
        said = _Said(reader, method if iteration > 0 and len(pool) else None)
        scores, has_unit = (said.scores(), said.has_unit) if iteration > 0 else (None, False)
        features, known = _features(ensemble, selection, pool, labelled, threads)
        adaptive = read_attributes(candidates).get("adaptive")
        before = _trusted_before(metrics, pool, method, adaptive)
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
            features=features,
            labelled_features=known,
            accepted_up_to=before.limits,
            counts_electrons=counts_electrons,
            remaining=remaining_labels,
        )
        rows = np.array(batch.chosen, dtype=int)
        chosen, predictions = reader.take(rows), said.take(rows)
    if iteration == 0 and not batch.chosen:
        raise DataError(_nothing_left(candidates, pool, batch))
    chosen = chosen.with_columns(origin__reason=batch.reasons or np.zeros(0, "S32"))
    attributes = {key: value for key, value in read_attributes(candidates).items() if key in _COUNTS}
    write_structures(selected, chosen, predictions=predictions, attributes=attributes)
    write_text(rejected, _table(pool, batch))
    sharding = plan_shards(len(rows), structures_per_shard, labelled=labelled, places=places, fixed_s=fixed_s)
    plan = _plan(batch, pool, chosen, scores) | {
        "iteration": iteration,
        "n_shards": sharding.n_shards(len(rows)),
        "sharding": sharding.record(),
        "method": method,
        "n_candidates": len(pool),
        "threshold": selection.force_tolerance_ev_per_angstrom if has_unit else None,
        "exploring": attributes,
    }
    if scores is not None:
        if len(pool) and not len(batch.pool):
            plan["nothing_left"] = _nothing_left_of(pool, batch)
        plan |= {"window": _window(selection, before), "adaptive": adaptive}
    write_json(manifest, plan)
    return _line(plan, remaining_labels)


def _features(
    ensemble: Path | None, selection: SelectionConfig, pool: Structures, labelled: Structures, threads: int
) -> tuple[Array | None, Array | None]:
    """Return features of the pool and of labelled structures; none where fingerprints do, or there is no network."""
    if ensemble is None or selection.features == "fingerprints" or not len(pool):
        return None, None
    from dubito.stages._features import batch_features

    return batch_features(ensemble, selection.features, pool, labelled, threads=threads)


def _trusted_before(metrics: Path | None, pool: Structures, method: str | None, adaptive: Any) -> TrustedBefore:
    """Return up to which score the certificate of the iteration before accepts each."""
    if metrics is None or method is None:
        return TrustedBefore(None, None)
    return accepted_up_to(metrics, pool.text("origin/sampler"), method, scoring_mode(adaptive))


def _window(selection: SelectionConfig, before: TrustedBefore) -> dict[str, Any]:
    """Return what the manifest says of the scores that were worth a label."""
    limits = before.limits
    known = np.zeros(0) if limits is None else np.unique(limits[np.isfinite(limits)])
    return {
        "min_score": selection.min_score,
        "max_score": selection.max_score,
        "skip_top_fraction": selection.skip_top_fraction,
        # One for each stratum where they differ; null: nothing was accepted, or nobody asked.
        "accepted_up_to": [float(limit) for limit in known] or None,
        "certificate_ignored": before.ignored,
    }


def _plan(batch: Batch, pool: Structures, chosen: Structures, scores: Array | None) -> dict[str, Any]:
    """Return what the manifest says of the batch, and of the pool that its control slice stands for."""
    said: dict[str, Any] = {
        "n_selected": len(batch.chosen),
        "n_control": batch.reasons.count(CONTROL),
        "rejected": batch.counts(),
        "ids": chosen.ids,
        "reasons": batch.reasons,
        "scores": [None if scores is None else float(scores[i]) for i in batch.chosen],
    }
    if scores is not None:
        strata, ids = pool.text("origin/sampler"), pool.ids
        said["strata"] = [strata[i] for i in batch.chosen]
        said["pool_scores"] = pool_scores(scores[batch.pool], [strata[i] for i in batch.pool])
        # Drawn as control as well, and counted there: the label of the structure that they are copies of is theirs.
        said["control_copies"] = [
            {
                "of": ids[copy.of],
                "id": ids[copy.index],
                "score": float(scores[copy.index]),
                "stratum": strata[copy.index],
            }
            for copy in batch.copies
        ]
    return said


class _Said:
    """What a method says of the pool, read as it is needed; nothing without a method."""

    def __init__(self, reader: StructuresReader, method: str | None) -> None:
        self._reader, self._method = reader, method
        if method is not None and method not in reader.methods:
            raise DataError(
                f"{reader.path} lacks the predictions of '{method}' (it has: {', '.join(reader.methods) or 'none'}). "
                "Score the candidates with that method first, or set uncertainty.acquire_with to one that is there."
            )
        self._fields = [] if method is None else reader.fields(method)

    @property
    def has_unit(self) -> bool:
        """Whether scores are in eV/Å."""
        return self._method is None or "forces_uncertainty" in self._fields

    def get(self, name: str) -> Array | None:
        """Return one prediction of the whole pool, None when it is not there."""
        if self._method is None or name not in self._fields:
            return None
        return self._reader.prediction(self._method, name, slice(0, len(self._reader)))

    def scores(self) -> Array:
        """Return one score per structure, (n,)."""
        if self._method is None:
            return np.zeros(0)
        if not self.has_unit and "forces_score" not in self._fields:
            raise DataError(
                "The method that drives selection gives neither forces_uncertainty nor forces_score, so candidates "
                "can't be ranked. Choose another one in uncertainty.acquire_with."
            )
        return np.concatenate([self._score(piece) for piece in pieces(self._reader.n_atoms, *_PIECE)])

    def _score(self, piece: slice) -> Array:
        ptr = self._reader.ptr[piece.start : piece.stop + 1] - self._reader.ptr[piece.start]
        name, reduce = ("forces_uncertainty", worst_atom) if self.has_unit else ("forces_score", structure_max)
        return reduce(self._reader.prediction(str(self._method), name, piece), ptr)

    def take(self, rows: Array) -> dict[str, dict[str, Array]]:
        """Return all predictions of some structures by method."""
        return {} if self._method is None else {self._method: self._reader.take_predictions(self._method, rows)}


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
        "structure falls into more parts than max_fragments allows (raise it for several molecules), spin_parity that "
        "no state of its charge and multiplicity exists (set data.initial.charge and data.initial.multiplicity)."
    )


def _nothing_left_of(pool: Structures, batch: Batch) -> str:
    worst = ", ".join(f"{reason} {count}" for reason, count in batch.counts().items())
    return (
        f"None of the {len(pool)} candidates passed the gates ({worst}), so there is nothing to label. Duplicates mean "
        "that the sampler does not leave what is known: raise its temperature or its steps. All else is told in "
        "docs/selection.md: widen sampling.sanity, or let the sampler stop earlier."
    )


def _line(plan: dict[str, Any], remaining: int | None) -> str:
    if "nothing_left" in plan:
        return str(plan["nothing_left"])
    text = f"{plan['n_selected']} of {plan['n_candidates']} candidates selected"
    if plan["n_control"]:
        text += f", {plan['n_control']} of them control"
        if copies := len(plan.get("control_copies", [])):
            text += f" ({copies} more drawn, {'a near-copy' if copies == 1 else 'near-copies'} of these)"
    if plan["rejected"]:
        text += "; " + ", ".join(f"{count} {reason}" for reason, count in plan["rejected"].items())
    if remaining is not None:
        text += f"; {max(0, remaining - plan['n_selected'])} labels left in the budget"
    return text
