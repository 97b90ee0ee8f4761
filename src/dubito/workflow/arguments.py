"""From the files and params of a Snakemake job to the keyword arguments of a stage.

The names of a rule's inputs, outputs and params are the names of the stage's arguments; the annotations
of the stage say what each becomes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

# Params that serve Snakemake's rerun triggers: the version of the stage, which few stages ask for, and
# settings whose change counts where the stage is given a whole section.
_NOT_AN_ARGUMENT = frozenset({"stage", "rerun_for"})


def stage_arguments(run: Callable[..., str], job: Any) -> dict[str, Any]:
    """Return the keyword arguments of ``run`` for one job (Snakemake's ``snakemake`` object).

    Inputs, wildcards, threads and the number of GPUs (``gpus``) are passed where the stage asks for them; outputs
    and params always are.

    Raises
    ------
    TypeError
        When the rule names something the stage doesn't take, or leaves out something it needs.
    """
    taken = inspect.signature(run).parameters
    found: dict[str, Any] = {"threads": job.threads, "gpus": gpus_of(job), **dict(job.wildcards.items())}
    found = {name: value for name, value in found.items() if name in taken}
    # An input may be there for the order alone, or for a param made from it; outputs and params must be used.
    found |= {name: value for name, value in job.input.items() if name in taken}
    for group in (job.output, job.params):
        found |= {name: value for name, value in group.items() if name in taken or name not in _NOT_AN_ARGUMENT}
    return convert_arguments(run, found)


def gpus_of(job: Any) -> int:
    """Return how many GPUs a job was given: its resource ``gpu``."""
    return int(job.resources.get("gpu", 0))


def convert_arguments(run: Callable[..., str], found: Mapping[str, Any]) -> dict[str, Any]:
    """Convert values to what the annotations of ``run`` ask for.

    Raises
    ------
    TypeError
        When names don't agree with the signature.
    """
    hints = get_type_hints(run)
    signature = inspect.signature(run)
    needed = {name for name, p in signature.parameters.items() if p.default is inspect.Parameter.empty}
    surplus, missing = sorted(set(found) - set(signature.parameters)), sorted(needed - set(found))
    if surplus or missing:
        raise TypeError(
            f"the rule and {run.__module__}.run disagree: not taken by the stage: {surplus or 'nothing'}; "
            f"missing in the rule: {missing or 'nothing'}"
        )
    return {name: convert(value, hints.get(name, Any)) for name, value in found.items()}


def convert(value: Any, annotation: Any) -> Any:
    """Convert one value: paths, lists, numbers from wildcards, configuration sections from mappings."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return _convert_union(value, get_args(annotation))
    if origin is list:
        (inner,) = get_args(annotation)
        items = [value] if isinstance(value, str | Path) else list(value)
        return [convert(item, inner) for item in items]
    if isinstance(annotation, type) and hasattr(annotation, "model_validate"):
        return value if isinstance(value, annotation) else annotation.model_validate(value)
    if annotation in (int, float, str, Path):
        return annotation(_single(value))
    return value


def _convert_union(value: Any, options: tuple[Any, ...]) -> Any:
    """Convert to ``X | None``: no file at all (an empty list) means None."""
    if value is None or (not isinstance(value, str | Mapping) and hasattr(value, "__len__") and not len(value)):
        return None
    inner = [option for option in options if option is not NoneType]
    return convert(value, inner[0]) if len(inner) == 1 else value


def _single(value: Any) -> Any:
    """Return the only item of a list of one, as Snakemake gives where an input function returned a list."""
    if isinstance(value, list | tuple) and len(value) == 1:
        return value[0]
    return value
