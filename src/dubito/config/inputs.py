"""The files a configuration names, and whether they are there."""

from __future__ import annotations

from pathlib import Path

from dubito.config.data import FilesStart
from dubito.config.labelling import DatasetConfig
from dubito.config.schema import Config
from dubito.core.errors import ConfigError, nearest


def input_files(config: Config) -> dict[str, list[str]]:
    """Return the files each key of the configuration names."""
    initial, labeller = config.data.initial, config.labelling.labeller
    files: dict[str, list[str]] = {}
    if isinstance(initial, FilesStart):
        files["data.initial.files"] = initial.files
    elif initial.file is not None:
        files["data.initial.file"] = [initial.file]
    if isinstance(labeller, DatasetConfig):
        files["labelling.labeller.files"] = labeller.files
    if config.labelling.reuse_from:
        files["labelling.reuse_from"] = config.labelling.reuse_from
    if config.evaluation.test_files:
        files["evaluation.test_files"] = config.evaluation.test_files
    return files


def require_inputs(config: Config) -> None:
    """Raise ConfigError when a file that the configuration names is missing or empty."""
    faults = []
    for key, files in input_files(config).items():
        for name in files:
            path = Path(name)
            if not path.is_file():
                faults.append(f"{key}: {name} {_whereabouts(path)}")
            elif path.stat().st_size == 0:
                faults.append(f"{key}: {name} is empty; put structures into it or name another file.")
    if faults:
        raise ConfigError("\n  ".join(["Files named in the configuration can't be used:", *faults]))


def _whereabouts(path: Path) -> str:
    if path.is_dir():
        return "is a folder; name the files in it."
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    guess = nearest(path.name, siblings)
    hint = f" Did you mean '{path.parent / guess}'?" if guess else ""
    return f"does not exist (looked in {Path.cwd()}).{hint}"
