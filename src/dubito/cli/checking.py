"""``dubito check``: the configuration, what it will cost, and the cluster it is to run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from dubito.config import Config
from dubito.core.errors import ConfigError, EnvironmentFault


def check_campaign(
    path: Path, *, profile: str, submit: bool, probe: int, snakefile: Callable[[], Path]
) -> Iterator[str]:
    """Yield the lines of a check; the last one says what to do next.

    Raises
    ------
    DubitoError
        For the first fault of the configuration; or, after all lines, when the profile has faults.
    """
    from dubito.cli.plan import check_start, forecast
    from dubito.config import load_config
    from dubito.config.feasibility import needs_count, require_feasible
    from dubito.config.inputs import require_inputs

    if submit and not profile:
        raise ConfigError("--submit looks from the nodes of a cluster: say which, with --profile NAME.")
    settings = load_config(path)
    require_inputs(settings)
    require_feasible(settings)
    if needs_count(settings):
        from dubito.stages.prepare_structures import count

        require_feasible(settings, count(settings.data, settings.campaign.seed))
    yield f"{path}: {check_start(settings)}"
    for line in forecast(settings):
        yield f"  {line}"
    option = "" if path == Path("config/config.yaml") else f" --configfile {path}"
    if profile:
        yield from _cluster(settings, path, profile, submit=submit, probe=probe, snakefile=snakefile())
        again = "" if probe else f" Measure the cost first with `dubito check {path} --profile {profile} --probe 3`."
        yield f"Next: run `snakemake --profile {profile}{option}` in tmux or in a small job of its own.{again}"
        return
    if probe:
        from dubito.cli.probe import forecast_lines

        yield from forecast_lines(settings, probe)
    yield f"Next: run `snakemake --cores 2{option}` (add -n to see the jobs first)."


def _cluster(settings: Config, path: Path, profile: str, *, submit: bool, probe: int, snakefile: Path) -> Iterator[str]:
    """Yield what is found of the cluster, and what labels cost there."""
    from dubito.cli.cluster.plan import read_plan
    from dubito.cli.cluster.report import check_cluster

    plan = read_plan(path, profile, snakefile)
    n_faults = 0
    for finding in check_cluster(plan, Path.cwd(), submit=submit):
        n_faults += finding.level == "fault"
        yield finding.line()
    if probe and not n_faults:
        from dubito.cli.probe import forecast_lines

        yield from forecast_lines(settings, probe, plan=plan, submit=submit and plan.executor == "slurm")
    if n_faults:
        raise EnvironmentFault(
            f"{n_faults} fault{'' if n_faults == 1 else 's'} above would stop `snakemake --profile {profile}`. "
            "Mend what is marked, then run the same check again."
        )
