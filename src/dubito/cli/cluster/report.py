"""All checks of a profile, in order; each finding as soon as it is there."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

from dubito.cli.cluster import trial
from dubito.cli.cluster.check_accounts import check_accounts, check_qos, check_submitted, check_verdicts
from dubito.cli.cluster.check_commands import check_commands, check_controller, check_plugin, check_polling
from dubito.cli.cluster.check_folder import check_folder
from dubito.cli.cluster.check_gpus import check_gpus
from dubito.cli.cluster.check_others import check_other_scheduler
from dubito.cli.cluster.check_profile import check_profile
from dubito.cli.cluster.check_requests import check_partitions, check_sizes
from dubito.cli.cluster.check_threads import check_threads
from dubito.cli.cluster.findings import Finding
from dubito.cli.cluster.plan import Plan
from dubito.core.slurm.cluster import Cluster
from dubito.core.slurm.limits import read_site


def check_cluster(plan: Plan, folder: Path, *, submit: bool = False) -> Iterator[Finding]:
    """Yield what is found of a campaign in ``folder`` under the profile of ``plan``.

    With ``submit``, trial jobs look from the nodes. What needs an answer of Slurm is left out where there is none.
    """
    yield from check_profile(plan)
    cluster: Cluster | None = None
    if plan.executor == "slurm":
        cluster = yield from _slurm(plan, folder, submit)
    else:
        yield from check_other_scheduler(plan)
        yield from check_gpus(plan, None)
    yield from check_folder(folder, cluster)
    yield from check_threads(plan)


def _slurm(plan: Plan, folder: Path, submit: bool) -> Generator[Finding, None, Cluster | None]:
    """Yield what concerns Slurm; return the cluster, None where it does not answer."""
    yield from check_plugin()
    commands = check_commands()
    yield from commands
    if any(f.level == "fault" for f in commands):
        yield from check_gpus(plan, None)
        return None
    controller = check_controller()
    yield from controller
    if not controller or controller[0].level == "fault":
        return None
    site = read_site(sorted({r.account for r in plan.firsts() if r.account}))
    cluster = site.cluster
    known = list(site.accounts.associations) if site.accounts is not None else None
    yield from check_polling(plan, cluster)
    stopped: set[str] = set()
    for finding in (
        *check_partitions(plan, cluster),
        *check_sizes(plan, site),
        *check_gpus(plan, cluster),
        *check_accounts(plan, cluster, known),
        *check_qos(plan, cluster, known),
        *check_submitted(plan, site),
    ):
        stopped |= finding.rules if finding.level == "fault" else set()
        yield finding
    for finding in check_verdicts(plan, frozenset(stopped)):
        stopped |= finding.rules
        yield finding
    if submit:
        yield from trial.check_from_nodes(plan, folder, frozenset(stopped))
    return cluster
