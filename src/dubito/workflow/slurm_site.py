"""Before the first Slurm job: what the profile says fits the cluster, or one paragraph says what does not."""

from __future__ import annotations

import getpass
import re
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dubito.core.errors import EnvironmentFault, nearest
from dubito.core.slurm.accounts import read_associations
from dubito.core.slurm.cluster import Cluster, read_cluster
from dubito.core.slurm.features import is_constraint
from dubito.core.slurm.placeholders import is_placeholder
from dubito.workflow.escalation import SnakemakePlace
from dubito.workflow.profile_file import profile_place

_NAMES: Final = ("slurm_partition", "slurm_account", "constraint", "qos")
_NUMBERS: Final = ("mem_mb", "mem_mb_per_cpu", "runtime", "gpu", "cpus_per_task", "cpus_per_gpu", "nodes", "tasks")
# What they are called among the variables at the top of the shipped profiles.
_VARIABLES: Final = {"slurm_partition": "partition", "slurm_account": "account"}


def require_site(workflow: Any) -> None:
    """Raise EnvironmentFault unless jobs with the profile's settings can be submitted from here."""
    require_values(workflow)
    if shutil.which("sbatch") is None or shutil.which("squeue") is None:
        raise EnvironmentFault(
            "The profile submits jobs to Slurm, and there is no `sbatch` or `squeue` on this machine's PATH. Start on "
            "a login node of the cluster (perhaps after `module load slurm`), or run here without a cluster: "
            "snakemake --cores 2"
        )
    said = dict.fromkeys((name, str(value)) for _, name, value in _values(workflow) if name in _NAMES and value)
    cluster = read_cluster()
    if cluster.partitions:  # else an outage: the submission waits until it is over
        _require_partitions([value for name, value in said if name == "slurm_partition"], cluster)
        _require_gpus(workflow, cluster)
    _require_accounts([value for name, value in said if name == "slurm_account"])


def require_values(workflow: Any) -> None:
    """Raise EnvironmentFault when a setting of the profile was left to be filled in or is of the wrong kind."""
    for where, name, value in _values(workflow):
        text = "" if value is None else str(value).strip()
        place = profile_place(_VARIABLES.get(name, name))
        if name in _NAMES and is_placeholder(text):
            raise EnvironmentFault(
                f"`{name}` {where} still says '{text}'. Write what your cluster calls it {place}, or leave it empty "
                "for the cluster's default."
            )
        if name == "constraint" and text and not is_constraint(text):
            raise EnvironmentFault(
                f"`{name}` {where} is {text!r}, and features without spaces were expected, such as intel, intel&ib or "
                f"[intel|amd]. Mend it {place}."
            )
        if name in _NAMES and name != "constraint" and re.search(r"[\s\[\]{}]", text):
            raise EnvironmentFault(
                f"`{name}` {where} is {text!r}, and one name without spaces was expected. Mend it {place}."
            )
        if name in _NUMBERS and not _is_number(text, name):
            raise EnvironmentFault(
                f"`{name}` {where} is {text!r}, and a whole number was expected"
                f"{' (minutes)' if name == 'runtime' else ''}. Mend it {place}."
            )


def require_rules(workflow: Any) -> None:
    """Raise EnvironmentFault when the profile sets something for a rule that does not exist.

    Snakemake passes over it, and a GPU or the memory that was meant for the rule is never asked for. Called when all
    rules are known.
    """
    settings = getattr(workflow, "resource_settings", None)
    rules = sorted(rule.name for rule in workflow.rules)
    for key, name in (("set-resources", "overwrite_resources"), ("set-threads", "overwrite_threads")):
        unknown = [rule for rule in getattr(settings, name, None) or {} if rule not in rules]
        if not unknown:
            continue
        guess = nearest(unknown[0], rules)
        hint = f"Did you mean '{guess}'? " if guess else ""
        variable = " (or `gpu_rules`)" if key == "set-resources" else ""
        raise EnvironmentFault(
            f"`{key}`{variable} names the rule '{unknown[0]}', and there is none of that name. {hint}Rules: "
            f"{', '.join(rule for rule in rules if rule != 'all')}. Mend it "
            f"{profile_place('gpu_rules' if variable else None)}."
        )


def _is_number(text: str, name: str) -> bool:
    """Say whether text can be a number: Snakemake also takes `2h` for a time and expressions of `attempt`."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return True
    if name == "runtime" and re.fullmatch(r"(\d+(\.\d+)?\s*[a-z]+\s*)+", text):
        return True
    return bool(re.search(r"\b(attempt|input|threads|lambda|wildcards)\b", text)) or not text


def _values(workflow: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield the settings that the profile gives: where, name and value as written."""
    settings = getattr(workflow, "resource_settings", None)
    for name, value in _items(getattr(settings, "default_resources", None)):
        yield "of the default resources", name, value
    for rule, values in (getattr(settings, "overwrite_resources", None) or {}).items():
        for name, value in _items(values):
            yield f"of rule {rule}", name, value


def _items(values: Any) -> Iterator[tuple[str, Any]]:
    """Yield names and values as they were written, which Snakemake keeps as ``raw``."""
    if not isinstance(values, Mapping):
        return
    for name, resource in values.items():
        raw = getattr(resource, "raw", resource)
        yield str(name), raw.strip().strip("'\"") if isinstance(raw, str) else raw


def _require_partitions(wanted: list[str], cluster: Cluster) -> None:
    known = sorted(cluster.partitions)
    for partition in wanted:
        unknown = [name.strip() for name in partition.split(",") if name.strip() not in known]
        if unknown:
            raise EnvironmentFault(
                f"The profile asks for the partition '{unknown[0]}', and this cluster has: {', '.join(known)}. "
                f"Set `partition` (or `gpu_partition`) {profile_place('partition')} to one of them, or leave it empty "
                "for the default."
            )


def _require_gpus(workflow: Any, cluster: Cluster) -> None:
    """Refuse rules that ask for a GPU where there is none; each job would fail with sbatch's words."""
    place = SnakemakePlace(workflow, only_looks=True)
    lacking: dict[tuple[str, ...], list[str]] = {}
    for rule in getattr(workflow, "rules", ()):
        job = place.job(rule.name)
        names = tuple(partition.name for partition in cluster.named(job.partitions))
        if not job.gpus or not names or workflow.is_local(rule):
            continue
        if not any(node.suits(None, job.gpus, job.gpu_model) for name in names for node in cluster.nodes_of(name)):
            lacking.setdefault(names, []).append(rule.name)
    for names, rules in lacking.items():
        asked = place.job(rules[0])
        what = f"{asked.gpus} {asked.gpu_model or ''} GPU".replace("  ", " ")
        offers = sorted(
            {p for node in cluster.nodes.values() if node.gpu_count(asked.gpu_model) for p in node.partitions}
        )
        remedy = (
            f"Set `gpu_partition` {profile_place('gpu_partition')} to one that has: {', '.join(offers)}; or `gpus: 0`."
            if offers
            else f"No partition of this cluster has such: set `gpus: 0` {profile_place('gpus')}."
        )
        raise EnvironmentFault(
            f"{', '.join(rules)} ask{'s' if len(rules) == 1 else ''} for {what}, and no node of partition "
            f"{', '.join(names)} has {'it' if asked.gpus == 1 else 'as many'}. {remedy}"
        )


def _require_accounts(wanted: list[str]) -> None:
    user = getpass.getuser()
    known = sorted({entry.account for entry in (read_associations() if wanted else None) or []})
    if not known:
        return  # no accounting here, or none to be asked
    for account in wanted:
        if account.lower() not in {name.lower() for name in known}:
            raise EnvironmentFault(
                f"The profile gives the account '{account}', and {user} may use: {', '.join(known)}. Set `account` "
                f"{profile_place('account')} to one of them, or leave it empty for your default; an expired account "
                "is missing there."
            )
