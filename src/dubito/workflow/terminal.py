"""What the person who watches a campaign sees of Snakemake: its warnings and errors, not its chatter.

Jobs on this machine print their own lines. On a cluster they print into files, and Snakemake's lines
are all there is to see, so they are let through. ``snakemake --verbose`` shows everything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

_KEPT = ("Nothing to be done",)
# Each iteration refreshes the final report ahead of the job that writes it; Snakemake is surprised, nobody else.
_DROPPED = "were not present when the DAG was created"
# The job that ends a campaign with too few labels. The driver says why in one paragraph; to Snakemake it has failed.
_PAUSES = "build_dataset"


class TerminalFilter(logging.Filter):
    """Drops what Snakemake says below a warning, until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = False
        self.is_paused: Callable[[], bool] = lambda: False
        # Snakemake calls no hook of the workflow where there is nothing to do.
        self.had_nothing_to_do: Callable[[], object] = lambda: None

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is shown."""
        text = record.getMessage()
        if _DROPPED in text or (_PAUSES in text and record.levelno >= logging.ERROR and self.is_paused()):
            return False
        if text.startswith(_KEPT):
            self.had_nothing_to_do()
            return True
        return self.is_open or record.levelno >= logging.WARNING


def hush_snakemake(workflow: Any, *, is_read_only: bool) -> TerminalFilter:
    """Put a filter on Snakemake's terminal handler (its log file stays complete)."""
    settings = workflow.output_settings
    shown = TerminalFilter()
    shown.is_open = bool(is_read_only or settings.dryrun or settings.verbose)
    for handler in logging.getLogger("snakemake.logging").handlers:
        if handler.get_name() == "DefaultStreamHandler":
            handler.addFilter(shown)
    return shown
