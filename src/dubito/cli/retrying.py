"""Take the failed labels of one iteration back, so that the next start makes them again."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dubito.core.errors import DataError, EnvironmentFault, unknown_name
from dubito.core.files import read_object
from dubito.core.locks import is_alive, recorded_process
from dubito.core.progress import record
from dubito.reporting.pause import end_pause, paused_because

CACHE = Path("results", "label_cache")

# What an iteration makes of its labels. The batch itself, and what its pool was, are as good as before.
_MADE_OF_LABELS = (
    "decision.json",
    "driver.json",
    "report.html",
    "summary.json",
    "metrics.json",
    "predictions/dataset.h5",
    "predictions/test.h5",
    "predictions/profile_*.h5",
    "uncertainty",
    "history.csv",
    "ensemble.safetensors",
    "members",
    "dataset.h5",
)


@dataclass(frozen=True)
class _Shard:
    """The result of one labelling job; ``failed`` is None where it is missing or damaged."""

    path: Path
    failed: Sequence[Mapping[str, Any]] | None
    done: int = 0


def retry(name: str, *, iteration: int | None, reasons: Sequence[str]) -> list[str]:
    """Remove the shards of an iteration that hold failures, and what was made of them; return lines about it.

    Failures that the label cache remembers are marked to be tried again. No label is touched.

    Parameters
    ----------
    iteration : None: where the campaign is paused
    reasons : failures with these reasons; none given: all

    Raises
    ------
    EnvironmentFault
        While the campaign runs.
    DataError
        When there is nothing to try again, or later iterations were built on the labels there are.
    """
    folder = Path("results", name)
    _refuse_running(name, folder)
    k = _paused_iteration(name, folder) if iteration is None else iteration
    where = folder / f"iter_{k:03d}"
    shards = _shards(where, name)
    _refuse_later(folder, k)
    _known_reasons(reasons, shards)
    chosen = [shard for shard in shards if shard.failed is None or _matching(shard.failed, reasons)]
    if not chosen:
        raise DataError(
            f"No label of iteration {k} of '{name}' failed{' for ' + ' or '.join(reasons) if reasons else ''} "
            f"({_counted(shards)}), so there is nothing to try again. See `dubito status`."
        )
    again = [failed for shard in chosen for failed in _matching(shard.failed or (), reasons)]
    reopened = _reopen(shards, [str(failed["id"]) for failed in again])
    # In this order a kill in between leaves what this command finds again.
    removed = [*_remove_page(folder), *_remove_made(where), *_remove_shards(folder, k, chosen)]
    end_pause(folder, f"The failed labels of iteration {k} are to be tried again.")
    record(
        folder / "progress.jsonl",
        event="retried",
        stage="retry",
        iteration=k,
        part="",
        labels=len(again),
        pid=os.getpid(),
        host=socket.gethostname(),
    )
    kept = sum(shard.done for shard in shards)
    lines = [f"{name}, iteration {k}: {len(again)} failed labels will be tried again ({_counts(again)})"]
    missing = sum(shard.failed is None for shard in shards)
    if missing:
        lines.append(f"  {missing} results of labelling jobs are missing or damaged and are made again")
    lines.append(f"  marked in the label cache: {reopened}")
    lines.append(f"  removed, since it is made anew: {', '.join(removed)}")
    lines.append(f"  kept: the {kept} labels of this batch (in {CACHE}), the batch, and all earlier iterations")
    return lines


def _remove_page(folder: Path) -> list[str]:
    """Remove the final report: Snakemake makes no missing decision where what it led to is there."""
    page = folder / "report" / "index.html"
    if not page.exists():
        return []
    page.unlink()
    return [str(page.relative_to(folder))]


def _refuse_running(name: str, folder: Path) -> None:
    try:
        driver = recorded_process(folder / "state" / "driver.json")
        here = driver["host"] == socket.gethostname()
        if here and not is_alive(driver):
            return
        who = f"process {driver['pid']} on {driver['host']}, since {_clock(driver['time'])}"
    except DataError:
        return
    advice = (
        f"End it first with `kill -INT {driver['pid']}`"
        if here
        else "From here it can't be seen whether it still runs; end it first there (if it has ended, delete "
        f"{folder / 'state' / 'driver.json'})"
    )
    raise EnvironmentFault(f"The campaign '{name}' is being run ({who}). {advice}, then type `dubito retry` again.")


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _paused_iteration(name: str, folder: Path) -> int:
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist: the campaign '{name}' was not started here, so no label failed.")
    batches = sorted(folder.glob("iter_*/selection.json"))
    if paused_because(folder) is not None and batches:
        return _number(batches[-1].parent)
    failures = {_number(path.parent): _counted(_shards(path.parent, name)) for path in batches}
    found = "; ".join(f"iteration {k}: {text}" for k, text in failures.items() if text != "none failed")
    raise DataError(
        f"The campaign '{name}' is not paused. To have failed labels tried again all the same, name their iteration "
        f"with --iteration ({found or 'no label of it failed so far'})."
    )


def _number(folder: Path) -> int:
    return int(folder.name.removeprefix("iter_"))


def _shards(where: Path, name: str) -> list[_Shard]:
    """Return the results of the labelling jobs that the batch of an iteration promises."""
    if not (where / "selection.json").is_file():
        raise DataError(
            f"Iteration {_number(where)} of '{name}' has no batch ({where / 'selection.json'} does not exist). Name "
            "another with --iteration; `dubito status` lists them."
        )
    count = read_object(where / "selection.json", n_shards=int)["n_shards"]
    return [_read(where / "labels" / f"shard_{shard:03d}.h5") for shard in range(count)]


def _read(path: Path) -> _Shard:
    from dubito.data.store import read_ids

    try:
        report = read_object(path.with_suffix(".json"), done=int, failed=list)
        failed, done = report["failed"], report["done"]
        are_told = all(isinstance(one, dict) and {"id", "reason"} <= set(one) for one in failed)
        if not are_told or len(read_ids(path)) != done + len(failed):
            return _Shard(path, None)
        return _Shard(path, failed, done)
    except DataError:
        return _Shard(path, None)


def _refuse_later(folder: Path, k: int) -> None:
    later = [path for path in sorted(folder.glob("iter_*")) if path.is_dir() and _number(path) > k]
    if later:
        raise DataError(
            f"Iteration {k} is not the last: {', '.join(path.name for path in later)} were explored and selected with "
            f"the model of its labels, and with more labels would be others. If you want that, type `rm -r "
            f"{' '.join(map(str, later))}` first (their labels stay in {CACHE} and cost nothing where the same "
            "structure is selected again); else leave its failures be."
        )


def _known_reasons(reasons: Iterable[str], shards: Sequence[_Shard]) -> None:
    from dubito.labelling.base import REASONS

    known = {*REASONS, *(str(failed["reason"]) for shard in shards for failed in shard.failed or ())}
    for reason in reasons:
        if reason not in known:
            raise DataError(unknown_name("reason of a failure", reason, known))


def _matching(failed: Iterable[Mapping[str, Any]], reasons: Sequence[str]) -> list[Mapping[str, Any]]:
    return [one for one in failed if not reasons or one["reason"] in reasons]


def _counts(failed: Iterable[Mapping[str, Any]]) -> str:
    counts = Counter(str(one["reason"]) for one in failed)
    return ", ".join(f"{reason} {count}" for reason, count in counts.most_common()) or "none failed"


def _counted(shards: Sequence[_Shard]) -> str:
    return _counts(one for shard in shards for one in shard.failed or ())


def _reopen(shards: Sequence[_Shard], ids: Sequence[str]) -> int:
    """Mark failures in the caches of the settings that the shards were labelled with; return how many there were."""
    from dubito.core.hashing import hash_json
    from dubito.data.store import read_attributes
    from dubito.labelling.cache import LabelCache

    settings = [read_attributes(shard.path).get("settings") for shard in shards if shard.failed is not None]
    caches = {hash_json(one): LabelCache(CACHE, one) for one in settings if isinstance(one, dict)}
    return sum(cache.reopen(name) for cache in caches.values() for name in ids)


def _remove_made(where: Path) -> list[str]:
    """Remove what an iteration made of its labels; return the names."""
    removed = []
    for pattern in _MADE_OF_LABELS:
        for path in sorted(where.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
            removed.append(str(path.relative_to(where)))
    return removed


def _remove_shards(folder: Path, k: int, shards: Sequence[_Shard]) -> list[str]:
    for shard in shards:
        for path in (
            shard.path,
            shard.path.with_suffix(".json"),
            folder / "state" / "labelling" / f"iter_{k:03d}" / f"{shard.path.stem}.json",
        ):
            path.unlink(missing_ok=True)
    return [f"labels/{shard.path.name}" for shard in shards]
