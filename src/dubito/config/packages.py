"""Packages that single uncertainty methods need: looked for, not imported, before labels and training are paid."""

from __future__ import annotations

from importlib.util import find_spec

# By method: the modules it imports, and what they are called where they are installed from.
REQUIRED = {
    "svgp": {"gpytorch": "gpytorch", "linear_operator": "linear-operator"},
    "gmm": {"sklearn": "scikit-learn"},
    "distance": {"sklearn": "scikit-learn"},
}


def missing_packages(method: str) -> list[str]:
    """Return what is to be installed before a method can be fitted, by pip's names."""
    return [package for module, package in REQUIRED.get(method, {}).items() if not _is_there(module)]


def how_to_install(method: str) -> str | None:
    """Say what a method lacks and what to type; None if it lacks nothing."""
    missing = missing_packages(method)
    if not missing:
        return None
    return (
        f"the uncertainty method '{method}' needs {' and '.join(missing)}, which {_are(missing)} not installed here; "
        f"run `python -m pip install {' '.join(missing)}`, or take '{method}' out of uncertainty.methods"
    )


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False
