"""What a Slurm cluster has: its partitions, nodes, limits and accounts, as scontrol and sacctmgr print them.

The one-line text form is read, because ``--json`` is missing from many installations.
"""

from __future__ import annotations

import getpass
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

COMMANDS = ("sbatch", "squeue", "scontrol", "sinfo", "scancel")
_PAIR = re.compile(r"(\w+)=(.*?)(?=\s+\w+=|\s*$)")
_GPU = re.compile(r"\bgpu(?::([A-Za-z][\w.-]*))?(?::(\d+))?")
_NOTHING = frozenset({"", "(null)", "N/A", "none"})
_LIMITS = ("MaxJobs", "MaxSubmitJobs", "GrpJobs", "GrpSubmitJobs")
# Node states in which a node runs nothing and won't by itself (flags such as + or * may follow).
_DEAD = ("DOWN", "DRAIN", "FAIL", "FUTURE", "UNKNOWN", "INVAL", "POWERED_DOWN", "NOT_RESPONDING")


@dataclass(frozen=True)
class Answer:
    """What a command said; ``rc`` is None when it could not be run or did not answer in time."""

    rc: int | None
    out: str
    err: str

    @property
    def said(self) -> str:
        """The message in one line."""
        return " ".join((self.err.strip() or self.out.strip()).split())[:300]


@dataclass(frozen=True)
class Node:
    """A node: CPUs, MB of memory for jobs, GPUs by model, features, and whether it takes jobs now."""

    name: str
    address: str
    cpus: int
    mem_mb: int
    gpus: dict[str, int]
    features: frozenset[str]
    partitions: frozenset[str]
    state: str

    @property
    def is_alive(self) -> bool:
        """Whether it runs jobs, or will when they have ended."""
        return not any(word in self.state.upper() for word in _DEAD)

    def gpu_count(self, model: str | None = None) -> int:
        """Return its GPUs, of one model where that is given."""
        return sum(n for name, n in self.gpus.items() if model is None or name == model)


@dataclass(frozen=True)
class Partition:
    """A partition; None means no limit."""

    name: str
    state: str
    is_default: bool
    max_minutes: float | None
    max_mem_mb: int | None
    max_cpus: int | None
    accounts: frozenset[str] | None
    denied_accounts: frozenset[str]
    qos: frozenset[str] | None
    default_minutes: float | None = None


@dataclass(frozen=True)
class Cluster:
    """Partitions and nodes by name, and the settings of the controller."""

    partitions: dict[str, Partition]
    nodes: dict[str, Node]
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def default_partition(self) -> str | None:
        """The partition of a job that names none."""
        return next((p.name for p in self.partitions.values() if p.is_default), None)

    @property
    def has_accounting(self) -> bool:
        """Whether there are accounts (slurmdbd)."""
        return "slurmdbd" in self.settings.get("AccountingStorageType", "")

    def nodes_of(self, partition: str) -> list[Node]:
        """Return the nodes of a partition."""
        return [node for node in self.nodes.values() if partition in node.partitions]


@dataclass(frozen=True)
class Association:
    """One account of this user; ``closed`` names a limit of 0, with which nothing starts."""

    account: str
    partition: str | None
    qos: frozenset[str]
    closed: str | None


def run(command: Sequence[str], timeout_s: float = 60.0) -> Answer:
    """Run a command of Slurm; one that is missing or silent gives ``rc`` None."""
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, timeout=timeout_s, check=False)
    except FileNotFoundError:
        return Answer(None, "", f"{command[0]} was not found")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Answer(None, "", f"{command[0]} did not answer: {type(error).__name__} after {timeout_s:.0f} s")
    return Answer(done.returncode, done.stdout, done.stderr)


def read_cluster() -> Cluster:
    """Ask the controller for partitions, nodes and settings; empty where it does not answer."""
    partitions = [_partition(pairs(line)) for line in _lines("partition")]
    nodes = [_node(pairs(line)) for line in _lines("node")]
    settings = {}
    for line in run(["scontrol", "show", "config"]).out.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            settings[key.strip()] = value.strip()
    return Cluster({p.name: p for p in partitions}, {n.name: n for n in nodes}, settings)


def read_associations(accounts: Iterable[str] = ()) -> list[Association] | None:
    """Return the accounts of this user; None when the cluster does not tell.

    Limits of ``accounts`` as a whole count too, since a site closes an account there or at its users.
    """
    user = getpass.getuser()
    mine = _assoc([f"user={user}"])
    if mine is None:
        return None
    whole = [row for name in accounts for row in _assoc([f"account={name}"]) or [] if not row["User"]]
    shut = {row["Account"]: _closed(row) for row in whole}
    return [
        Association(
            account=row["Account"],
            partition=row["Partition"] or None,
            qos=frozenset(name for name in row["QOS"].split(",") if name),
            closed=_closed(row) or shut.get(row["Account"]),
        )
        for row in mine
    ]


def _assoc(where: list[str]) -> list[dict[str, str]] | None:
    keys = ["Account", "User", "Partition", "QOS", *_LIMITS, "GrpTRESMins"]
    answer = run(["sacctmgr", "-nP", "show", "assoc", "where", *where, f"format={','.join(keys)}"])
    if answer.rc != 0:
        return None
    rows = [line.split("|") for line in answer.out.splitlines()]
    return [dict(zip(keys, row, strict=True)) for row in rows if len(row) == len(keys)]


def _closed(row: dict[str, str]) -> str | None:
    """Return the limit that lets nothing start: how sites close an account whose allocation has expired."""
    for key in _LIMITS:
        if row.get(key) == "0":
            return f"{key}=0"
    spent = re.search(r"\b(cpu|billing|node)=0(?:,|$)", row.get("GrpTRESMins", ""))
    return f"GrpTRESMins={spent.group(0).rstrip(',')}" if spent else None


def pairs(line: str) -> dict[str, str]:
    """Return the ``key=value`` pairs of one line of ``scontrol --oneliner``; values may hold blanks."""
    return {key: value.strip() for key, value in _PAIR.findall(line)}


def minutes(text: str) -> float | None:
    """Return a time of Slurm (``[days-]hours:minutes:seconds``) in minutes; None for no limit."""
    if text.upper() in ("UNLIMITED", "INFINITE", "NONE", "N/A", ""):
        return None
    days, dash, clock = text.rpartition("-")
    parts = [float(part) for part in clock.split(":")]
    if dash:
        parts += [0.0] * (3 - len(parts))
    else:
        parts = [0.0] * (3 - len(parts)) + parts
    return (int(days) if dash else 0) * 1440 + parts[0] * 60 + parts[1] + parts[2] / 60


def gpus(gres: str) -> dict[str, int]:
    """Return the GPUs of a node by model (empty name: no model is given) from its ``Gres``."""
    found: dict[str, int] = {}
    for model, count in _GPU.findall(re.sub(r"\([^)]*\)", "", gres)):
        found[model] = found.get(model, 0) + int(count or 1)
    return found


def without_private_configuration() -> dict[str, str]:
    """Return the environment of a job's own srun: the jobstep executor strips every SLURM_ variable."""
    return {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}


def _lines(kind: str) -> list[str]:
    answer = run(["scontrol", "--oneliner", "show", kind])
    first = {"partition": "PartitionName=", "node": "NodeName="}[kind]
    return [line for line in answer.out.splitlines() if line.startswith(first)]


def _names(text: str) -> frozenset[str]:
    return frozenset(name for name in text.split(",") if name not in _NOTHING)


def _all_or(text: str) -> frozenset[str] | None:
    return None if text.upper() == "ALL" or text in _NOTHING else _names(text)


def _limit(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _partition(found: dict[str, str]) -> Partition:
    return Partition(
        name=found["PartitionName"],
        state=found.get("State", "UNKNOWN"),
        is_default=found.get("Default") == "YES",
        max_minutes=minutes(found.get("MaxTime", "")),
        max_mem_mb=_limit(found.get("MaxMemPerNode", "")),
        max_cpus=_limit(found.get("MaxCPUsPerNode", "")),
        accounts=_all_or(found.get("AllowAccounts", "ALL")),
        denied_accounts=_names(found.get("DenyAccounts", "")),
        qos=_all_or(found.get("AllowQos", "ALL")),
        default_minutes=minutes(found.get("DefaultTime", "")),
    )


def _node(found: dict[str, str]) -> Node:
    special = _limit(found.get("MemSpecLimit", "")) or 0
    cpus = found.get("CPUEfctv") or found.get("CPUTot") or "1"
    return Node(
        name=found["NodeName"],
        address=found.get("NodeAddr") or found.get("NodeHostName") or found["NodeName"],
        cpus=int(cpus),
        mem_mb=int(found.get("RealMemory", "0")) - special,
        gpus=gpus(found.get("Gres", "")),
        features=_names(found.get("AvailableFeatures", "")) | _names(found.get("ActiveFeatures", "")),
        partitions=_names(found.get("Partitions", "")),
        state=found.get("State", "UNKNOWN"),
    )
