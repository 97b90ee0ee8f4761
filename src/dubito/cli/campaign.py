"""Commands about a campaign: new, check, status, retry, report, config."""

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
    for command in (new, check, status, retry, report, config):
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


def check(
    path: ConfigArgument = CONFIG_PATH,
    profile: Annotated[
        str,
        typer.Option(metavar="NAME_OR_DIR", help="Also look at the cluster that `snakemake --profile` would use."),
    ] = "",
    submit: Annotated[
        bool, typer.Option("--submit", help="With --profile: one tiny job per kind of node looks from there (Slurm).")
    ] = False,
    probe: Annotated[
        int, typer.Option(min=0, metavar="N", help="Label N initial structures (kept), and forecast the cost of all.")
    ] = 0,
) -> None:
    """Check a configuration: keys, files, whether the labeller takes the structures; forecast the labels."""
    from dubito.cli.checking import check_campaign

    for line in check_campaign(path, profile=profile, submit=submit, probe=probe, snakefile=_snakefile):
        print(line, flush=True)


def status(
    seconds: Annotated[
        float, typer.Argument(metavar="[SECONDS]", min=0.5, help="With --watch: how often, 5 by default.")
    ] = 5.0,
    path: Annotated[Path, typer.Option("--config", help="Configuration of the campaign.")] = CONFIG_PATH,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again until Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print it for scripts; docs/running.md lists the keys.")] = False,
) -> None:
    """Say on one screen where a campaign stands: jobs, labels, errors, cost, the rest, what failed, what to do."""
    from dubito.cli.status import Watcher, campaign_name, show
    from dubito.cli.status import watch as follow

    watcher = Watcher(campaign_name(path), "" if path == CONFIG_PATH else str(path))
    if watch:
        follow(watcher, seconds, json_only=json)
    else:
        show(watcher, json_only=json)


def retry(
    path: Annotated[Path, typer.Option("--config", help="Configuration of the campaign.")] = CONFIG_PATH,
    iteration: Annotated[
        int | None, typer.Option(min=0, help="Whose failed labels; without it: where the campaign is paused.")
    ] = None,
    reason: Annotated[
        str, typer.Option(help="Only failures for these reasons, such as crashed,scf_not_converged.")
    ] = "",
) -> None:
    """Have failed labels tried again at the next start; finished labels stay."""
    from dubito.cli.retrying import retry as take_back

    reasons = [one.strip() for one in reason.split(",") if one.strip()]
    print("\n".join(take_back(_campaign_name(path), iteration=iteration, reasons=reasons)))
    option = "" if path == CONFIG_PATH or "results" in path.parts[:1] else f" --configfile {path}"
    print(f"Next: start the campaign again as before, for example `snakemake --cores 2{option}`.")


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
        final=False,
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


def _snakefile() -> Path:
    """Return the workflow that `snakemake` would take here."""
    here = Path("Snakefile")
    return here if here.is_file() else _workflow_folder() / "Snakefile"


def _campaign_name(path: Path) -> str:
    from dubito.config import load_config

    return load_config(path).campaign.name


def _settings_of_results(path: Path) -> Config:
    """Return the configuration the results were made with, where it was kept."""
    from dubito.config import load_config

    settings = load_config(path)
    kept = Path("results", settings.campaign.name, "config.yaml")
    return load_config(kept) if kept.exists() else settings
