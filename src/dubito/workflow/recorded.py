"""Which settings Snakemake records with a result, and reruns it for.

Snakemake compares what a rule records as a whole, so that a key that a release adds would make campaigns of before
compute everything again. Such a key is recorded from the moment it is changed from its default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dubito.config import Config

NEW_KEYS: Final[Mapping[str, Any]] = {"labelling.labeller.failing_fraction": 0.0}
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


def reported_settings(config: Config) -> dict[str, Any]:
    """Return the settings whose change makes the reports be written again."""
    values = config.model_dump(
        mode="json",
        exclude={"resources": True, "labelling": {"labeller": {"device"}, "reuse_from": True, "checks": True}},
    )
    return _without_new_defaults(values, "")


def _without_new_defaults(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {
        key: _without_new_defaults(value, f"{where}{key}.") if isinstance(value, Mapping) else value
        for key, value in values.items()
        if not _is_new_default(f"{where}{key}", value)
    }


def _is_new_default(name: str, value: Any) -> bool:
    return name in NEW_KEYS and value == NEW_KEYS[name]
