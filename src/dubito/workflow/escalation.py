"""What a job asks for in an attempt: a guess from its work, doubled for what killed it before, cut to what there is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from dubito.core.logs import get_logger
from dubito.workflow.attempts import ATTEMPT_VARIABLE, Attempts, Need, key_of
from dubito.workflow.slurm_facts import Partitions, ended_as

log = get_logger(__name__)

# Snakemake asks with the wildcards and the input of a job.
Amount = int | Callable[[Any, Any], int]
_UNITS: Final[dict[Need, str]] = {"memory": "MB of memory", "time": "minutes"}


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

    def partition(self, rule: str) -> str | None:
        """Return the Slurm partition of a rule, None where none is named."""
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

    def partition(self, rule: str) -> str | None:
        """Return the partition that ``set-resources`` or ``default-resources`` of the profile name for a rule."""
        settings = self.workflow.resource_settings
        for named in (settings.overwrite_resources.get(rule), settings.default_resources):
            found = named.get("slurm_partition") if named else None
            if found is not None:
                return _text(found)
        return None

    def memory_given(self) -> int | None:
        """Return the memory that the driver requested for the job that this process runs, MB."""
        found = self.workflow.resource_settings.resources.get("mem_mb")
        text = "" if found is None else _text(found)
        return int(text) if text.isdigit() else None


def _text(value: Any) -> str:
    """Return a resource of Snakemake as it was written."""
    for name in ("raw", "value"):
        value = getattr(value, name, value)
    return str(value).strip("'\"")


class Requests:
    """Makes the functions for ``mem_mb`` and ``runtime`` of the rules of one campaign."""

    def __init__(self, folder: Path, place: Place) -> None:
        asks = place.is_driver and not place.only_looks
        self.place = place
        self.attempts = Attempts(folder, ended_as if asks else None)
        self.partitions = Partitions()
        self._warned: set[tuple[str, Need]] = set()

    def memory(self, rule: str, amount: Amount) -> Callable[..., int]:
        """Return a function for the memory of a rule, MB."""
        return self._function(rule, "memory", amount)

    def minutes(self, rule: str, amount: Amount) -> Callable[..., int]:
        """Return a function for the time limit of a rule, minutes."""
        return self._function(rule, "time", amount)

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
        """Return what the partition can give: a request beyond it would wait for ever."""
        limits = self.partitions.limits(self.place.partition(rule))
        most = limits.mem_mb if need == "memory" else limits.runtime_min
        if most is None or wanted <= most:
            return wanted
        if (rule, need) not in self._warned:
            self._warned.add((rule, need))
            log.info(
                "%s would ask for %d %s; its partition has %d, so it asks for that", rule, wanted, _UNITS[need], most
            )
        return most
