"""A sampler of another package, which adds it as an entry point ``dubito.samplers``."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from dubito.config.sampler_base import SamplerSection
from dubito.core.errors import unknown_name
from dubito.core.plugins import known_names

# Names only, so that reading a configuration imports no sampler; a test keeps them equal to the registry.
KNOWN_SAMPLERS = ("langevin", "biased_langevin", "adversarial", "normal_modes", "rattle", "dihedral_scan")


class PluginSamplerConfig(SamplerSection):
    """A sampler of another package: its settings are handed to it as they are."""

    kind: str = Field(
        description="The name of its entry point in the group dubito.samplers.",
        json_schema_extra={"not": {"enum": list(KNOWN_SAMPLERS)}},
    )
    settings: dict[str, Any] = Field({}, description="Its settings, which it checks itself.")
    n_jobs: int = Field(1, ge=1, description="Jobs (explore_structures).")
    n_candidates: int = Field(1000, ge=1, description="Candidates of a job, at most: time is asked for them.")
    n_evaluations: int = Field(10000, ge=1, description="Structures that a job predicts, at most: time, too.")

    @field_validator("kind")
    @classmethod
    def _installed(cls, value: str) -> str:
        known = known_names(KNOWN_SAMPLERS, "dubito.samplers")
        if value not in known:
            raise ValueError(unknown_name("sampler", value, known))
        return value

    @property
    def batch_size(self) -> int:
        """Not known: one."""
        return 1

    @property
    def n_rounds(self) -> int:
        """As the user said."""
        return self.n_evaluations

    @property
    def candidates_per_job(self) -> int:
        """As the user said."""
        return self.n_candidates

    @property
    def words(self) -> str:
        """Its name."""
        return self.kind
