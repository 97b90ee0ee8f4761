"""Finished labels by content: one small file per structure and settings, written as soon as it is known.

``<folder>/<settings hash>/<structure id>.json``; in a workflow the folder is ``results/label_cache``, shared by all
campaigns. It is no output of the workflow, which deletes the outputs of killed jobs; whoever needs a label again
finds it here, in this run, the next, or another campaign. Failures lie in ``failures/`` below: whatever two campaigns
do at the same time, on whatever file system, a failure can't take the place of a label.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dubito.core.errors import DataError
from dubito.core.files import read_json, write_json
from dubito.core.hashing import hash_json
from dubito.core.logs import get_logger
from dubito.core.provenance import made_by
from dubito.labelling.base import Label

log = get_logger(__name__)

FORMAT = "dubito/label"
FORMAT_VERSION = 1
REOPENED = ""
"""An effort that no labeller has: a failure remembered with it does not stand."""


@dataclass(frozen=True)
class Failure:
    """A structure that could not be labelled: reason code, explanation, what the attempt cost and could reach."""

    reason: str
    message: str
    attempts: int = 1
    wall_time_s: float = 0.0
    cpu_time_s: float = 0.0
    effort: str = REOPENED


class LabelCache:
    """The labels and failures known under one set of settings."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """Name the cache of ``settings`` under ``folder``; nothing is read or written yet."""
        self.settings = settings
        self.folder = Path(folder) / hash_json(settings)
        self.maker = ""
        self.makers: set[str] = set()

    def sign(self, maker: str) -> None:
        """Say who makes what is put here from now on, see :mod:`dubito.labelling.vouching`."""
        self.maker = maker
        self.makers.add(maker)

    def path(self, structure_id: str) -> Path:
        """Return where a structure's label is kept."""
        return self.folder / f"{structure_id}.json"

    def failure_path(self, structure_id: str) -> Path:
        """Return where a structure's failure is kept."""
        return self.folder / "failures" / f"{structure_id}.json"

    def get(self, structure_id: str, outdated: Callable[[Label], bool] | None = None) -> Label | Failure | None:
        """Return what is known of a structure; a damaged entry counts as unknown, with a warning.

        A label goes before a failure, unless it is ``outdated``.
        """
        known = self._read(self.path(structure_id), structure_id)
        if isinstance(known, Label) and not (outdated is not None and outdated(known)):
            return known
        # Before failures had a folder of their own they lay where labels do.
        return self._read(self.failure_path(structure_id), structure_id) or known

    def made_by(self, structure_id: str) -> dict[str, Any]:
        """Return what the entry of a label says of its making; empty where it says nothing."""
        return _signature(self.path(structure_id))

    def put(self, structure_id: str, result: Label | Failure, about: Mapping[str, Any] | None = None) -> None:
        """Keep a result; ``about`` is said of its making beside the usual.

        Raises
        ------
        StorageError
            When the file system refuses, e.g. because the disk is full.
        """
        readme = self.folder / "settings.json"
        if not readme.exists():
            write_json(readme, self.settings)
        signature = made_by() | ({"maker": self.maker} if self.maker else {}) | dict(about or {})
        failed = self.failure_path(structure_id)
        if isinstance(result, Failure):
            write_json(failed, _encode(result, structure_id, signature))
            return
        write_json(self.path(structure_id), _encode(result, structure_id, signature))
        with suppress(OSError):  # the label goes before it anyway
            failed.unlink(missing_ok=True)

    def reopen(self, structure_id: str) -> bool:
        """Mark a remembered failure so that it is tried again; return whether there was one. Labels stay."""
        known = self.get(structure_id)
        if not isinstance(known, Failure):
            return False
        path = self.failure_path(structure_id)
        signature = _signature(path if path.exists() else self.path(structure_id))
        write_json(path, _encode(replace(known, effort=REOPENED), structure_id, signature | {"reopened": time.time()}))
        return True

    def _read(self, path: Path, structure_id: str) -> Label | Failure | None:
        if not path.exists():
            return None
        try:
            return _decode(read_json(path), structure_id)
        except (DataError, KeyError, TypeError, ValueError, OSError) as error:
            log.warning("%s is damaged (%s); it is left aside and the label is made again", path, error)
            return None


def _signature(path: Path) -> dict[str, Any]:
    try:
        return dict(read_json(path)["made_by"]) if path.exists() else {}
    except (DataError, KeyError, TypeError, ValueError, OSError):
        return {}


def _encode(result: Label | Failure, structure_id: str, signature: Mapping[str, Any]) -> dict[str, Any]:
    # Python writes the shortest decimals that read back as the same float64: the round trip is exact.
    content = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in asdict(result).items()}
    entry = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "id": structure_id,
        "kind": "failure" if isinstance(result, Failure) else "label",
        "units": {"energy": "eV", "forces": "eV/Angstrom", "stress": "eV/Angstrom^3", "time": "s"},
        "content": content,
    }
    # Beside the content: who made it changes no label, and entries of before have no such word.
    return entry | {"check": hash_json(content), "made_by": dict(signature)}


def _decode(entry: Any, structure_id: str) -> Label | Failure:
    if entry["format"] != FORMAT or entry["format_version"] > FORMAT_VERSION:
        raise DataError("it is not a label, or one of a newer dubito")
    content = entry["content"]
    if entry["id"] != structure_id or entry["check"] != hash_json(content):
        raise DataError("its content does not match its checksum")
    if entry["kind"] == "failure":
        return Failure(**content)
    stress = content.pop("stress")
    return Label(
        **{**content, "forces": np.array(content["forces"], "f8").reshape(-1, 3)},
        stress=None if stress is None else np.array(stress, "f8"),
    )
