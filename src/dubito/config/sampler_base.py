"""What the settings of every sampler can say of its work, so that whoever plans asks no sampler for its kind."""

from __future__ import annotations

from abc import ABC, abstractmethod

from pydantic import ConfigDict

from dubito.config.base import Section

# In the JSON schema alone, by which editors tell the kinds apart: without a kind it is langevin.
NAMED = ConfigDict(json_schema_extra={"required": ["kind"]})


def positive_kelvin(value: list[float]) -> list[float]:
    """Return temperatures as they are, unless one is out of range."""
    if any(t <= 0 or t > 20000 for t in value):
        raise ValueError(f"temperatures must lie between 0 and 20000 K, found {value}")
    return value


class SamplerSection(Section, ABC):
    """Settings of a sampler. Each has the fields ``kind`` and ``n_jobs`` beside these properties."""

    @property
    @abstractmethod
    def batch_size(self) -> int:
        """Structures of a job that are predicted together, about."""

    @property
    @abstractmethod
    def n_rounds(self) -> int:
        """Predictions of such a batch that a job makes one after the other, at most."""

    @property
    @abstractmethod
    def candidates_per_job(self) -> int:
        """Candidates of a job, at most."""

    @property
    @abstractmethod
    def words(self) -> str:
        """What the report says it did, such as ``langevin at 300, 600 K``."""

    @property
    def evaluations_per_job(self) -> int:
        """Structures that a job predicts, at most."""
        return self.batch_size * self.n_rounds
