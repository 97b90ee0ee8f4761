"""``dubito show FILE``: what made a file of a campaign, and from what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(show)


def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Any file of a campaign, or a copy of one.")],
    tree: Annotated[bool, typer.Option("--tree", help="Follow the inputs back to the start.")] = False,
    depth: Annotated[int, typer.Option(min=0, help="How far to follow the inputs.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    accept: Annotated[bool, typer.Option("--accept", help="Keep a file that was changed on purpose.")] = False,
) -> None:
    """Say what made a file: stage, time, host, job, code, settings, inputs; and whether all that still holds."""
    from json import dumps

    from dubito.cli.show.accepting import accept_change
    from dubito.cli.show.lines import as_lines
    from dubito.cli.show.record import find_record
    from dubito.cli.show.tree import follow

    if accept:
        print(accept_change(file))
        print("Next: start the campaign again as before; what was made from this file is made anew.")
        return
    record = find_record(file)
    followed = follow(record, 1_000_000 if tree else depth)
    if json:
        print(dumps(followed, indent=1, sort_keys=True, default=str))
        return
    print("\n".join(as_lines(record, followed)))
    if not tree and any(one.get("inputs") for one in followed["inputs"]):
        print(f"Next: `dubito show --tree {file}` follows the inputs back to the start.")
