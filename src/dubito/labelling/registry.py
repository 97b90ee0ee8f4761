"""The labellers that exist, by the ``kind`` of the configuration; imported on first use."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, cast

from dubito.config.base import Section
from dubito.core.errors import ConfigError, unknown_name
from dubito.labelling.base import Labeller

LABELLERS: dict[str, str] = {
    "pyscf": "dubito.labelling.pyscf_labeller:PyscfLabeller",
    "teacher": "dubito.labelling.teacher:TeacherLabeller",
    "dataset": "dubito.labelling.dataset_labeller:DatasetLabeller",
}
ENTRY_POINT_GROUP = "dubito.labellers"


def known_labellers() -> dict[str, str]:
    """Return labellers by kind as ``module:Class``; those of other packages come from entry points."""
    found = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    return found | LABELLERS


def load_labeller(kind: str) -> Any:
    """Import the class of a labeller.

    Raises
    ------
    ConfigError
        When no labeller has this name.
    """
    known = known_labellers()
    if kind not in known:
        raise ConfigError("labelling.labeller.kind: " + unknown_name("labeller", kind, known))
    module, _, name = known[kind].partition(":")
    return getattr(import_module(module), name)


def make_labeller(config: Section, *, threads: int = 1) -> Labeller:
    """Make the labeller of a configuration section (``labelling.labeller``).

    Its class is called as ``Class(section, threads=…)``; threads never change a label.
    """
    return cast(Labeller, load_labeller(str(getattr(config, "kind", "")))(config, threads=threads))
