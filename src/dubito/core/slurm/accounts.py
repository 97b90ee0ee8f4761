"""Accounts and qualities of service: whose they are, whether they are closed, and what one job may have under them."""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from dubito.core.slurm.asking import minutes, run, whole

_CLOSING = ("MaxJobs", "MaxSubmitJobs", "GrpJobs", "GrpSubmitJobs")
_ASSOCIATION = ("Account", "User", "Partition", "QOS", *_CLOSING, "GrpTRESMins", "DefaultQOS", "MaxWall", "MaxTRES",
                "MaxTRESPerNode")  # fmt: skip
_QOS = ("Name", "Flags", "MaxWall", "MaxTRES", "MaxTRESPerNode", "MaxSubmitPU", "MaxSubmitPA", "GrpSubmit")
_UNITS = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


@dataclass(frozen=True)
class Caps:
    """The most that one job, or one user, may have; None: not limited here.

    Attributes
    ----------
    minutes : time limit of a job
    mem_mb, cpus, gpus : of a job on one node
    submitted : jobs in the queue at the same time
    """

    minutes: float | None = None
    mem_mb: int | None = None
    cpus: int | None = None
    gpus: int | None = None
    submitted: int | None = None


@dataclass(frozen=True)
class Association:
    """One account of this user; ``closed`` names a limit of 0, with which nothing starts."""

    account: str
    partition: str | None
    qos: frozenset[str]
    closed: str | None
    default_qos: str | None = None
    caps: Caps = field(default_factory=Caps)


@dataclass(frozen=True)
class Qos:
    """A quality of service."""

    name: str
    flags: frozenset[str]
    caps: Caps


@dataclass(frozen=True)
class Accounts:
    """What accounting knows of this user: associations, all qualities of service, the account that is the default."""

    associations: tuple[Association, ...]
    qos: dict[str, Qos]
    default: str | None = None

    def of(self, account: str | None, partition: str | None) -> Association | None:
        """Return the association that a job is under."""
        name = (account or self.default or "").lower()
        mine = [a for a in self.associations if a.account.lower() == name and a.partition in (None, partition)]
        return max(mine, key=lambda a: a.partition is not None, default=None)

    def qos_of(self, named: str | None, association: Association | None) -> Qos | None:
        """Return the quality of service that a job is under: the one named, else the default of its association."""
        if named is None and association is not None:
            only = next(iter(association.qos)) if len(association.qos) == 1 else None
            named = association.default_qos or only or ("normal" if "normal" in association.qos else None)
        return self.qos.get(named or "")


def read_associations(accounts: Iterable[str] = ()) -> list[Association] | None:
    """Return the accounts of this user; None when the cluster does not tell.

    Limits of ``accounts`` as a whole count too, since a site closes an account there or at its users. The limits of
    one job are inherited by users, and sacctmgr shows them so.
    """
    mine = _rows(_ASSOCIATION, ["assoc", "where", f"user={getpass.getuser()}"])
    if mine is None:
        return None
    whole_account = [
        row
        for name in accounts
        for row in _rows(_ASSOCIATION, ["assoc", "where", f"account={name}"]) or []
        if not row["User"]
    ]
    shut = {row["Account"]: _closed(row) for row in whole_account}
    return [
        Association(
            account=row["Account"],
            partition=row["Partition"] or None,
            qos=frozenset(name for name in row["QOS"].split(",") if name),
            closed=_closed(row) or shut.get(row["Account"]),
            default_qos=row["DefaultQOS"] or None,
            caps=_caps(row, "MaxSubmitJobs"),
        )
        for row in mine
    ]


def read_accounts(accounts: Iterable[str] = ()) -> Accounts | None:
    """Return what accounting knows of this user; None when the cluster does not tell."""
    associations = read_associations(accounts)
    if associations is None:
        return None
    rows = _rows(_QOS, ["qos"]) or []
    qos = {
        row["Name"]: Qos(
            row["Name"],
            frozenset(row["Flags"].split(",")) - {""},
            _caps(row, "MaxSubmitPU", "MaxSubmitPA", "GrpSubmit"),
        )
        for row in rows
    }
    return Accounts(tuple(associations), qos, _default_account(associations))


def _default_account(associations: list[Association]) -> str | None:
    names = {entry.account for entry in associations}
    if len(names) == 1:
        return names.pop()
    answer = run(["sacctmgr", "-nP", "show", "user", getpass.getuser(), "format=DefaultAccount"])
    return answer.out.strip() or None if answer.rc == 0 else None


def _rows(keys: Iterable[str], what: list[str]) -> list[dict[str, str]] | None:
    names = list(keys)
    answer = run(["sacctmgr", "-nP", "show", *what, f"format={','.join(names)}"])
    if answer.rc != 0:
        return None
    rows = [line.split("|") for line in answer.out.splitlines()]
    return [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)]


def _closed(row: dict[str, str]) -> str | None:
    """Return the limit that lets nothing start: how sites close an account whose allocation has expired."""
    for key in _CLOSING:
        if row.get(key) == "0":
            return f"{key}=0"
    spent = re.search(r"\b(cpu|billing|node)=0(?:,|$)", row.get("GrpTRESMins", ""))
    return f"GrpTRESMins={spent.group(0).rstrip(',')}" if spent else None


def _caps(row: dict[str, str], *submitted: str) -> Caps:
    """Return the limits of a row; jobs have one node, so those per node and per job are alike."""
    tres = [amounts(row["MaxTRES"]), amounts(row["MaxTRESPerNode"])]

    def least(name: str) -> int | None:
        return min((found[name] for found in tres if name in found), default=None)

    waiting = [number for key in submitted if (number := whole(row[key])) is not None]
    return Caps(minutes(row["MaxWall"]), least("mem"), least("cpu"), least("gres/gpu"), min(waiting, default=None))


def amounts(tres: str) -> dict[str, int]:
    """Return trackable resources by name; memory in MB.

    Examples
    --------
    >>> amounts("cpu=4,mem=5G,gres/gpu=1")
    {'cpu': 4, 'mem': 5120, 'gres/gpu': 1}
    """
    found = {}
    for name, number, unit in re.findall(r"([\w/:.-]+)=(\d+(?:\.\d+)?)([KMGT]?)", tres):
        found[name] = int(float(number) * _UNITS.get(unit or "M", 1.0)) if name == "mem" else int(float(number))
    return found
