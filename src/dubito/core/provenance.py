"""What made a result: code versions, machine, configuration and input hashes."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dubito import __version__
from dubito.core.hashing import hash_file

PACKAGES = ("numpy", "scipy", "torch", "e3nn", "ase", "h5py", "pyscf", "snakemake")


def versions() -> dict[str, str]:
    """Return the versions of Python, dubito and the packages results depend on (nothing is imported)."""
    found = {"python": platform.python_version(), "dubito": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe(inputs: Mapping[str, Path] | None = None, **extra: Any) -> dict[str, Any]:
    """Describe the making of an artefact; ``inputs`` are hashed."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "host": socket.gethostname(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "command": Path(sys.argv[0]).name if sys.argv else "",
        "inputs": {name: hash_file(Path(p)) for name, p in (inputs or {}).items() if Path(p).is_file()},
        **extra,
    }
