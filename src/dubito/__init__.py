"""dubito: active-learning campaigns for interatomic potentials that know when they don't know.

The public names are imported on first use, so that ``import dubito`` costs nothing
(stages that need no torch must not pay for it).
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

try:
    __version__ = version("dubito")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

if TYPE_CHECKING:
    from dubito.calculator import DubitoCalculator
    from dubito.model.artifact import load_potential

_LAZY = {
    "DubitoCalculator": "dubito.calculator",
    "load_potential": "dubito.model.artifact",
}

__all__ = ["DubitoCalculator", "__version__", "load_potential"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'dubito' has no attribute {name!r}")
