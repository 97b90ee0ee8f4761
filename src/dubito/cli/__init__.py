"""The command line. Heavy imports stay inside the commands, so that ``--help`` is instant."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from dubito.cli import campaign, files, show
from dubito.core.errors import DubitoError

EPILOG = "Start a campaign with: snakemake --cores 2 (in a campaign folder; make one with `dubito new DIR`)."

app = typer.Typer(
    name="dubito",
    help="An interatomic potential that knows when it doesn't know, and a campaign that spends DFT only there.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
campaign.register(app)
files.register(app)
show.register(app)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Take the options of all commands (main reads --debug wherever it stands)."""


def main() -> None:
    """Run the command line: exit code 0, 2 for the user's mistake (one paragraph), 1 for a bug."""
    debug = "--debug" in sys.argv
    try:
        app(args=[argument for argument in sys.argv[1:] if argument != "--debug"])
    except DubitoError as error:
        if debug:
            traceback.print_exc()
        print(f"dubito: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of a pipe has left; point stdout elsewhere, or Python complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(
            f"dubito: bug: {type(error).__name__}: {error}\n"
            "This should not happen. Run the same command with --debug and report what it prints.",
            file=sys.stderr,
        )
        sys.exit(1)
