"""The command line of the throw-away Slurm: ``python -m dubito.testing.slurm_cluster``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dubito.core.errors import EnvironmentFault
from dubito.testing.slurm_cluster import SlurmCluster


def main(arguments: Sequence[str] | None = None) -> int:
    """Start or end a cluster, or run a command inside one."""
    parser = argparse.ArgumentParser(prog="python -m dubito.testing.slurm_cluster", description="A throw-away Slurm.")
    actions = parser.add_subparsers(dest="action", required=True)
    up = actions.add_parser("up", help="start one")
    up.add_argument("--accounting", action="store_true", help="with slurmdbd and sacct")
    up.add_argument("--min-job-age", type=int, default=300, help="seconds for which squeue shows ended jobs")
    run = actions.add_parser("run", help="run a command inside one")
    for action in (up, run, actions.add_parser("down", help="end one with all that runs in it")):
        action.add_argument("root", type=Path, help="folder of the cluster, at most 60 characters")
    run.add_argument("command", nargs=argparse.REMAINDER, help="-- and the command")
    given = parser.parse_args(arguments)
    try:
        if given.action == "up":
            begin = time.monotonic()
            cluster = SlurmCluster(
                given.root, accounting=given.accounting, min_job_age_s=given.min_job_age, owner_pid=0
            )
            cluster.start()
            print(
                f"up in {time.monotonic() - begin:.1f} s: nodes {', '.join(cluster.nodes)}. "
                f"Run things in it: {cluster.root}/bin/inside sinfo"
            )
        elif given.action == "down":
            SlurmCluster.attach(given.root).stop()
        else:
            command = given.command[1:] if given.command[:1] == ["--"] else given.command
            inside = SlurmCluster.attach(given.root).command(command)
            os.execv(inside[0], inside)  # noqa: S606 (a list, no shell)
    except EnvironmentFault as fault:
        print(f"dubito: {fault}", file=sys.stderr)
        return fault.exit_code
    return 0
