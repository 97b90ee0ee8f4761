"""Commands about a campaign: new, check, status, report, config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dubito.config import Config

CONFIG_PATH = Path("config/config.yaml")
ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="Configuration file (YAML).")]
# What a campaign folder needs of the workflow. Links, not copies: rules and installed package stay in step.
_WORKFLOW_PARTS = ("Snakefile", "workflow", "envs", "profiles", "slurm")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (new, check, status, report, config):
        app.command()(command)


def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")],
) -> None:
    """Make a campaign folder with a configuration to edit."""
    from dubito.config.generate import default_yaml
    from dubito.core.errors import EnvironmentFault
    from dubito.core.files import write_text

    target = folder / CONFIG_PATH
    if target.exists():
        raise EnvironmentFault(f"{target} exists already. Name another folder, or edit that file.")
    source = _workflow_folder()
    folder.mkdir(parents=True, exist_ok=True)
    write_text(target, default_yaml())
    for part in _WORKFLOW_PARTS:
        link = folder / part
        if not link.exists():
            link.symlink_to(source / part)
    print(f"Made {folder} with {target}.")
    print(f"Next: edit {target}, then run `cd {folder} && dubito check {CONFIG_PATH} && snakemake --cores 2`.")


def check(path: ConfigArgument = CONFIG_PATH) -> None:
    """Check a configuration: keys, files, whether the labeller takes the structures; forecast the labels."""
    from dubito.cli.plan import check_start, forecast
    from dubito.config import load_config
    from dubito.config.inputs import require_inputs

    settings = load_config(path)
    require_inputs(settings)
    print(f"{path}: {check_start(settings)}")
    for line in forecast(settings):
        print(f"  {line}")
    option = "" if path == CONFIG_PATH else f" --configfile {path}"
    print(f"Next: run `snakemake --cores 2{option}` (add -n to see the jobs first).")


def status(
    path: Annotated[Path, typer.Option("--config", help="Configuration of the campaign.")] = CONFIG_PATH,
) -> None:
    """Say where a campaign stands: iteration, labels, errors, what runs now, what failed."""
    from dubito.cli.standing import standing

    print("\n".join(standing(_campaign_name(path))))


def report(path: ConfigArgument = CONFIG_PATH) -> None:
    """Write the report of a campaign again from its result files."""
    from dubito.core.errors import DataError
    from dubito.stages import write_report

    settings = _settings_of_results(path)
    folder = Path("results", settings.campaign.name)
    done = sorted(folder.glob("iter_*/decision.json"))
    if not done:
        raise DataError(
            f"No iteration of {settings.campaign.name} is finished, so there is nothing to report yet. "
            "Start it with `snakemake --cores 2`, and see `dubito status`."
        )
    output = folder / "report" / "index.html"
    text = write_report.run(
        folder=folder,
        iteration=int(done[-1].parent.name.removeprefix("iter_")),
        output=output,
        summary=folder / "summary.json",
        config=settings,
        final=True,
    )
    print(text)
    print(f"Next: open {output} in a browser.")


def config(
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema.")] = False,
    table: Annotated[bool, typer.Option("--table", help="Print the table of all keys.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Write all generated files of this checkout.")] = False,
) -> None:
    """Print the default configuration, its schema or its table of keys."""
    from dubito.cli.generated import write_generated
    from dubito.config.generate import default_yaml, json_schema, key_table

    if write:
        for path in write_generated(Path()):
            print(f"wrote {path}")
        print("Next: run `make test`, and commit what changed.")
    else:
        print(json_schema() if schema else key_table() if table else default_yaml(), end="")


def _workflow_folder() -> Path:
    """Return the checkout that holds the workflow of the installed package.

    Raises
    ------
    EnvironmentFault
        When the package was installed without it.
    """
    import dubito
    from dubito.core.errors import EnvironmentFault

    for folder in (Path(dubito.__file__).resolve().parents[2], Path.cwd()):
        if (folder / "Snakefile").is_file() and (folder / "workflow" / "rules").is_dir():
            return folder
    raise EnvironmentFault(
        "The workflow (Snakefile, workflow/, profiles/) is not beside the installed package. Install dubito from its "
        "checkout with `make env` or `pip install -e .`, or run this command inside the checkout."
    )


def _campaign_name(path: Path) -> str:
    from dubito.config import load_config

    return load_config(path).campaign.name


def _settings_of_results(path: Path) -> Config:
    """Return the configuration the results were made with, where it was kept."""
    from dubito.config import load_config

    settings = load_config(path)
    kept = Path("results", settings.campaign.name, "config.yaml")
    return load_config(kept) if kept.exists() else settings
