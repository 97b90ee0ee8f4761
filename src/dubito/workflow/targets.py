"""What a snakemake command line is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

RULES = frozenset(f"study_label_savings{end}" for end in ("", "_summary", "_cell", "_ammonia"))
FOLDER = "results/studies/label_savings"
# Options besides the targets that name rules or files to make.
_NAMING = ("forcerun", "until", "omit_from", "prioritize")


def asks_for_study(arguments: Sequence[str]) -> bool:
    """Say whether a snakemake command line (or that of one of its jobs) asks for a study rather than a campaign.

    What counts is what Snakemake's own parser takes for targets: names of the study's rules, and files below its
    folder (``--config folder=`` where given), however they are written. A configuration, folder or report that is
    named like a study is none.
    """
    # A campaign's command line is not parsed twice: it hardly ever says this.
    if not any("stud" in argument or "folder=" in argument for argument in arguments):
        return False
    parsed = _parse(arguments)
    if parsed is None:
        return False
    given = (pair.partition("=") for pair in map(str, parsed.config or ()))
    folder = os.path.normpath({key: value for key, _, value in given}.get("folder", FOLDER))
    asked = [*_names(parsed.targets), *(name for one in _NAMING for name in _names(getattr(parsed, one, ())))]
    asked += [spec.rulename for spec in parsed.target_jobs or ()]
    return any(name in RULES or _is_below(name, folder) for name in asked)


def _parse(arguments: Sequence[str]) -> Any:
    """Return what Snakemake's parser makes of the arguments, None where it can't: Snakemake complains itself."""
    from snakemake.cli import get_argument_parser

    try:
        return get_argument_parser().parse_known_args(list(arguments))[0]
    except (SystemExit, Exception):
        return None


def _names(values: Iterable[Any] | None) -> list[str]:
    return [str(value) for value in values or ()]


def _is_below(name: str, folder: str) -> bool:
    path = os.path.relpath(name) if Path(name).is_absolute() else os.path.normpath(name)
    return path.startswith(folder + os.sep)
