"""The samplers by name. Third parties add theirs as entry points ``dubito.samplers``."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from dubito.config.sampling import SamplingConfig
from dubito.core.errors import ConfigError, unknown_name
from dubito.sampling.base import Sampler

SAMPLERS = {"langevin": "dubito.sampling.langevin:LangevinSampler"}
ENTRY_POINT_GROUP = "dubito.samplers"


def known_samplers() -> dict[str, str]:
    """Return every sampler's name and where its class is."""
    return SAMPLERS | {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}


def sampler_class(name: str) -> type[Sampler]:
    """Return the class of a sampler.

    Raises
    ------
    ConfigError
        When no sampler has this name.
    """
    # Entry points are looked through only for names that are not dubito's own.
    where = SAMPLERS.get(name) or known_samplers().get(name)
    if where is None:
        raise ConfigError(unknown_name("sampler", name, known_samplers()))
    module, _, attribute = where.partition(":")
    found: type[Sampler] = getattr(import_module(module), attribute)
    return found


def make_sampler(config: SamplingConfig) -> Sampler:
    """Return the configured sampler."""
    return sampler_class(config.sampler.kind)(config.sampler, config.sanity)
