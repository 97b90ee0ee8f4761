"""Section ``uncertainty``: which methods doubt, and which one drives selection."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from dubito.config.base import Section
from dubito.core.errors import unknown_name
from dubito.core.plugins import known_names

# Names only, so that reading a configuration imports no torch; a test keeps them equal to the registry.
KNOWN_METHODS = ("ensemble",)


class UncertaintyConfig(Section):
    """The uncertainty methods of the campaign."""

    methods: list[str] = Field(["ensemble"], min_length=1, description="Methods fitted each iteration.")
    acquire_with: str = Field("ensemble", description="The method that drives exploring and selection.")

    @field_validator("methods")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        known = known_names(KNOWN_METHODS, "dubito.uncertainty")
        for name in value:
            if name not in known:
                raise ValueError(unknown_name("uncertainty method", name, known))
        if len(set(value)) != len(value):
            raise ValueError(f"a method is listed twice: {value}")
        return value

    @model_validator(mode="after")
    def _fitted(self) -> UncertaintyConfig:
        if self.acquire_with not in self.methods:
            raise ValueError(
                f"acquire_with is '{self.acquire_with}', which is not among the fitted methods "
                f"{self.methods}; add it there or choose one of them"
            )
        return self
