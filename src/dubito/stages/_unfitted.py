"""A method that could not be fitted and does not drive: a file that says so stands where its state would.

The workflow waits for one state of each method, so there has to be one; and who reads states has to know without other
files. A safetensors file without arrays, whose metadata holds the reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dubito.core.errors import ModelError
from dubito.core.files import write_bytes
from dubito.core.provenance import describe

FORMAT = "dubito/not-fitted"
# What to do about a method that can't be fitted.
REMEDY = "take another uncertainty.acquire_with, or take it out of uncertainty.methods"


def write_unfitted(path: Path, method: str, reason: str) -> None:
    """Write in place of a state that ``method`` could not be fitted.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    about = {"format": FORMAT, "format_version": 1, "method": method, "reason": reason, "provenance": describe()}
    write_bytes(path, save({}, metadata={"dubito": json.dumps(about)}))


def why_unfitted(path: Path) -> str | None:
    """Return why there is no fitted state in a file; None where there is one, or where only its reader can tell."""
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {}).get("dubito", "{}"))
    except (OSError, SafetensorError, ValueError):
        return None
    return str(about["reason"]) if about.get("format") == FORMAT else None


def fitted_only(methods: Sequence[str], states: Sequence[Path]) -> dict[str, Path]:
    """Return the states of the methods that were fitted, in order.

    Raises
    ------
    ModelError
        When none was.
    """
    reasons = {name: why_unfitted(path) for name, path in zip(methods, states, strict=True)}
    if all(reason is not None for reason in reasons.values()):
        raise ModelError(f"None of the uncertainty methods could be fitted. {listed(reasons)} Name others.")
    return {name: path for name, path in zip(methods, states, strict=True) if reasons[name] is None}


def listed(reasons: Mapping[str, str | None]) -> str:
    """Return why methods were not fitted, as sentences."""
    return " ".join(f"{name}: {(reason or '').rstrip('.')}." for name, reason in reasons.items())
