"""The commands of Slurm, its controller, and the plugin that talks to it."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib import metadata

from dubito.cli.cluster.findings import Finding, fault, listed, ok, warning
from dubito.cli.cluster.plan import Plan
from dubito.core.slurm.asking import COMMANDS, run
from dubito.core.slurm.cluster import Cluster, without_private_configuration

PLUGIN = "snakemake-executor-plugin-slurm"
JOBSTEP = "snakemake-executor-plugin-slurm-jobstep"
TRIED = {PLUGIN: "2.8.0", JOBSTEP: "0.6.1"}


def check_plugin() -> list[Finding]:
    """Look for the executor plugin and whether its version is one that was tried."""
    found = []
    for name, tried in TRIED.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            found.append(fault(f"{name} is not installed here. Type: pip install {name}=={tried}"))
            continue
        if version == tried:
            found.append(ok(f"{name} {version}"))
        else:
            found.append(
                warning(
                    f"{name} is {version}; dubito was tried with {tried}: pip install {name}=={tried} is the safe way"
                )
            )
    return found


def check_commands() -> list[Finding]:
    """Look for the commands that submit and watch jobs."""
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        return [
            fault(
                f"{listed(missing)} can't be found on PATH, so no job can be submitted from here. Run this on a login "
                "node of the cluster (perhaps after `module load slurm`); on a machine without Slurm start with "
                "`snakemake --cores N`."
            )
        ]
    return [ok(f"commands: {', '.join(COMMANDS)}")]


def check_controller() -> list[Finding]:
    """Ask whether slurmctld answers, also where only the system's configuration is known."""
    answer = run(["scontrol", "ping"], 30)
    if answer.rc is None or " UP" not in f" {answer.out}":
        return [
            fault(
                f"slurmctld does not answer ({answer.said or 'no word from scontrol ping'}). Wait until it is back, or "
                "ask your administrators; `scontrol ping` shows it."
            )
        ]
    version = run(["scontrol", "--version"]).out.strip()
    return [ok(f"slurmctld answers ({version})"), *_private_configuration()]


def _private_configuration() -> list[Finding]:
    """Find a configuration that only SLURM_CONF names: the jobs' own srun would not see it."""
    if "SLURM_CONF" not in os.environ:
        return []
    try:
        done = subprocess.run(
            ["scontrol", "ping"], env=without_private_configuration(), capture_output=True, text=True,
            timeout=30, check=False,
        )  # fmt: skip
        reached = " UP" in f" {done.stdout}"
    except (OSError, subprocess.TimeoutExpired):
        reached = False
    if reached:
        return []
    return [
        fault(
            f"Slurm is found through SLURM_CONF={os.environ['SLURM_CONF']} alone. Each job starts its step without "
            "that variable and would end with 'srun: Could not establish a configuration source'. Have that file "
            "linked to /etc/slurm/slurm.conf on all nodes."
        )
    ]


def check_polling(plan: Plan, cluster: Cluster) -> list[Finding]:
    """Compare how long the controller remembers finished jobs with how often it is asked for them."""
    own = plan.cluster
    start = int(own.get("init_seconds_before_status_checks") or 40)
    found = []
    if own.get("status_command") == "sacct":
        found.append(
            warning(
                "slurm-status-command is sacct: plugin 2.4 to 2.8 then waits for ever for a cancelled job. Set "
                f"`slurm-status-command: squeue` in {plan.file}."
            )
        )
    else:
        found.append(_memory(plan, cluster, start))
    if not own.get("no_requeue"):
        found.append(
            warning(
                f"slurm-no-requeue is not set in {plan.file}: after a dead node Slurm and Snakemake would both start "
                "the job again."
            )
        )
    return found


def _memory(plan: Plan, cluster: Cluster, start: int) -> Finding:
    """Say whether a job that has ended is still listed when the driver asks for it."""
    number = cluster.settings.get("MinJobAge", "").partition(" ")[0]
    if not number.isdigit():
        return warning("MinJobAge is not told by `scontrol show config`; it should be 60 s or more")
    age = int(number)
    # The guard of the driver asks at least three times in that time, but no sooner than `start`; 0: never forgotten.
    if age and age < 3 * start:
        return warning(
            f"MinJobAge is {age} s and slurm-init-seconds-before-status-checks {start}: jobs that have ended may be "
            "forgotten before they are asked for, and are then judged by their files. Set "
            f"slurm-init-seconds-before-status-checks to {max(1, age // 3)} in {plan.file}, or have MinJobAge raised."
        )
    return ok(f"MinJobAge {age} s, first poll after {start} s")
