"""Schedulers other than Slurm: what can be told of a profile for them."""

from __future__ import annotations

import shlex
import shutil
from importlib import metadata

from dubito.cli.cluster.findings import Finding, fault, ok, warning
from dubito.cli.cluster.plan import Plan

# The command each executor submits with.
_SUBMITS = {"lsf": "bsub", "sge": "qsub", "htcondor": "condor_submit", "flux": "flux"}


def check_other_scheduler(plan: Plan) -> list[Finding]:
    """Look for the plugin and the command that submits; queues and limits are not looked up."""
    name = plan.executor
    if name in ("local", "dryrun", "touch"):
        return [warning(f"{plan.file} submits nothing (executor {name}): there is no cluster to look at")]
    found = []
    plugin = f"snakemake-executor-plugin-{name}"
    try:
        found.append(ok(f"{plugin} {metadata.version(plugin)}"))
    except metadata.PackageNotFoundError:
        found.append(fault(f"{plugin} is not installed here. Type: pip install {plugin}"))
    command = _SUBMITS.get(name) or submit_program(str(plan.cluster.get("submit_cmd") or ""))
    if command and shutil.which(command) is None:
        found.append(
            fault(
                f"{command} can't be found on PATH, so no job can be submitted from here. Run this where you submit "
                "jobs (a login node, perhaps after `module load`)."
            )
        )
    elif command:
        found.append(ok(f"command: {command}"))
    found.append(
        warning(
            f"queues, limits and accounts are looked up on Slurm only, not for executor {name}; submit one small job "
            "of your own first. Jobs that outlive a killed driver are not looked up either: each waits for its own lock"
        )
    )
    return found


def submit_program(command: str) -> str:
    """Return the program of cluster-generic's submit command."""
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    return next((word for word in words if "=" not in word), "")
