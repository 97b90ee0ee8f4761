"""What made a result: code versions, machine, job, configuration and input hashes.

A job says once what it is (:func:`set_context`), and whatever it writes after that carries it.
"""

from __future__ import annotations

import functools
import os
import platform
import socket
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dubito import __version__
from dubito.core.hashing import hash_file, hash_json

PACKAGES = ("numpy", "scipy", "torch", "e3nn", "ase", "h5py", "pyscf", "snakemake")
# The driver finds out once which code runs, and hands it to its jobs.
CODE_VARIABLE = "DUBITO_CODE_VERSION"
# An attribute of HDF5 holds 64 KB at most: of more inputs than this, the rest is one hash.
_MOST_INPUTS = 40
_SHORT = 16
_BRIEF = ("campaign", "stage", "iteration", "part")

_context: dict[str, Any] = {}


def versions() -> dict[str, str]:
    """Return the versions of Python, dubito and the packages results depend on (nothing is imported)."""
    return dict(_versions())


@functools.cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "dubito": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def set_context(**context: Any) -> None:
    """Say what this process does: ``campaign``, ``stage``, ``iteration``, ``inputs`` (hash by path) and so on.

    Replaces what was said before; without arguments nothing is known any more.
    """
    _context.clear()
    _context.update(context)


def describe(inputs: Mapping[str, Path] | None = None, **extra: Any) -> dict[str, Any]:
    """Describe the making of an artefact; ``inputs`` are hashed, unless the job has done so already."""
    known: dict[str, str] = _context.get("inputs", {})
    job = {key: value for key, value in _context.items() if key != "inputs"}
    if known:
        job["input_files"] = _abridged(known)
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "code": code_version(),
        "host": socket.gethostname(),
        "slurm_job": slurm_job(),
        "command": Path(sys.argv[0]).name if sys.argv else "",
        "inputs": {
            name: known[str(p)][:_SHORT] if str(p) in known else hash_file(Path(p))
            for name, p in (inputs or {}).items()
            if Path(p).is_file()
        },
        **job,
        **extra,
    }


def made_by() -> dict[str, Any]:
    """Return in a few words who makes something now; for files that are many and small."""
    words: dict[str, Any] = {key: _context[key] for key in _BRIEF if key in _context}
    here = {"host": socket.gethostname(), "slurm_job": slurm_job(), "code": code_version(), "time": time.time()}
    return {**words, **here}


def _abridged(hashes: Mapping[str, str]) -> dict[str, str]:
    """Return short hashes; the last of very many as one."""
    paths = sorted(hashes)
    shown = {path: hashes[path][:_SHORT] for path in paths[:_MOST_INPUTS]}
    rest = {path: hashes[path] for path in paths[_MOST_INPUTS:]}
    return shown | ({f"and {len(rest)} more": hash_json(rest)} if rest else {})


def slurm_job() -> str | None:
    """Return the number of the Slurm job this process belongs to."""
    return os.environ.get("SLURM_JOB_ID")


def code_version() -> str:
    """Return dubito's version and, run from a checkout, its commit: ``0.5.0+g1a2b3c4d5e6f``.

    A driver hands it to its jobs, with ``.changed`` at the end where files differ from the commit.
    """
    return os.environ.get(CODE_VARIABLE) or _own_code_version()


@functools.cache
def _own_code_version() -> str:
    commit = git_commit(checkout())
    return f"{__version__}+g{commit[:12]}" if commit else __version__


def checkout() -> Path:
    """Return the folder that is the checkout, if the package runs from one."""
    return Path(__file__).resolve().parents[3]


def git_commit(folder: Path) -> str | None:
    """Return the commit that is checked out in ``folder``, read from git's files; None where there is none."""
    try:
        git = folder / ".git"
        if git.is_file():  # a work tree beside its repository
            git = folder / git.read_text().removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref:"):
            return head
        name = head.removeprefix("ref:").strip()
        common = git / "commondir"
        if common.is_file():
            git = git / common.read_text().strip()
        if (git / name).is_file():
            return (git / name).read_text().strip()
        packed = (git / "packed-refs").read_text().splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)
    except (OSError, UnicodeDecodeError):
        return None
