"""Before the first Slurm job: what the profile says fits the cluster, or one paragraph says what does not."""

from __future__ import annotations

import getpass
import re
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dubito.core.errors import EnvironmentFault
from dubito.workflow.slurm_words import ask

WHERE: Final = "at the top of profiles/slurm/config.yaml"
# Words that stand in examples for something to be filled in.
_PLACEHOLDER: Final = re.compile(r"(?i)^(<.*>|your[_ -].*|todo|fixme|change[_ -]?me|xxx+|\?+)$")
_NAMES: Final = ("slurm_partition", "slurm_account", "constraint", "qos")
_NUMBERS: Final = ("mem_mb", "mem_mb_per_cpu", "runtime", "gpu", "cpus_per_task", "cpus_per_gpu", "nodes", "tasks")


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
    _require_partitions([value for name, value in said if name == "slurm_partition"])
    _require_accounts([value for name, value in said if name == "slurm_account"])


def require_values(workflow: Any) -> None:
    """Raise EnvironmentFault when a setting of the profile was left to be filled in or is of the wrong kind."""
    for where, name, value in _values(workflow):
        text = "" if value is None else str(value).strip()
        if name in _NAMES and _PLACEHOLDER.match(text):
            raise EnvironmentFault(
                f"`{name}` {where} still says '{text}'. Write what your cluster calls it {WHERE}, or leave it empty "
                "for the cluster's default."
            )
        if name in _NAMES and re.search(r"[\s\[\]{}]", text):
            raise EnvironmentFault(
                f"`{name}` {where} is {text!r}, and one name without spaces was expected. Mend it {WHERE}."
            )
        if name in _NUMBERS and not _is_number(text, name):
            raise EnvironmentFault(
                f"`{name}` {where} is {text!r}, and a whole number was expected"
                f"{' (minutes)' if name == 'runtime' else ''}. Mend it {WHERE}."
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


def _require_partitions(wanted: list[str]) -> None:
    code, text, _ = ask(["sinfo", "--noheader", "--all", "--format=%R"])
    known = sorted({line.strip() for line in text.splitlines() if line.strip()})
    if code != 0 or not known:
        return  # an outage: the submission waits until it is over
    for partition in wanted:
        unknown = [name for name in partition.split(",") if name not in known]
        if unknown:
            raise EnvironmentFault(
                f"The profile asks for the partition '{unknown[0]}', and this cluster has: {', '.join(known)}. "
                f"Set `partition` (or `gpu_partition`) {WHERE} to one of them, or leave it empty for the default."
            )


def _require_accounts(wanted: list[str]) -> None:
    user = getpass.getuser()
    code, text, _ = ask(["sacctmgr", "--noheader", "--parsable2", "list", "assoc", f"user={user}", "format=account"])
    known = sorted({line.strip() for line in text.splitlines() if line.strip()})
    if code != 0 or not known:
        return  # no accounting here, or none to be asked
    for account in wanted:
        if account.lower() not in {name.lower() for name in known}:
            raise EnvironmentFault(
                f"The profile gives the account '{account}', and {user} may use: {', '.join(known)}. Set `account` "
                f"{WHERE} to one of them, or leave it empty for your default; an expired account is missing there."
            )
