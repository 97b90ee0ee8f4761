"""What a snakemake command line is asked for."""

from __future__ import annotations

from collections.abc import Sequence

_OF_STUDIES = ("study_", "results/studies/label_savings/")


def asks_for_study(arguments: Sequence[str]) -> bool:
    """Say whether a snakemake command line (or that of one of its jobs) asks for a study rather than a campaign."""
    return any(argument.startswith(_OF_STUDIES) for argument in arguments)
