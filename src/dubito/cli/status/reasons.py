"""Why a job waits, in words, and whether it can ever start (reasons: https://slurm.schedmd.com/job_reason_codes.html)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_WAITS = {
    "None": "was just submitted",
    "Priority": "waits behind jobs of higher priority",
    "Resources": "waits for resources",
    "Licenses": "waits for a licence",
    "Dependency": "waits for another job",
    "BeginTime": "waits for its start time",
    "Reservation": "waits for its reservation",
    "Cleaning": "is being cleaned up after",
    "Prolog": "is being prepared",
    "NodeDown": "waits for a node that is down",
    "PartitionDown": "waits: its partition is down",
    "PartitionInactive": "waits: its partition is closed",
    "ReqNodeNotAvail": "waits: its nodes are down, drained or reserved",
    "FrontEndDown": "waits: a front end is down",
    "JobArrayTaskLimit": "waits for other tasks of its array",
    "JobHeldUser": "is held: `scontrol release {id}` lets it go",
    "JobHeldAdmin": "is held by an administrator",
    "RaisedSignal": "waits after a signal",
    "SystemFailure": "waits: Slurm has a fault",
    "JobLaunchFailure": "could not be launched and is held: `scontrol release {id}` tries again",
    "launch failed requeued held": "could not be launched and is held: `scontrol release {id}` tries again",
}
_NEVER = {
    "AccountNotAllowed": "its account may not use this partition",
    "QOSNotAllowed": "its quality of service may not be used here",
    "BadConstraints": "no node has what it asks for",
    "DependencyNeverSatisfied": "waits for a job that failed",
    "InvalidAccount": "its account is not valid (`slurm_account` in the profile)",
    "InvalidQOS": "its quality of service is not valid (`slurm_qos` in the profile)",
    "PartitionNodeLimit": "asks for more nodes than its partition allows",
    "PartitionTimeLimit": "asks for more time than its partition allows",
    "AssocMaxWallDurationPerJobLimit": "asks for more time than the account may have",
    "QOSMaxWallDurationPerJobLimit": "asks for more time than the quality of service allows",
    "QOSMaxCpuPerJobLimit": "asks for more CPUs than the quality of service allows",
    "QOSMaxMemoryPerJob": "asks for more memory than the quality of service allows",
    "AssocMaxCpuPerJobLimit": "asks for more CPUs than the account may have",
    "AssocMaxMemPerJob": "asks for more memory than the account may have",
}
# By how they begin.
_KINDS = (
    ("AssocGrpCPUMin", "waits: the budget of the account is used up ({code})"),
    ("QOSGrpCPUMin", "waits: the budget of the quality of service is used up ({code})"),
    ("PartitionConfig", "waits: its partition does not take it as it is"),
    ("Nodes required", "waits: its nodes are down, drained or reserved"),
    ("QOS", "waits: a limit of the quality of service is reached ({code})"),
    ("Assoc", "waits: a limit of the account is reached ({code})"),
)
# Reasons that may hide a request no node can serve; Slurm itself does not say so.
_SUSPECT = ("PartitionConfig", "PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints", "Resources",
            "ReqNodeNotAvail", "Nodes required")  # fmt: skip
_MB = {"": 1.0, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


@dataclass(frozen=True)
class Node:
    """What one kind of node of a partition offers: CPUs, memory (MB), time limit (min, None: none)."""

    partition: str
    cpus: int
    memory_mb: int
    minutes: float | None


@dataclass(frozen=True)
class Request:
    """What a job asks for, as ``squeue`` prints it."""

    partition: str
    cpus: str
    memory: str
    limit: str


def is_held(reason: str) -> bool:
    """Say whether a job waits for its owner to let it go."""
    return reason.strip("()") in ("JobHeldUser", "JobLaunchFailure", "launch failed requeued held")


def needs_nodes(reason: str) -> bool:
    """Say whether only the nodes tell what a reason means."""
    return reason.strip("()").startswith(_SUSPECT)


def in_words(reason: str, request: Request, nodes: Sequence[Node]) -> tuple[str, bool]:
    """Return why a job waits, and whether it never can start."""
    reason = reason.strip("()")
    beyond = _beyond(request, nodes) if needs_nodes(reason) else None
    if beyond is not None:
        return f"can never start: asks for {beyond}", True
    code = reason.split(",")[0]
    if code in _NEVER:
        return f"can never start: {_NEVER[code]}", True
    if code in _WAITS:
        return _WAITS[code], False
    known = (words for start, words in _KINDS if code.startswith(start))
    return next(known, "waits ({code})").replace("{code}", code), False


def _beyond(request: Request, nodes: Sequence[Node]) -> str | None:
    """Say what a job asks for that no node of its partition has."""
    own = [node for node in nodes if node.partition in request.partition.split(",")]
    if not own:
        return None
    memory, cpus, minutes = memory_mb(request.memory), request.cpus, minutes_of(request.limit)
    most = max(node.memory_mb for node in own)
    if memory is not None and memory > most:
        return f"more memory than a node of '{request.partition}' has: {memory:.0f} of {most} MB"
    # A job may spread over nodes, but those of a campaign are one process each.
    if cpus.isdigit() and int(cpus) > max(node.cpus for node in own):
        return f"more CPUs than a node of '{request.partition}' has: {cpus} of {max(node.cpus for node in own)}"
    longest = [node.minutes for node in own]
    if minutes is not None and None not in longest and minutes > max(m for m in longest if m is not None):
        most_minutes = max(m for m in longest if m is not None)
        return f"more time than partition '{request.partition}' allows: {minutes:.0f} of {most_minutes:.0f} min"
    return None


def memory_mb(text: str) -> float | None:
    """Return an amount of memory as Slurm prints it (``2000M``, ``4G``, ``1.5T``) in MB."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)[cn]?", text)
    return None if found is None else float(found[1]) * _MB[found[2]]


def minutes_of(text: str) -> float | None:
    """Return a time limit as Slurm prints it (``1-02:00:00``, ``30:00``) in minutes; None: unlimited or unknown."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 1440.0 * days + 60 * hours + minutes + seconds / 60
