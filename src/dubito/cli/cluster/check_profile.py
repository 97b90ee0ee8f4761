"""The profile itself: variables that were not filled in, settings that make a campaign hang."""

from __future__ import annotations

from dubito.cli.cluster.findings import Finding, fault, listed, ok, warning
from dubito.cli.cluster.plan import Plan, Request
from dubito.core.slurm.placeholders import is_placeholder

# Two Snakemake processes of 130 MB run in each job beside the work (measured, docs/cluster.md).
LEAST_MEM_MB = 500


def check_profile(plan: Plan) -> list[Finding]:
    """Look at what the profile says by itself."""
    found = [fault(text) for text in unfilled(plan) or plan.refused]
    if not plan.settings.get("jobs"):
        found.append(fault(f"{plan.file} sets no `jobs`: Snakemake wants to know how many to submit; add `jobs: 50`."))
    small = sorted({r.rule for r in plan.firsts() if r.mem_mb is not None and r.mem_mb < LEAST_MEM_MB})
    if small:
        found.append(
            fault(
                f"{listed(small)}: less than {LEAST_MEM_MB} MB asked for, and Snakemake itself takes 300 of them in "
                f"each job. Raise mem_mb in {plan.file} (set-resources or default-resources)."
            )
        )
    if plan.notes:
        found.append(warning("; ".join(plan.notes)))
    for rule, unknown in plan.unknown.items():
        found.append(warning(f"{rule}: {', '.join(unknown)} is known only when it runs; it is not checked"))
    summary = f"profile {plan.file}: executor {plan.executor}, at most {plan.settings.get('jobs')} jobs at a time"
    retries = plan.settings.get("retries") or 0
    return [ok(f"{summary}, {retries} retries"), *found]


def unfilled(plan: Plan) -> list[str]:
    """Return one message for each variable or resource that still holds a placeholder."""
    texts = []
    for name, value in plan.variables.items():
        if is_placeholder(value):
            texts.append(
                f"the profile variable '{name}' in {plan.file} is not filled in (found {value!r}). Write what your "
                f"cluster calls it there{_hint(name)}."
            )
    told = {str(value) for value in plan.variables.values() if is_placeholder(value)}
    seen = set()
    for request in plan.firsts():
        for key, value in _named(request).items():
            if value and is_placeholder(value) and value not in told and (key, value) not in seen:
                seen.add((key, value))
                texts.append(
                    f"{key} of {request.rule} in {plan.file} is not filled in (found {value!r}). Write what your "
                    f"cluster calls it there{_hint(key)}."
                )
    return texts


def _named(request: Request) -> dict[str, str | None]:
    return {
        "slurm_partition": request.partition,
        "slurm_account": request.account,
        "constraint": request.constraint,
        "qos": request.qos,
    }


def _hint(name: str) -> str:
    """Return the command that shows what can be written."""
    if "partition" in name:
        return ": `sinfo -s` lists the partitions"
    if "account" in name:
        return ": `sacctmgr show assoc user=$USER format=account` lists your accounts; '' where there are none"
    if "constraint" in name:
        return ": `sinfo -o '%f %N'` lists the features; '' for none"
    return ""
