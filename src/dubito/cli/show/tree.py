"""The inputs of a file, what made them, and so on back to the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dubito.cli.show.record import Book, Record

AS_IT_WAS, CHANGED, MADE_AGAIN, MISSING = "as it was", "changed since", "made again since", "missing"
UNKNOWN = "not here to compare"
_SAID = ("stage", "iteration", "part", "time", "host", "slurm_job", "code")


def follow(record: Record, depth: int) -> dict[str, Any]:
    """Return a record as plain data, with its inputs followed ``depth`` steps back.

    Each input stands there once, with the number of steps to it.
    """
    changed = None if record.is_same is None else not record.is_same
    about = {key: value for key, value in record.about.items() if key not in {"inputs", "outputs"}}
    return {
        "file": str(record.file),
        "path": record.key,
        "source": record.source,
        "sha256": record.sha256,
        "changed_since": changed,
        "made_by": about,
        "config_file": config_file(record),
        "inputs": _inputs(record.about, record.book, depth),
    }


def config_file(record: Record) -> str | None:
    """Return where the configuration that a file was made with is kept, if it is."""
    campaign = campaign_of(record)
    if record.book is None or campaign is None or not record.about.get("config_hash"):
        return None
    path = f"results/{campaign}/config/{record.about['config_hash']}.yaml"
    return path if (record.book.root / path).is_file() else None


def campaign_of(record: Record) -> str | None:
    """Return the name of the campaign a file belongs to."""
    if record.source == "file":
        return record.about.get("campaign")
    parts = record.key.split("/")
    return parts[1] if len(parts) > 2 else None


def _inputs(about: Mapping[str, Any], book: Book | None, depth: int) -> list[dict[str, Any]]:
    """Return the inputs up to ``depth`` steps back, each once, the nearest first."""
    found: list[dict[str, Any]] = []
    met: set[tuple[str, str]] = set()
    makers = [about]
    for step in range(1, depth + 1):
        inputs = [(path, was["sha256"]) for one in makers for path, was in one.get("inputs", {}).items()]
        fresh = [one for one in dict.fromkeys(inputs) if one not in met]
        met.update(fresh)
        makers = []
        for path, sha256 in fresh:
            maker = _maker(path, sha256, book)
            found.append({"step": step, "path": path, "sha256": sha256, "state": _state(path, sha256, book)})
            if maker is not None:
                found[-1]["made_by"] = {key: maker.get(key) for key in _SAID}
                found[-1]["inputs"] = sorted(maker.get("inputs", {}))
                makers.append(maker)
        if not makers:
            break
    return found


def _maker(path: str, sha256: str, book: Book | None) -> Mapping[str, Any] | None:
    """Return the line of the job that made just this content, also if the file was made again since."""
    if book is None:
        return None
    current = book.ledger.made.get(path)
    if current is not None and current.sha256.startswith(sha256):
        return current.entry
    entry: Mapping[str, Any]
    for entry in reversed(book.ledger.entries):
        if str(entry.get("outputs", {}).get(path, {}).get("sha256", " ")).startswith(sha256):
            return entry
    return None


def _state(path: str, sha256: str, book: Book | None) -> str:
    """Say whether an input is still what it was; embedded hashes are short."""
    if book is None:
        return UNKNOWN
    now = book.look(path)
    if now is None:
        return MISSING
    if now.startswith(sha256):
        return AS_IT_WAS
    maker = book.ledger.made.get(path)
    return MADE_AGAIN if maker is not None and maker.sha256 == now else CHANGED
