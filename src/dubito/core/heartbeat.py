"""Small files that say how far a running job is: overwritten often, read by whoever watches, never waited for."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from dubito.core.logs import get_logger

log = get_logger(__name__)


def beat(path: Path, **values: Any) -> None:
    """Replace ``path`` by ``values`` and the time; a failure to do so never stops a job.

    Not synced, unlike results: after a power cut an old or empty one is as good.
    """
    # One name for all jobs, of which the stage's lock lets one be at work: what a kill leaves, the next one takes away.
    partial = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({"time": time.time(), **values}, sort_keys=True) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        log.debug("no heartbeat in %s: %s", path, error)


def last_beat(path: Path) -> dict[str, Any] | None:
    """Return what the file says, None when there is none that can be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def training_heartbeat(state: Path) -> Path:
    """Return where a training with this state folder says which epoch it has reached."""
    return state / "epoch.json"


def labelling_heartbeat(campaign: Path, iteration: int, shard: int) -> Path:
    """Return where a labelling job says what is done and which structure it has in hand."""
    return campaign / "state" / "labelling" / f"iter_{iteration:03d}" / f"shard_{shard:03d}.json"
