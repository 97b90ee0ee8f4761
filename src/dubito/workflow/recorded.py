"""Which settings Snakemake records with a result, and reruns it for.

Snakemake compares what a rule records as a whole, so that a key that a release adds would make campaigns of before
compute everything again. Such a key is recorded from the moment it is changed from its default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dubito.config import Config

NEW_KEYS: Final[Mapping[str, Any]] = {
    "labelling.labeller.failing_fraction": 0.0,
    "sampling.more_samplers": [],
    "scoring.adaptive": False,
    "scoring.recall": 0.95,
    "scoring.decision": "selection",
    "scoring.top_fraction": None,
    "selection.min_control_labels": 20,
    "selection.min_accepted_fraction": 0.9,
    "selection.features": "fingerprints",
    "selection.stratify_by_sampler": False,
    "selection.max_score": None,
    "selection.skip_accepted": False,
    "sampling.sanity.spin_parity": True,
    "sampling.sanity.bond_graph": "any",
    "planning.target_force_rmse_ev_per_angstrom": None,
    "planning.worth_percent_per_100_labels": 5.0,
}
"""Keys that campaigns of before did not record, with the default that stands for them."""

# The same labels, wherever and with whatever effort they are made. Keys of effort that were recorded from the first
# stay so: without them campaigns of before would label anew.
_CHANGES_NO_LABEL: Final = ("device", "failing_fraction")


def labeller_settings(config: Config) -> dict[str, Any]:
    """Return the settings of the labeller whose change makes all batches be labelled again (from the cache, mostly)."""
    values = config.labelling.labeller.model_dump(mode="json")
    return {
        key: value
        for key, value in values.items()
        if key not in _CHANGES_NO_LABEL and not _is_new_default(f"labelling.labeller.{key}", value)
    }


def section_settings(config: Config, name: str) -> dict[str, Any]:
    """Return a section as it is recorded: without new keys at their default, which its reader completes."""
    return _without_new_defaults(config.model_dump(mode="json")[name], f"{name}.")


def exploring_settings(config: Config, job: int) -> dict[str, Any]:
    """Return what one exploring job is given, the sampler it runs and the sane region: what makes it run again.

    Keys as campaigns of one sampler recorded them before there could be more.
    """
    values = {
        "sampler": config.sampling.sampler_of_job(job).model_dump(mode="json"),
        "sanity": config.sampling.sanity.model_dump(mode="json"),
    }
    return _without_new_defaults(values, "sampling.")


def reported_settings(config: Config) -> dict[str, Any]:
    """Return the settings whose change makes the reports be written again."""
    values = config.model_dump(
        mode="json",
        exclude={"resources": True, "labelling": {"labeller": {"device"}, "reuse_from": True, "checks": True}},
    )
    return _without_new_defaults(values, "")


def _without_new_defaults(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Leave out new keys at their default, and sections that are empty without them: those are new themselves."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            inner = _without_new_defaults(value, f"{where}{key}.")
            if inner:
                kept[key] = inner
        elif not _is_new_default(f"{where}{key}", value):
            kept[key] = value
    return kept


def _is_new_default(name: str, value: Any) -> bool:
    return name in NEW_KEYS and value == NEW_KEYS[name]
