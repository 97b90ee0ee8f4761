"""The small files of a campaign, each read again only when it has changed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from dubito.cli.status.jobs import LABEL, TRAIN, Run
from dubito.cli.status.progress import Event, ProgressReader
from dubito.cli.status.values import mapping, number, text, whole

_ITERATION = re.compile(r"iter_(\d{3,6})")
_SHARD = re.compile(r"shard_(\d{1,9})\.json")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}")
_Stamp = tuple[int, int, int]


def campaign_name(path: Path) -> str:
    """Return the name of the campaign of a configuration.

    A file that says it is not checked any further: that costs a third of a second, and one who is in the midst of
    editing it may look all the same.

    Raises
    ------
    ConfigError
        When the file is missing or does not say the name and is not valid either.
    """
    try:
        found = mapping(mapping(_parse_yaml(path.read_text(encoding="utf-8"))).get("campaign")).get("name")
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        found = None
    if isinstance(found, str) and _NAME.fullmatch(found):
        return found
    from dubito.config import load_config

    return load_config(path).campaign.name


class CampaignFiles:
    """Reads one campaign's folder.

    Nothing here raises for a file that is missing, half written or of another version: it counts as not there. No
    structures are opened, and the cache of labels (a file for each) is never listed.
    """

    def __init__(self, name: str, base: Path = Path()) -> None:
        self.name = name
        self.folder = base / "results" / name
        self.workdir = base.resolve()
        self._progress = ProgressReader(self.folder / "progress.jsonl")
        self._kept: dict[str, tuple[_Stamp, Any]] = {}

    def events(self) -> list[Event]:
        """Return what the jobs have said so far."""
        return self._progress.events()

    def config(self) -> Mapping[str, Any]:
        """Return the configuration that the latest driver froze, all defaults in it."""
        return mapping(self._read("config.yaml", _parse_yaml))

    def snakemake(self) -> Mapping[str, Any]:
        """Return what the driver wrote of itself; empty when none is at work (or was killed before it could)."""
        found = self._json("state/driver.json")
        known = text(found.get("host")) and whole(found.get("pid")) is not None
        return found if known else {}

    def iterations(self) -> list[int]:
        """Return the numbers of the iterations that have a folder."""
        names = _names(self.folder)
        return sorted(int(match[1]) for match in map(_ITERATION.fullmatch, names) if match)

    def of_iteration(self, iteration: int, name: str) -> Mapping[str, Any]:
        """Return a JSON file of an iteration, such as ``metrics.json``."""
        return self._json(f"iter_{iteration:03d}/{name}")

    def shard_reports(self, iteration: int) -> set[str]:
        """Return the numbers, as in their names, of the shards that are labelled."""
        names = _names(self.folder / f"iter_{iteration:03d}" / "labels")
        return {match[1] for match in map(_SHARD.fullmatch, names) if match}

    def shard_report(self, iteration: int, shard: str) -> Mapping[str, Any]:
        """Return what became of the structures of one shard."""
        return self._json(f"iter_{iteration:03d}/labels/shard_{shard}.json")

    def summary(self) -> Mapping[str, Any]:
        """Return ``summary.json``."""
        return self._json("summary.json")

    def training(self, iteration: int, group: str) -> Mapping[str, Any]:
        """Return how far the training of a group was at its last sign of life."""
        return self._json(f"state/training/iter_{iteration:03d}/group_{group}/epoch.json")

    def labelling(self, iteration: int, shard: str) -> Mapping[str, Any]:
        """Return how far the labelling of a shard was at its last sign of life."""
        return self._json(f"state/labelling/iter_{iteration:03d}/shard_{shard}.json")

    def last_sign(self, run: Run) -> float | None:
        """Return when a job last wrote its log or its heartbeat, seconds since 1970; None where nothing tells."""
        signs = [self.heartbeat(run).get("time")]
        with suppress(OSError, ValueError):
            signs.append((self.workdir / text(run.value("log"))).stat().st_mtime if run.value("log") else None)
        return max((s for s in map(number, signs) if s is not None and s >= run.began), default=None)

    def heartbeat(self, run: Run) -> Mapping[str, Any]:
        """Return the heartbeat of a job that trains or labels; empty for others."""
        stage, iteration, part = run.job
        if iteration is None or not part.isdigit():
            return {}
        if stage == LABEL:
            return self.labelling(iteration, part)
        return self.training(iteration, part) if stage == TRAIN else {}

    def report(self) -> Path | None:
        """Return the report, once there is one."""
        path = self.folder / "report" / "index.html"
        return path if path.exists() else None

    def _json(self, name: str) -> Mapping[str, Any]:
        return mapping(self._read(name, json.loads))

    def _read(self, name: str, parse: Any) -> Any:
        path = self.folder / name
        try:
            about = path.stat()
            stamp = (about.st_mtime_ns, about.st_size, about.st_ino)
            if name in self._kept and self._kept[name][0] == stamp:
                return self._kept[name][1]
            value = parse(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            value = None
        else:
            self._kept[name] = (stamp, value)
        return value


def _parse_yaml(content: str) -> Any:
    return yaml.safe_load(content)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names alone: a network file system answers with one request
    except OSError:
        return []
