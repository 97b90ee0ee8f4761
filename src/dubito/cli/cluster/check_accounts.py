"""Accounts and qualities of service: whether this user may use what the profile names, and Slurm's own verdict."""

from __future__ import annotations

import getpass
import re
from collections.abc import Callable

from dubito.cli.cluster.findings import Finding, fault, listed, ok, warning
from dubito.cli.cluster.plan import Plan, Request, distinct
from dubito.core.errors import nearest
from dubito.core.slurm.accounts import Association
from dubito.core.slurm.asking import Answer, run
from dubito.core.slurm.cluster import Cluster
from dubito.core.slurm.limits import Site

# Requests of a campaign are few; a profile that gives every rule its own is still answered in seconds.
_MOST = 24


def check_accounts(plan: Plan, cluster: Cluster, known: list[Association] | None) -> list[Finding]:
    """Compare the accounts of the profile with those of this user."""
    wanted: dict[str, list[Request]] = {}
    for request in plan.firsts():
        for name in re.split(r"[,\s]+", request.account or ""):
            if name:
                wanted.setdefault(name, []).append(request)
    if not wanted:
        return [ok("no account is named: the cluster's default counts")] if cluster.has_accounting else []
    if not cluster.has_accounting:
        kind = cluster.settings.get("AccountingStorageType", "none")
        return [
            warning(
                f"account '{next(iter(wanted))}' is set in {plan.file}, but this cluster keeps no accounts "
                f"(AccountingStorageType={kind}): it counts for nothing"
            )
        ]
    if known is None:
        return [warning("sacctmgr does not tell your accounts; whether the account is valid is left to sbatch")]
    return [finding for name, requests in wanted.items() for finding in _account(plan, cluster, known, name, requests)]


def _account(
    plan: Plan, cluster: Cluster, known: list[Association], name: str, requests: list[Request]
) -> list[Finding]:
    rules = [r.rule for r in requests]
    mine = [entry for entry in known if entry.account.lower() == name.lower()]
    if not mine:
        accounts = sorted({entry.account for entry in known})
        guess = nearest(name, accounts)
        hint = f" Did you mean '{guess}'?" if guess else ""
        return [
            fault(
                f"account '{name}' is none of {getpass.getuser()}'s on this cluster: it is misspelt, or has expired or "
                f"been withdrawn.{hint} Yours: {listed(accounts, 20) or 'none'}. Set "
                f"{plan.place_of('account')}.",
                rules,
            )
        ]
    closed = [entry.closed for entry in mine if entry.closed]
    if len(closed) == len(mine):
        return [
            fault(
                f"account '{name}' is closed for {getpass.getuser()} ({listed(sorted(set(map(str, closed))))}): an "
                "allocation that has expired or is used up looks like this. Have it renewed, or set another "
                f"{plan.place_of('account')}.",
                rules,
            )
        ]
    found = [_forbidden(plan, cluster, name, request) for request in requests]
    return [finding for finding in dict.fromkeys(found) if finding] or [ok(f"account {name} is yours and open")]


def _forbidden(plan: Plan, cluster: Cluster, name: str, request: Request) -> Finding | None:
    """Return a fault where a partition does not take the account or the quality of service."""
    for partition in (cluster.partitions[p] for p in request.partitions if p in cluster.partitions):
        allowed = {a.lower() for a in partition.accounts} if partition.accounts is not None else None
        refused = {a.lower() for a in partition.denied_accounts}
        if (allowed is not None and name.lower() not in allowed) or name.lower() in refused:
            who = listed(sorted(partition.accounts or ()), 12) or "others"
            return fault(
                f"partition {partition.name} does not take account '{name}' (it takes: {who}). Change "
                f"{plan.place_of('account', 'partition')}.",
                [request.rule],
            )
    return None


def check_qos(plan: Plan, cluster: Cluster, known: list[Association] | None) -> list[Finding]:
    """Compare the qualities of service of the profile with those this user has."""
    mine = sorted({name for entry in known or [] for name in entry.qos})
    found = []
    for qos in sorted({request.qos for request in plan.firsts() if request.qos}):
        rules = [r.rule for r in plan.firsts() if r.qos == qos]
        if known and qos not in mine:
            guess = nearest(qos, mine)
            hint = f" Did you mean '{guess}'?" if guess else ""
            found.append(
                fault(
                    f"quality of service '{qos}' is not open to you.{hint} Yours: {listed(mine, 20) or 'none'}. Set "
                    f"{plan.place_of('qos')}.",
                    rules,
                )
            )
    return found


def check_submitted(plan: Plan, site: Site) -> list[Finding]:
    """Compare how many jobs the profile lets wait at the same time with how many may."""
    jobs = plan.settings.get("jobs")
    found = {limit for request in plan.firsts() if (limit := site.most_submitted(request.job)) is not None}
    least = min(found, key=lambda limit: limit.amount, default=None)
    # A limit of 0 is a closed account, which is told as that.
    if least is None or not str(jobs).isdigit() or not 0 < least.amount < int(str(jobs)):
        return []
    return [
        warning(
            f"{plan.file} keeps up to {jobs} jobs in the queue, and {least.by} lets you have {least.amount}: those "
            f"beyond are refused and tried again and again. Set {plan.place_of('jobs')} to {least.amount} at most."
        )
    ]


def check_verdicts(
    plan: Plan, stopped: frozenset[str] = frozenset(), ask: Callable[[list[str]], Answer] | None = None
) -> list[Finding]:
    """Let Slurm judge each distinct request (``sbatch --test-only``), but for the rules that are ``stopped``."""
    ask = ask or _test_only
    groups = distinct(request for request in plan.firsts() if request.rule not in stopped)
    found, n_taken = [], 0
    for options, requests in list(groups.items())[:_MOST]:
        answer, rules = ask(list(options)), [request.rule for request in requests]
        if answer.rc == 0:
            n_taken += 1
        else:
            said = re.sub(r"\b(sbatch: )?(error: )|allocation failure: ", "", answer.said)
            found.append(
                fault(
                    f"Slurm would refuse {listed(rules)}: {said}. It was asked with `sbatch --test-only "
                    f"{' '.join(options)}`; change what it objects to in {plan.file}.",
                    rules,
                )
            )
    if n_taken:
        found.append(ok(f"sbatch --test-only takes {n_taken} of {min(len(groups), _MOST)} different requests"))
    return found


def _test_only(options: list[str]) -> Answer:
    return run(["sbatch", "--test-only", *options, "--wrap", "true"], 60)
