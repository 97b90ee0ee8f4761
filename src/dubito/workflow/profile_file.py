"""Which profile this Snakemake was started with, so that a fault in it can be told with the file to mend."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

UNNAMED = "in your profile"


def profile_place(variable: str | None = None) -> str:
    """Return where a person mends a setting: ``at the top of FILE`` where ``variable`` stands there, else ``in FILE``.

    Parameters
    ----------
    variable : what the setting is called among the profile's ``__variables__``; None: it has none
    """
    name = profile_name(sys.argv[1:], os.environ)
    if name is None:
        return UNNAMED
    file, variables = _read(name)
    return f"at the top of {file}" if variable is not None and variable in variables else f"in {file}"


def profile_name(arguments: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """Return the profile that a command line, or the environment, names; None where none is."""
    for key in ("--profile", "--workflow-profile"):
        for number, word in enumerate(arguments):
            if word.startswith(f"{key}="):
                return word.partition("=")[2]
            if word == key and number + 1 < len(arguments):
                return arguments[number + 1]
    return environment.get("SNAKEMAKE_PROFILE") or None


def _read(name: str) -> tuple[str, Mapping[str, object]]:
    """Return the file of a profile and its variables; only the name where it can't be read."""
    import yaml
    from snakemake.cli import get_profile_dir

    try:
        found = get_profile_dir(name)
        if found is None:
            return f"the profile {name}", {}
        file = found[1]
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return f"the profile {name}", {}
    variables = raw.get("__variables__") if isinstance(raw, dict) else None
    return str(file), variables if isinstance(variables, dict) else {}
