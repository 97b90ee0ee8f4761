"""Merge all labels so far into one dataset with fixed splits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from dubito.config.data import DataConfig
from dubito.core.errors import CampaignPaused, DataError
from dubito.core.files import read_json
from dubito.data.splits import CONTROL, TRAIN, VALID, assign_splits, drop_duplicates
from dubito.data.store import read_structures, write_structures
from dubito.data.structures import REFERENCE, Structures
from dubito.stages._way_on import RETRY


def run(
    *,
    previous: Path | None,
    manifest: Path,
    shards: list[Path],
    output: Path,
    data: DataConfig,
    seed: int,
    iteration: int,
) -> str:
    """Write ``dataset.h5``: what was labelled before, then the new labels.

    Structures whose label failed are left out and counted. The control slice of this iteration is kept
    apart from training; that of earlier ones joins training or validation now.

    Raises
    ------
    CampaignPaused
        When fewer than two structures are labelled.
    DataError
        When the shards are not those of the manifest, or when labels are not finite, were made by a model without
        leave, or are of different settings.
    """
    old = Structures.empty() if previous is None else _released(read_structures(previous))
    shard_parts = [read_structures(path) for path in shards]
    _check_complete(shard_parts, read_json(manifest)["ids"], manifest)
    new = Structures.concatenate([part[part.is_labelled] for part in shard_parts])
    failed = sum(int((~part.is_labelled).sum()) for part in shard_parts)
    if len(new):
        new.require_labels(f"the shards of iteration {iteration}")
        control = np.array(new.text("origin/reason")) == CONTROL
        new = new.with_columns(origin__split=np.where(control & (iteration > 0), CONTROL.encode(), b""))
    joined = Structures.concatenate([old, new])
    if not data.allow_model_labels:
        joined.refuse_model_labels(f"the labels up to iteration {iteration}")
    _check_settings(joined, iteration)
    joined, dropped = drop_duplicates(joined)
    if len(joined) < 2:
        raise _paused(iteration, len(joined), failed, len(new) + failed, shards)
    joined = assign_splits(joined, fraction=data.validation_fraction, seed=seed, iteration=iteration)
    write_structures(output, joined)
    return _line(joined, len(old), failed, dropped)


def _paused(iteration: int, total: int, failed: int, tried: int, shards: list[Path]) -> CampaignPaused:
    """Return the pause of a campaign with too few labels for any model."""
    reports = [read_json(path) for path in (shard.with_suffix(".json") for shard in shards) if path.is_file()]
    failures = [one for report in reports for one in report["failed"]]
    counts = Counter(str(one["reason"]) for one in failures)
    why = f" ({', '.join(f'{reason} {count}' for reason, count in counts.most_common())})" if failures else ""
    first = f"; the first: {str(failures[0]['message']).rstrip('.')}" if failures else ""
    return CampaignPaused(
        f"{failed} of the {tried} structures of iteration {iteration} could not be labelled{why}, which leaves {total} "
        f"label{'s'[: total != 1]} in all, and a model needs 2: one to train on, one for validation. The reasons are "
        f"in {shards[0].parent if shards else 'labels'}{first}. {RETRY}.",
        iteration=iteration,
        labels={"done": total, "failed": failed, "reused": sum(int(one.get("reused", 0)) for one in reports)},
    )


def _check_complete(shards: list[Structures], selected: list[str], manifest: Path) -> None:
    """Every selected structure must be in a shard, labelled or failed: a lost one would never be missed again."""
    found = sorted(name for part in shards for name in part.ids)
    if found != sorted(selected):
        raise DataError(
            f"{manifest} lists {len(selected)} selected structures, the shards hold {len(found)}, "
            f"{len(set(found) & set(selected))} of them the same. Delete the folder `labels` beside it and start "
            "again: labels already computed are kept in the cache."
        )


def _released(previous: Structures) -> Structures:
    """Give the former control slice back, so that it is assigned to training or validation."""
    split = np.array(previous.text("origin/split"))
    return previous.with_columns(origin__split=np.where(split == CONTROL, b"", split.astype("S8")))


def _check_settings(structures: Structures, iteration: int) -> None:
    """Refuse labels of different levels of theory, within each kind of label."""
    kinds = structures.text("provenance/kind")
    settings = list(zip(structures.text("provenance/settings_hash"), structures.text("provenance/method"), strict=True))
    for kind in sorted(set(kinds)):
        found = Counter(s for s, k in zip(settings, kinds, strict=True) if k == kind)
        if len({name for name, _ in found}) > 1:
            each = "; ".join(
                f"{count} by '{method or 'unknown'}' (settings {name or 'unknown'})"
                for (name, method), count in sorted(found.items(), key=lambda item: -item[1])
            )
            raise DataError(
                f"The {kind or REFERENCE} labels up to iteration {iteration} are of different settings: {each}. "
                "Another level of theory is other physics: its energies are off by electronvolts and its forces pull "
                "elsewhere, so one model can't be trained on both. Put the labelling settings back, or start a "
                "campaign of another name."
            )


def _line(dataset: Structures, n_old: int, failed: int, dropped: int) -> str:
    split = Counter(dataset.text("origin/split"))
    text = f"{len(dataset)} labels ({len(dataset) - n_old} new): {split[TRAIN]} train, {split[VALID]} valid"
    if split[CONTROL]:
        text += f", {split[CONTROL]} control"
    if failed:
        text += f"; {failed} failed labels left out"
    if dropped:
        text += f"; {dropped} duplicates left out"
    return text
