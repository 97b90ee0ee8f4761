"""What a campaign asks of a cluster: each rule, each attempt, as Snakemake reads workflow and profile."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dubito.core.errors import ConfigError, EnvironmentFault, nearest
from dubito.core.slurm.limits import Job, gpus_asked, split_names

LABEL_RULE = "label_structures"
# What the variables at the top of profiles/slurm are called as resources of Snakemake.
RESOURCES = {"partition": "slurm_partition", "account": "slurm_account"}


@dataclass(frozen=True)
class Request:
    """What one attempt of one rule asks for; None or 0 where the profile leaves it to the cluster.

    Attributes
    ----------
    mem_mb : MB for the job (``mem_mb_per_cpu`` is multiplied by the CPUs)
    runtime_min : minutes
    gpus : GPUs, of the model ``gpu_model`` where that is given
    extra : what the profile passes to sbatch as it stands (``slurm_extra``)
    """

    rule: str
    attempt: int
    cpus: int = 1
    mem_mb: int | None = None
    runtime_min: int | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    gpus: int = 0
    gpu_model: str | None = None
    extra: str = ""

    @property
    def partitions(self) -> list[str]:
        """The partitions named: Slurm takes several, and starts the job where it can first."""
        return list(split_names(self.partition))

    @property
    def job(self) -> Job:
        """What decides where it can run and under whose limits."""
        return Job(tuple(self.partitions), self.account, self.qos, self.constraint, self.gpus, self.gpu_model)

    def sbatch_options(self) -> list[str]:
        """Return the options of sbatch that ask for this, as the executor plugin would."""
        options = [f"--cpus-per-task={self.cpus}", *([] if self.gpus else ["--ntasks=1"])]
        named = {
            "partition": self.partition,
            "account": (self.account or "").replace(",", " ").split(maxsplit=1)[0] if self.account else None,
            "qos": self.qos,
            "constraint": self.constraint,
            "reservation": self.reservation,
            "mem": f"{self.mem_mb}M" if self.mem_mb else None,
            "time": self.runtime_min,
            "gpus": f"{self.gpu_model}:{self.gpus}" if self.gpus and self.gpu_model else self.gpus or None,
        }
        return options + [f"--{key}={value}" for key, value in named.items() if value] + shlex.split(self.extra)


@dataclass(frozen=True)
class Plan:
    """The requests of a campaign under a profile.

    Attributes
    ----------
    file : the profile that was read
    variables : its ``__variables__``, as written
    settings : jobs, retries, latency_wait, max_status_checks_per_second; ``cluster``: those of the executor plugin
    requests : every rule that is submitted, every attempt
    unknown : rule -> resources that only a real job can tell
    refused : what a start would refuse of the profile, in its words
    notes : what the workflow says of its requests, such as one that it cut to a limit
    devices : rule -> where the configuration wants it to run (cpu, cuda, auto), for those that can use a GPU
    """

    executor: str
    file: str
    variables: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    requests: tuple[Request, ...] = ()
    unknown: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    devices: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    def place_of(self, *keys: str) -> str:
        """Return where a person changes something: the variables at the top of the profile, where it has them."""
        names = [key for key in keys if key in self.variables]
        if names:
            said = " or ".join(f"`{name}`" for name in names)
            return f"{said} at the top of {self.file}"
        return f"`{RESOURCES.get(keys[0], keys[0])}` in {self.file}"

    @property
    def cluster(self) -> Mapping[str, Any]:
        """The settings of the executor plugin."""
        found: Mapping[str, Any] = self.settings.get("cluster") or {}
        return found

    def first(self, rule: str) -> Request | None:
        """Return the first attempt of a rule."""
        return next((r for r in self.requests if r.rule == rule and r.attempt == 1), None)

    def firsts(self) -> list[Request]:
        """Return the first attempt of every rule."""
        return [r for r in self.requests if r.attempt == 1]


def read_plan(config: Path, profile: str, snakefile: Path) -> Plan:
    """Let Snakemake read the profile, the workflow and the configuration; return what it would ask for.

    Raises
    ------
    ConfigError
        When the profile or its variables can't be read, with what Snakemake says of it.
    EnvironmentFault
        When the profile is not found.
    """
    _require_profile(profile)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "requests.json")
        command = [sys.executable, "-m", "dubito.workflow.requests", str(output), "--profile", profile]
        answer = subprocess.run(
            [*command, "--configfile", str(config), "--snakefile", str(snakefile)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if answer.returncode or not output.exists():
            said = said_by_snakemake(answer.stdout + answer.stderr)
            raise ConfigError(
                f"Snakemake can't use the profile '{profile}': {said}. Mend the profile (see profiles/README.md), then "
                "run this again."
            )
        return plan_of(json.loads(output.read_text()))


def plan_of(found: Mapping[str, Any]) -> Plan:
    """Return the plan from the answer of :mod:`dubito.workflow.requests`."""
    profile: Mapping[str, Any] = found["profiles"][-1] if found["profiles"] else {"name": "", "file": ""}
    own = found["settings"].get("cluster") or {}
    requests = [
        _request(entry["rule"], attempt, resources, own)
        for entry in found["rules"]
        for attempt, resources in enumerate(entry["attempts"], 1)
    ]
    return Plan(
        executor=found["executor"],
        file=str(profile["file"] or profile["name"]),
        variables=profile.get("variables") or {},
        settings=found["settings"],
        requests=tuple(requests),
        unknown={entry["rule"]: entry["unknown"] for entry in found["rules"] if entry["unknown"]},
        devices=found.get("devices") or {},
        notes=tuple(found.get("notes") or ()),
        refused=tuple(found.get("refused") or ()),
    )


def distinct(requests: Iterable[Request]) -> dict[tuple[str, ...], list[Request]]:
    """Return requests by what they ask for, so that the cluster is asked once for equal ones."""
    found: dict[tuple[str, ...], list[Request]] = {}
    for request in requests:
        found.setdefault(tuple(request.sbatch_options()), []).append(request)
    return found


def said_by_snakemake(text: str) -> str:
    """Return the reason from what Snakemake printed: the line that names an error, else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for mark in ("dubito:", "error:", "Error"):
        found = [k for k, line in enumerate(lines) if mark in line]
        if found:
            line, *after = lines[found[-1] :]
            said = line if mark == "Error" else line.partition(mark)[2].strip()
            # `ImportError in file "...", line 27:` has its reason on the next line.
            rest = after[0] if said.endswith(":") and after else ""
            return f"{said} {rest}".strip().rstrip(".")
    return lines[-1].rstrip(".") if lines else "it ended without a word"


def _request(rule: str, attempt: int, resources: Mapping[str, Any], own: Mapping[str, Any]) -> Request:
    gpus, model = gpus_asked(resources.get("gpu"), resources.get("gpu_model"), resources.get("gres"))
    cpus = max(1, _number(resources.get("cpus_per_task")) or _number(resources.get("threads")) or 1)
    per_cpu = _number(resources.get("mem_mb_per_cpu"))
    return Request(
        rule=rule,
        attempt=attempt,
        cpus=cpus,
        mem_mb=per_cpu * cpus if per_cpu else _number(resources.get("mem_mb")),
        runtime_min=_number(resources.get("runtime")),
        partition=_text(resources.get("slurm_partition")),
        account=_text(resources.get("slurm_account")),
        qos=_text(own.get("qos") or resources.get("qos")),
        constraint=_text(resources.get("constraint")),
        reservation=_text(own.get("reservation")),
        gpus=gpus,
        gpu_model=model,
        extra=_text(resources.get("slurm_extra")) or "",
    )


def _number(value: Any) -> int | None:
    """Return a resource as a whole number; None for nothing, 0, and what is no number (a start refuses that)."""
    try:
        return int(value) or None
    except (TypeError, ValueError):
        return None


def _text(value: Any) -> str | None:
    """Return a resource as text; None for what is empty."""
    text = "" if value is None else str(value).strip()
    return text or None


def _require_profile(profile: str) -> None:
    """Raise EnvironmentFault when a profile given by name or path is not there."""
    home = Path.home() / ".config" / "snakemake"
    places = [Path(profile), home / profile, Path("/etc/xdg/snakemake", profile)]
    for place in places:
        if place.is_file() or any(place.glob("config*.yaml")) or any(place.glob("profile*.yaml")):
            return
    inside = Path("profiles", profile)
    known = sorted({p.parent.name for p in [*Path().glob("profiles/*/config.yaml"), *Path().glob("*/config.yaml")]})
    guess = nearest(profile, known)
    if inside.is_dir():
        hint = f"Type --profile {inside}."
    elif guess:
        linked = any(Path(guess).glob("config*.yaml"))
        hint = f"Did you mean --profile {guess if linked else Path('profiles', guess)}?"
    else:
        hint = "Run this in a campaign folder (make one with `dubito new DIR`), or give the profile's path."
    raise EnvironmentFault(
        f"There is no profile '{profile}': looked for {profile}/config.yaml here ({Path.cwd()}), in {home} and in "
        f"/etc/xdg/snakemake. {hint}"
    )
