"""The most that one job can get: of its partition's limits and nodes, its quality of service and its account."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dubito.core.slurm.accounts import Accounts, Caps, read_accounts
from dubito.core.slurm.cluster import Cluster, Partition, read_cluster

Kind = Literal["minutes", "mem_mb", "cpus", "gpus"]
_NAMES: dict[Kind, str] = {"minutes": "MaxWall", "mem_mb": "MaxTRES", "cpus": "MaxTRES", "gpus": "MaxTRES"}


@dataclass(frozen=True)
class Limit:
    """An amount, and what sets it, such as ``partition cpu (MaxTime)``."""

    amount: int
    by: str


@dataclass(frozen=True)
class Job:
    """What decides where a job can run and under whose limits; empty and None: the cluster's default."""

    partitions: tuple[str, ...] = ()
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: int = 0
    gpu_model: str | None = None


@dataclass(frozen=True)
class Site:
    """A cluster, and what accounting knows of this user (None: nothing that counts)."""

    cluster: Cluster
    accounts: Accounts | None = None

    def most(self, kind: Kind, job: Job) -> Limit | None:
        """Return the limit of a job in the most generous of its partitions; None: none, or not known."""
        found = [self._in(partition, kind, job) for partition in self.cluster.named(job.partitions)]
        limits = [limit for limit in found if limit is not None]
        return max(limits, key=lambda limit: limit.amount) if limits and len(limits) == len(found) else None

    def by_account(self, partition: Partition | None, kind: Kind, job: Job) -> Limit | None:
        """Return the limit of a job by quality of service or account."""
        return next(
            (
                Limit(int(amount), f"{by} ({_NAMES[kind]})")
                for by, caps in self._caps(partition, job)
                if (amount := getattr(caps, kind)) is not None
            ),
            None,
        )

    def most_submitted(self, job: Job) -> Limit | None:
        """Return how many jobs such as this one may be in the queue at the same time."""
        found = [
            Limit(caps.submitted, f"{by} ({'MaxSubmitJobs' if by.startswith('account') else 'MaxSubmitPU'})")
            for partition in self.cluster.named(job.partitions)
            for by, caps in self._caps(partition, job)
            if caps.submitted is not None
        ]
        return min(found, key=lambda limit: limit.amount, default=None)

    def _caps(self, partition: Partition | None, job: Job) -> Iterator[tuple[str, Caps]]:
        """Yield who limits a job, in Slurm's order: the first who does counts.

        Notes
        -----
        Partition QOS, job QOS, association; the job's QOS first where it has the flag OverPartQOS
        (https://slurm.schedmd.com/resource_limits.html, "Hierarchy").
        """
        if self.accounts is None or not self.cluster.enforces_limits:
            return
        association = self.accounts.of(job.account, partition.name if partition else None)
        own = self.accounts.qos.get(partition.own_qos or "") if partition else None
        named = self.accounts.qos_of(job.qos, association)
        chosen = [own, named]
        if named is not None and "OverPartQOS" in named.flags:
            chosen.reverse()
        for qos in chosen:
            if qos is not None:
                yield f"QOS {qos.name}", qos.caps
        if association is not None:
            yield f"account {association.account}", association.caps

    def _in(self, partition: Partition, kind: Kind, job: Job) -> Limit | None:
        found = [self._by_partition(partition, kind, job), self.by_account(partition, kind, job)]
        return min((limit for limit in found if limit is not None), key=lambda limit: limit.amount, default=None)

    def _by_partition(self, partition: Partition, kind: Kind, job: Job) -> Limit | None:
        name = f"partition {partition.name}"
        if kind == "minutes":
            limit = partition.max_minutes
            return None if limit is None else Limit(int(limit), f"{name} (MaxTime)")
        if kind != "mem_mb":
            return None
        nodes = self.cluster.nodes_of(partition.name)
        suitable = [node.mem_mb for node in nodes if node.suits(job.constraint, job.gpus, job.gpu_model)]
        if not suitable:
            return None  # nothing helps; the check and sbatch say so
        largest = max(suitable)
        if partition.max_mem_mb is not None and 0 < partition.max_mem_mb < largest:
            return Limit(partition.max_mem_mb, f"{name} (MaxMemPerNode)")
        return Limit(largest, f"the largest suitable node of {name}")


def read_site(accounts: list[str] | None = None, timeout_s: float = 60.0) -> Site:
    """Ask for all that limits a job; empty where Slurm does not answer."""
    cluster = read_cluster(timeout_s)
    return Site(cluster, read_accounts(accounts or ()) if cluster.has_accounting else None)


def split_names(text: str | None) -> tuple[str, ...]:
    """Return the names of a list by commas, as ``--partition`` takes it."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def gpus_asked(gpu: object, model: object, gres: object) -> tuple[int, str | None]:
    """Return number and model of the GPUs that a rule asks for, as ``gpu`` or as ``gres: gpu:model:n``."""
    named = str(model or "").strip() or None
    number = str(gpu or "").strip()
    count = int(number) if number.isdigit() else 0
    if count or named:
        return count or 1, named
    name, *rest = str(gres or "").split(":")
    if name != "gpu":
        return 0, None
    return int(rest[-1]) if rest and rest[-1].isdigit() else 1, rest[0] if rest and not rest[0].isdigit() else None
