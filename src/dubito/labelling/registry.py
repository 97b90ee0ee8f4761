"""The labellers by ``kind``. Third parties add theirs as entry points ``dubito.labellers``."""

from __future__ import annotations

from typing import cast

from dubito.config.base import Section
from dubito.core.plugins import Registry
from dubito.labelling.base import Labeller

LABELLERS = Registry(
    "labeller (labelling.labeller.kind)",
    {
        "pyscf": "dubito.labelling.pyscf_labeller:PyscfLabeller",
        "teacher": "dubito.labelling.teacher:TeacherLabeller",
        "dataset": "dubito.labelling.dataset_labeller:DatasetLabeller",
    },
    "dubito.labellers",
)


def make_labeller(config: Section, *, threads: int = 1) -> Labeller:
    """Make the labeller of a configuration section (``labelling.labeller``).

    Its class is called as ``Class(section, threads=…)``; threads never change a label.

    Raises
    ------
    ConfigError
        When no labeller has this kind.
    """
    return cast(Labeller, LABELLERS.load(str(getattr(config, "kind", "")))(config, threads=threads))
