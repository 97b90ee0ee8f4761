"""Label one shard of the selected structures."""

from __future__ import annotations

from pathlib import Path

from dubito.config.labelling import LabellingConfig
from dubito.core.errors import DataError
from dubito.core.files import write_json
from dubito.data.store import read_structures, write_structures
from dubito.labelling.cache import LabelCache
from dubito.labelling.registry import make_labeller
from dubito.labelling.service import label_structures


def run(
    *,
    selected: Path,
    shard: int,
    structures_per_shard: int,
    output: Path,
    report: Path,
    cache: Path,
    labelling: LabellingConfig,
    threads: int,
) -> str:
    """Label the structures ``shard * structures_per_shard`` and following, each kept in the cache at once.

    A structure that fails is recorded in both files and stops nothing. Those a user gave (iteration 0)
    are refused as a whole before anything is spent when one of them can't be labelled at all.

    Raises
    ------
    DataError
        When the shard is beyond the end of ``selected``.
    LabelError
        When the method is unknown or a given structure does not suit it.
    StorageError
        When the disk is full; finished labels are kept.
    """
    structures = read_structures(selected)
    rows = slice(shard * structures_per_shard, (shard + 1) * structures_per_shard)
    part = structures[rows]
    if not len(part):
        raise DataError(
            f"{selected} holds {len(structures)} structures, so there is no shard {shard} of {structures_per_shard}. "
            "The selection was changed after the jobs were planned; start the campaign again."
        )
    labeller = make_labeller(labelling.labeller, threads=threads)
    given = bool(part.column("origin/iteration").max() <= 0)
    labelled, summary = label_structures(part, labeller, LabelCache(cache, labeller.settings()), refuse_all=given)
    write_structures(output, labelled, attributes={"settings": labeller.settings()})
    write_json(report, {"shard": shard, **summary})
    return _said(summary, len(part))


def _said(summary: dict[str, object], total: int) -> str:
    text = f"{summary['done']} of {total} structures labelled"
    if summary["reused"]:
        text += f", {summary['reused']} of them known already"
    failed = summary["failed"]
    if isinstance(failed, list) and failed:
        reasons = sorted({str(f["reason"]) for f in failed})
        text += f"; {len(failed)} failed ({', '.join(reasons)})"
    return text
