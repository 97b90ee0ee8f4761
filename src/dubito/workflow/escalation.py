"""What a job asks for in an attempt: a guess from its work, doubled for what killed it before, cut to what there is."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from dubito.core.logs import get_logger
from dubito.core.slurm.limits import Job, Kind, gpus_asked, split_names
from dubito.workflow.attempts import ATTEMPT_VARIABLE, USUAL_WARNING_MIN, Attempts, Need, key_of
from dubito.workflow.slurm_facts import KnownSite, ended_as
from dubito.workflow.submissions import Submissions

log = get_logger(__name__)

# Snakemake asks with the wildcards and the input of a job.
Amount = int | Callable[[Any, Any], int]
_UNITS: Final[dict[Need, str]] = {"memory": "MB of memory", "time": "minutes"}
_KINDS: Final[dict[Need, Kind]] = {"memory": "mem_mb", "time": "minutes"}
# Slurm looks at limits once a minute and may warn a job so much sooner than it was told to, seconds.
_SOONER_S: Final = 60
_SIGNAL: Final = re.compile(r"--signal[=\s]+['\"]?(?:[RB]+:)?\w+(?:@(\d+))?")


class Place(Protocol):
    """Where a Snakemake process is and what it was told.

    Attributes
    ----------
    is_driver : whether this is the process that plans, not a job on a node
    only_looks : whether it was started to look (a dry run, ``--summary``), and writes nothing
    runs_here : whether jobs run on this machine
    """

    is_driver: bool
    only_looks: bool

    @property
    def runs_here(self) -> bool: ...

    def job(self, rule: str) -> Job:
        """Return what decides where the jobs of a rule can run and under whose limits."""
        ...

    def warning_min(self) -> float:
        """Return how long before its time limit a job is warned at most, minutes."""
        ...

    def memory_given(self) -> int | None:
        """Return the memory (MB) that this process, a job on a node, was given; None where that is not known."""
        ...


class SnakemakePlace:
    """The place of a Snakemake process, from its ``workflow``; asked late, when executor and profile are known."""

    def __init__(self, workflow: Any, *, only_looks: bool) -> None:
        self.workflow = workflow
        self.is_driver: bool = workflow.is_main_process
        self.only_looks = only_looks

    @property
    def runs_here(self) -> bool:
        """Whether jobs run on this machine."""
        return bool(self.workflow.local_exec)

    def job(self, rule: str) -> Job:
        """Return what ``set-resources`` or ``default-resources`` of the profile say of a rule."""
        gpu = self._said(rule, "gpu")
        count, model = gpus_asked(
            self._own_gpus(rule) if gpu is None else gpu, self._said(rule, "gpu_model"), self._said(rule, "gres")
        )
        qos = getattr(getattr(self.workflow, "executor_settings", None), "qos", None) or self._said(rule, "qos")
        return Job(
            partitions=split_names(self._said(rule, "slurm_partition")),
            account=self._said(rule, "slurm_account"),
            qos=qos,
            constraint=self._said(rule, "constraint"),
            gpus=count,
            gpu_model=model,
        )

    def _said(self, rule: str, name: str) -> str | None:
        """Return a resource of a rule as the profile gives it, None where it says nothing."""
        settings = self.workflow.resource_settings
        for named in (settings.overwrite_resources.get(rule), settings.default_resources):
            found = named.get(name) if named else None
            text = "" if found is None else _text(found)
            if text:
                return text
        return None

    def _own_gpus(self, rule: str) -> object:
        """Return the GPUs that a rule asks for by itself."""
        try:
            resource = self.workflow.get_rule(rule).resources.get("gpu")
            return None if resource is None else resource.evaluate(None).value
        except Exception:  # of a rule that can't tell without a job
            return None

    def warning_min(self) -> float:
        """Return how long before its time limit a job is warned at most (``--signal`` in ``slurm_extra``), minutes."""
        settings = self.workflow.resource_settings
        overwritten = getattr(settings, "overwrite_resources", None) or {}
        found = [named.get("slurm_extra") for named in (settings.default_resources, *overwritten.values()) if named]
        seconds = [
            int(number or 60) for extra in found if extra is not None for number in _SIGNAL.findall(_text(extra))
        ]
        return max([USUAL_WARNING_MIN, *((number + _SOONER_S) / 60 for number in seconds)])

    def memory_given(self) -> int | None:
        """Return the memory that the driver requested for the job that this process runs, MB."""
        found = self.workflow.resource_settings.resources.get("mem_mb")
        text = "" if found is None else _text(found)
        return int(text) if text.isdigit() else None


def _text(value: Any) -> str:
    """Return a resource of Snakemake as it was written; empty for one without a value."""
    for name in ("raw", "value"):
        value = getattr(value, name, value)
    return "" if value is None else str(value).strip("'\"")


class Requests:
    """Makes the functions for ``mem_mb`` and ``runtime`` of the rules of one campaign."""

    def __init__(self, folder: Path, place: Place, submissions: Submissions | None = None) -> None:
        asks = place.is_driver and not place.only_looks
        self.place = place
        warning_min = place.warning_min()
        ask = functools.partial(ended_as, warning_min=warning_min)
        self.attempts = Attempts(folder, ask if asks else None, submissions, warning_min)
        self.site = KnownSite()
        self._warned: set[tuple[str, Need]] = set()

    def memory(self, rule: str, amount: Amount) -> Callable[..., int]:
        """Return a function for the memory of a rule, MB."""
        return self._function(rule, "memory", amount)

    def minutes(self, rule: str, amount: Amount) -> Callable[..., int]:
        """Return a function for the time limit of a rule, minutes."""
        return self._function(rule, "time", amount)

    def adopt(self, workflow: Any) -> None:
        """Take the memory and time that the profile sets for a rule as first guesses, which deaths double as others.

        Only numbers: an expression (of ``attempt``, say) is the profile's own way to ask for more. Called when the
        rules are known; Snakemake has by then put the numbers in place of our functions.
        """
        for rule in workflow.rules:
            given = workflow.resource_settings.overwrite_resources.get(rule.name) or {}
            for name, make in (("mem_mb", self.memory), ("runtime", self.minutes)):
                resource = rule.resources.get(name) if _names(given, name) else None
                if resource is None or resource.is_evaluable() or not isinstance(resource.value, int):
                    continue
                rule.resources[name] = make(rule.name, resource.value)

    def _function(self, rule: str, need: Need, amount: Amount) -> Callable[..., int]:
        def get(wildcards: Any, input: Any, attempt: int) -> int:
            return self.amount(rule, need, amount, wildcards, input, attempt)

        return get

    def amount(self, rule: str, need: Need, amount: Amount, wildcards: Any, files: Any, attempt: int) -> int:
        """Return what one job asks for.

        On this machine it grows with the attempt, and nobody is asked. A job on a node was given its memory already.
        """
        if not self.place.is_driver:
            # For the script, which Snakemake does not tell.
            os.environ[ATTEMPT_VARIABLE] = str(attempt)
            given = self.place.memory_given() if need == "memory" else None
            if given is not None:
                return given
        guess = amount if isinstance(amount, int) else amount(wildcards, files)
        if self.place.is_driver and self.place.runs_here:
            return guess * attempt
        wanted = guess * 2 ** self.attempts.doublings(need, key_of(rule, dict(wildcards.items())), attempt)
        return self._cut(rule, need, wanted) if self.place.is_driver else wanted

    def _cut(self, rule: str, need: Need, wanted: int) -> int:
        """Return what a job of the rule can get: a request beyond it would be refused or wait for ever."""
        most = self.site.most(_KINDS[need], self.place.job(rule))
        if most is None or wanted <= most.amount:
            return wanted
        if (rule, need) not in self._warned:
            self._warned.add((rule, need))
            log.info(
                "%s would ask for %d %s; %s allows %d, so it asks for that", rule, wanted, _UNITS[need], most.by,
                most.amount,
            )  # fmt: skip
        return most.amount


def _names(given: Any, name: str) -> bool:
    """Say whether a profile sets a resource, also in Snakemake's other spellings (``mem: 8GB``, ``mem_mib``)."""
    spellings = ("mem_mb", "mem_mib", "mem") if name == "mem_mb" else (name,)
    return any(given.get(spelling) is not None for spelling in spellings)
