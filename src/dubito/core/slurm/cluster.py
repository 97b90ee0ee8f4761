"""What a Slurm cluster has: its partitions, nodes and settings, as scontrol prints them.

The one-line text form is read, because ``--json`` is missing from many installations; with ``--all``, because a
partition that is hidden from listings still takes jobs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from dubito.core.slurm.asking import minutes, pairs, run, whole
from dubito.core.slurm.features import satisfies

_GPU = re.compile(r"\bgpu(?::([A-Za-z][\w.-]*))?(?::(\d+))?")
_NOTHING = frozenset({"", "(null)", "N/A", "none"})
# Node states in which a node runs nothing and won't by itself (flags such as + or * may follow).
_DEAD = ("DOWN", "DRAIN", "FAIL", "FUTURE", "UNKNOWN", "INVAL", "POWERED_DOWN", "NOT_RESPONDING")


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

    def suits(self, constraint: str | None, gpus: int = 0, gpu_model: str | None = None) -> bool:
        """Say whether it has the features and GPUs that are asked for."""
        return (not constraint or satisfies(constraint, self.features)) and (
            not gpus or self.gpu_count(gpu_model) >= gpus
        )


@dataclass(frozen=True)
class Partition:
    """A partition; None means no limit. ``own_qos`` is the quality of service all its jobs are under."""

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
    own_qos: str | None = None


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

    @property
    def enforces_limits(self) -> bool:
        """Whether limits of accounts and qualities of service count (AccountingStorageEnforce)."""
        said = {word.strip().lower() for word in self.settings.get("AccountingStorageEnforce", "").split(",")}
        return self.has_accounting and bool(said & {"limits", "safe", "all"})

    @property
    def refuses_beyond_limits(self) -> bool:
        """Whether sbatch refuses what a partition does not allow; else such a job waits for ever."""
        return self.settings.get("EnforcePartLimits", "NO").upper() in ("YES", "ALL", "ANY")

    def nodes_of(self, partition: str) -> list[Node]:
        """Return the nodes of a partition."""
        return [node for node in self.nodes.values() if partition in node.partitions]

    def named(self, names: Iterable[str]) -> list[Partition]:
        """Return the partitions of these names that exist; the default one where no name is given."""
        wanted = list(names) or [self.default_partition or ""]
        return [self.partitions[name] for name in wanted if name in self.partitions]


def read_cluster(timeout_s: float = 60.0) -> Cluster:
    """Ask the controller for partitions, nodes and settings; empty where it does not answer."""
    partitions = [_partition(pairs(line)) for line in _lines("partition", timeout_s)]
    if not partitions:
        return Cluster({}, {})
    nodes = [_node(pairs(line)) for line in _lines("node", timeout_s)]
    settings = {}
    for line in run(["scontrol", "show", "config"], timeout_s).out.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            settings[key.strip()] = value.strip()
    return Cluster({p.name: p for p in partitions}, {n.name: n for n in nodes}, settings)


def gpus(gres: str) -> dict[str, int]:
    """Return the GPUs of a node by model (empty name: no model is given) from its ``Gres``."""
    found: dict[str, int] = {}
    for model, count in _GPU.findall(re.sub(r"\([^)]*\)", "", gres)):
        found[model] = found.get(model, 0) + int(count or 1)
    return found


def without_private_configuration() -> dict[str, str]:
    """Return the environment of a job's own srun: the jobstep executor strips every SLURM_ variable."""
    return {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}


def _lines(kind: str, timeout_s: float) -> list[str]:
    answer = run(["scontrol", "--all", "--oneliner", "show", kind], timeout_s)
    first = {"partition": "PartitionName=", "node": "NodeName="}[kind]
    return [line for line in answer.out.splitlines() if line.startswith(first)]


def _names(text: str) -> frozenset[str]:
    return frozenset(name for name in text.split(",") if name not in _NOTHING)


def _all_or(text: str) -> frozenset[str] | None:
    return None if text.upper() == "ALL" or text in _NOTHING else _names(text)


def _partition(found: dict[str, str]) -> Partition:
    own = found.get("QoS", "")
    return Partition(
        name=found["PartitionName"],
        state=found.get("State", "UNKNOWN"),
        is_default=found.get("Default") == "YES",
        max_minutes=minutes(found.get("MaxTime", "")),
        max_mem_mb=whole(found.get("MaxMemPerNode", "")),
        max_cpus=whole(found.get("MaxCPUsPerNode", "")),
        accounts=_all_or(found.get("AllowAccounts", "ALL")),
        denied_accounts=_names(found.get("DenyAccounts", "")),
        qos=_all_or(found.get("AllowQos", "ALL")),
        default_minutes=minutes(found.get("DefaultTime", "")),
        own_qos=None if own in _NOTHING else own,
    )


def _node(found: dict[str, str]) -> Node:
    special = whole(found.get("MemSpecLimit", "")) or 0
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
