"""Write the report and the summary of a campaign, while it runs and at its end."""

from __future__ import annotations

import os
from pathlib import Path

from dubito.config import Config
from dubito.core.errors import DataError
from dubito.core.files import atomic_path, write_json, write_text
from dubito.reporting.collect import Campaign, collect, iteration_folder
from dubito.reporting.page import render
from dubito.reporting.summary import summarise


def run(*, folder: Path, iteration: int, output: Path, summary: Path, config: Config, final: bool) -> str:
    """Write ``output`` (HTML) and ``summary`` (JSON) as of ``iteration``.

    Unless ``final``, the pages a reader looks at (``report/index.html`` and ``summary.json`` of the
    campaign) are refreshed as well.

    Raises
    ------
    DataError
        When the campaign folder holds no evaluated iteration, or not this one; when a ``final`` report is asked for
        of a campaign that goes on.
    """
    campaign = collect(folder, config, last=iteration)
    _refuse_other(campaign, folder, iteration, final=final)
    page, digest = render(campaign), summarise(campaign)
    write_text(output, page)
    write_json(summary, digest)
    if not final:
        # These two are outputs of the job that writes the final report. Dated 1970 they are older than
        # any input of that job, so that Snakemake never takes an interim file for the final one.
        _write_old(folder / "report" / "index.html", page, output)
        _write_old(folder / "summary.json", summary.read_text(encoding="utf-8"), summary)
    return f"{digest['state']}: report of {digest['labels']['done']} labels in {output}"


def _refuse_other(campaign: Campaign, folder: Path, iteration: int, *, final: bool) -> None:
    """Raise DataError where the files tell of another iteration, or of a campaign that is not at its end."""
    found = campaign.last.index
    if found != iteration:
        where = iteration_folder(folder, found + 1)
        raise DataError(
            f"The report is of iteration {iteration}, but {where / 'metrics.json'} is missing, so that it would tell "
            f"of iteration {found}. Start the campaign again as before: the file is made anew, and the report after it."
        )
    if final and not campaign.last.decision.get("stop"):
        where = iteration_folder(folder, iteration)
        raise DataError(
            f"The final report is of the last iteration, but {where / 'decision.json'} is missing or lets the campaign "
            "go on. Start the campaign again as before: what is missing is made, and the report after it."
        )


def _write_old(path: Path, text: str, written: Path) -> None:
    """Write a file with modification time 1, unless it is the output just written."""
    if path.resolve() == written.resolve():
        return
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")
        os.utime(partial, (1, 1))
