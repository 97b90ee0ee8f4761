"""The configuration files of a throw-away Slurm on one machine (see :mod:`dubito.testing.slurm_cluster`).

Every value that is not Slurm's default is here because the cluster failed, or was slow, without it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# What a job step may use at most; a job that asks for nothing gets this much for each core.
_DEFAULT_MB_PER_CPU = 500
_MAX_MINUTES = 60


@dataclass(frozen=True)
class Layout:
    """What the files say of one cluster: its folder, its names, its ports and its sizes."""

    root: Path
    host: str
    tag: str
    cpu_nodes: Sequence[str]
    gpu_nodes: Sequence[str]
    cpus_per_node: int
    gpus_per_node: int
    memory_mb: int
    controller_port: int
    node_ports: Sequence[int]
    database_port: int
    accounting_port: int
    accounting: bool
    cgroups: bool
    min_job_age_s: int
    kill_wait_s: int
    node_timeout_s: int

    @property
    def nodes(self) -> list[str]:
        """Return the names of all nodes."""
        return [*self.cpu_nodes, *self.gpu_nodes]

    @property
    def munge_socket(self) -> Path:
        """Return where this cluster's own munged listens."""
        return self.root / "run" / "munge.socket"


def slurm_conf(cluster: Layout) -> str:
    """Return ``slurm.conf``."""
    root = cluster.root
    tracking = (
        ["ProctrackType=proctrack/cgroup", "TaskPlugin=task/cgroup"]
        if cluster.cgroups
        else ["ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none", "JobAcctGatherParams=OverMemoryKill"]
    )
    accounting = (
        [
            "AccountingStorageType=accounting_storage/slurmdbd",
            "AccountingStorageHost=127.0.0.1",
            f"AccountingStoragePort={cluster.accounting_port}",
            # With munge the "password" is the socket; AuthInfo is not asked for it.
            f"AccountingStoragePass={cluster.munge_socket}",
            "AccountingStorageTRES=gres/gpu",
            "AccountingStoreFlags=job_comment",
            "AccountingStorageEnforce=associations,limits",
        ]
        if cluster.accounting
        else ["AccountingStorageType=accounting_storage/none"]
    )
    lines = [
        f"ClusterName=dubito_{cluster.tag}",
        f"SlurmctldHost={cluster.host}(127.0.0.1)",
        "SlurmUser=root",
        "SlurmdUser=root",
        f"SlurmctldPort={cluster.controller_port}",
        "AuthType=auth/munge",
        f"AuthInfo=socket={cluster.munge_socket}",
        f"StateSaveLocation={root}/state",
        f"SlurmdSpoolDir={root}/spool/%n",
        f"SlurmctldPidFile={root}/run/slurmctld.pid",
        f"SlurmdPidFile={root}/run/slurmd-%n.pid",
        f"SlurmctldLogFile={root}/log/slurmctld.log",
        f"SlurmdLogFile={root}/log/slurmd-%n.log",
        "SwitchType=switch/none",
        "MpiDefault=none",
        "ReturnToService=2",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU_Memory",
        *tracking,
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=task=1",
        "GresTypes=gpu",
        "SchedulerType=sched/backfill",
        # Started at once: the defaults keep a job waiting for up to a minute.
        "SchedulerParameters=bf_interval=1,sched_min_interval=100000,batch_sched_delay=0,sched_interval=2",
        "InactiveLimit=0",
        f"KillWait={cluster.kill_wait_s}",
        f"MinJobAge={cluster.min_job_age_s}",
        f"SlurmdTimeout={cluster.node_timeout_s}",
        # A loaded machine takes its time to kill; after the default of a minute the node would be drained.
        "UnkillableStepTimeout=300",
        "Waittime=0",
        "MaxArraySize=1001",
        "PropagateResourceLimits=NONE",
        # A node may claim more cores than the machine has.
        "SlurmdParameters=config_overrides",
        *accounting,
        *_node_lines(cluster),
    ]
    return "\n".join(lines) + "\n"


def _node_lines(cluster: Layout) -> list[str]:
    lines = []
    for name, port in zip(cluster.nodes, cluster.node_ports, strict=True):
        gres = f" Gres=gpu:fake:{cluster.gpus_per_node}" if name in cluster.gpu_nodes else ""
        lines.append(
            f"NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={port} CPUs={cluster.cpus_per_node} "
            f"RealMemory={cluster.memory_mb}{gres} State=UNKNOWN"
        )
    common = f"MaxTime={_MAX_MINUTES} DefMemPerCPU={_DEFAULT_MB_PER_CPU} State=UP"
    if cluster.cpu_nodes:
        lines.append(f"PartitionName=cpu Nodes={','.join(cluster.cpu_nodes)} Default=YES {common}")
    if cluster.gpu_nodes:
        lines.append(f"PartitionName=gpu Nodes={','.join(cluster.gpu_nodes)} {common}")
    return lines


def gres_conf(cluster: Layout) -> str:
    """Return ``gres.conf``; a GPU without a device file is dropped by slurmd."""
    last = cluster.gpus_per_node - 1
    return "".join(
        f"NodeName={name} Name=gpu Type=fake Count={cluster.gpus_per_node} "
        f"File={cluster.root}/run/gpu-{name}-[0-{last}]\n"
        for name in cluster.gpu_nodes
    )


def cgroup_conf() -> str:
    """Return ``cgroup.conf``: memory is limited, so that a job out of memory is killed as on a real cluster."""
    return (
        "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\nCgroupAutomount=no\nConstrainCores=no\n"
        "ConstrainRAMSpace=yes\nConstrainSwapSpace=no\nConstrainDevices=no\n"
    )


def slurmdbd_conf(cluster: Layout) -> str:
    """Return ``slurmdbd.conf``; the password guards an empty database on the loop-back interface."""
    return (
        f"AuthType=auth/munge\nAuthInfo=socket={cluster.munge_socket}\nDbdHost=localhost\nDbdAddr=127.0.0.1\n"
        f"DbdPort={cluster.accounting_port}\nSlurmUser=root\nStorageType=accounting_storage/mysql\n"
        f"StorageHost=127.0.0.1\nStoragePort={cluster.database_port}\nStorageUser=slurm\nStoragePass=slurm\n"
        f"StorageLoc=slurm_acct_db\nLogFile={cluster.root}/log/slurmdbd.log\n"
        f"PidFile={cluster.root}/run/slurmdbd.pid\n"
    )


# Enters the cluster's mount namespace, where /etc/slurm is the cluster's, and keeps the folder one is in.
ENTER = """#!/bin/sh
# Run a command inside the cluster whose folder this script lies in: inside sbatch ...
here=$(pwd -P)
holder=$(cat "$(dirname "$0")/../run/holder.pid") || exit 3
exec nsenter --target "$holder" --mount -- /bin/sh -c 'cd "$0" && exec "$@"' "$here" "$@"
"""

# The process that keeps the namespace. It takes the cluster down when the process it was started for has ended.
HOLDER = """#!/bin/sh
# holder.sh ROOT OWNER PYTHON
mount --bind "$1/etc" /etc/slurm || exit 1
echo $$ > "$1/run/holder.pid.new" && mv "$1/run/holder.pid.new" "$1/run/holder.pid"
while [ "$2" = 0 ] || kill -0 "$2" 2>/dev/null; do sleep 2; done
exec "$3" -m dubito.testing.slurm_cluster down "$1"
"""

# A node is a host of its own to the jobs (their locks and records say its name), and its mount namespace
# tells its processes from those of the others.
NODE = """#!/bin/sh
# node.sh NAME
hostname "$1" || exit 1
export PATH="$PATH:/usr/sbin:/sbin"
exec slurmd -N "$1"
"""


def write_files(cluster: Layout) -> None:
    """Write all of a cluster's files into its folder; what an earlier one knew of its jobs is forgotten."""
    root = cluster.root
    shutil.rmtree(root / "state", ignore_errors=True)
    for name in ("etc", "run", "log", "state", "bin", *(f"spool/{node}" for node in cluster.nodes)):
        (root / name).mkdir(parents=True, exist_ok=True)
    # munge insists that others can't write where its socket lies, and can reach it.
    root.chmod(0o755)
    (root / "run").chmod(0o755)
    etc = root / "etc"
    (etc / "slurm.conf").write_text(slurm_conf(cluster))
    (etc / "gres.conf").write_text(gres_conf(cluster))
    (etc / "plugstack.conf").write_text("")
    if cluster.cgroups:
        (etc / "cgroup.conf").write_text(cgroup_conf())
    if cluster.accounting:
        (etc / "slurmdbd.conf").write_text(slurmdbd_conf(cluster))
        (etc / "slurmdbd.conf").chmod(0o600)
    for name, text in (("inside", ENTER), ("holder.sh", HOLDER), ("node.sh", NODE)):
        (root / "bin" / name).write_text(text)
        (root / "bin" / name).chmod(0o755)
    for node in cluster.gpu_nodes:
        for k in range(cluster.gpus_per_node):
            device = root / "run" / f"gpu-{node}-{k}"
            if not device.exists():  # a second /dev/null: slurmd takes nothing but a device file
                os.mknod(device, 0o020666, os.makedev(1, 3))
    (root / "cluster.json").write_text(json.dumps(asdict(cluster), default=str))


def database_commands(cluster: Layout) -> tuple[list[str], list[str], list[str], list[list[str]]]:
    """Return what makes the database, serves it, gives slurmdbd its user, and names the accounts."""
    data, socket = cluster.root / "mysql", cluster.root / "run" / "mysql.socket"
    prepare = [
        "mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}",
        "--auth-root-authentication-method=normal", "--skip-test-db",
    ]  # fmt: skip
    serve = [
        "mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={socket}",
        "--bind-address=127.0.0.1", f"--port={cluster.database_port}", f"--pid-file={cluster.root}/run/mariadbd.pid",
        "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=900",
    ]  # fmt: skip
    query = "CREATE DATABASE IF NOT EXISTS slurm_acct_db;" + "".join(
        f"CREATE USER IF NOT EXISTS slurm@'{host}' IDENTIFIED BY 'slurm';"
        f"GRANT ALL ON slurm_acct_db.* TO slurm@'{host}';"
        for host in ("127.0.0.1", "localhost")
    )
    client = ["mariadb", "--no-defaults", f"--socket={socket}", "--user=root", "-e", query]
    add = ["sacctmgr", "--immediate", "add"]
    accounts = [
        [*add, "cluster", f"dubito_{cluster.tag}"],
        [*add, "account", "alloc1"],
        [*add, "user", "root", "Account=alloc1"],
    ]
    return prepare, serve, client, accounts
