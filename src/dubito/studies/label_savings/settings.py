"""Settings of the study of label savings (config/studies/label_savings.yaml)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator

from dubito.config.base import Section
from dubito.config.labelling import PyscfConfig, TeacherConfig
from dubito.config.model import ModelConfig
from dubito.core.errors import ConfigError
from dubito.core.hashing import hash_json

# Raise it when selectors, networks or the loop change what a cell holds: cells of another version are made anew.
STUDY_VERSION = 1


class PoolSettings(Section):
    """One pool: how many labels a campaign on it has in each round."""

    labels: list[int] = Field(
        ..., min_length=2, description="Labels of the random initial set, then in all after each round; increasing."
    )
    r_max_angstrom: float = Field(5.0, gt=0.5, description="Cutoff radius of the network.")

    @field_validator("labels")
    @classmethod
    def _increasing(cls, value: list[int]) -> list[int]:
        if value[0] < 2 or any(b <= a for a, b in pairwise(value)):
            raise ValueError(f"found {value}, expected increasing numbers of labels, at least 2 at the start")
        return value


class AmmoniaSettings(Section):
    """The pool whose interesting part is rare: ammonia, a few frames of it near the planar geometry."""

    n_thermal: int = Field(960, ge=2, description="Pool frames around the pyramidal minimum.")
    n_rare: int = Field(40, ge=1, description="Pool frames near the planar geometry.")
    n_test_uniform: int = Field(200, ge=2, description="Test frames, uniform in the height of N over the plane.")
    n_test_thermal: int = Field(100, ge=2, description="Test frames around the minimum.")
    temperature_K: float = Field(  # noqa: N815
        300.0, gt=0, description="Temperature of all motions but the inversion."
    )
    rare_height_angstrom: float = Field(0.2, gt=0, description="Rare: N is nearer than this to the plane of the H.")
    largest_height_angstrom: float = Field(0.46, gt=0, description="Test frames go up to this height on both sides.")
    labeller: PyscfConfig | TeacherConfig = Field(default_factory=PyscfConfig, description="Who labels the frames.")


class StudySettings(Section):
    """All that decides the numbers of the study."""

    seed: int = Field(0, ge=0, description="Of everything random: campaign seeds are derived from it.")
    n_seeds: int = Field(5, ge=1, description="Campaigns of each pool and selector, paired by seed.")
    selectors: list[str] = Field(..., min_length=1, description="Compared with random, which always runs.")
    pools: dict[str, PoolSettings] = Field(..., min_length=1, description="In the order in which they run.")
    ammonia: AmmoniaSettings = Field(default_factory=AmmoniaSettings, description="The rare pool.")
    model: ModelConfig = Field(default_factory=ModelConfig, description="The networks; r_max_angstrom is the pool's.")
    n_members: int = Field(3, ge=2, description="Members of the ensemble.")
    n_steps: int = Field(1500, ge=1, description="Optimiser steps of each training, rounded up to whole epochs.")
    batch_size: int = Field(5, ge=1, description="Structures per step.")
    learning_rate: float = Field(0.01, gt=0, lt=1, description="At the start of the cosine.")
    data_folder: str = Field("../shared/data", description="Where the labelled files are; what is missing is skipped.")
    target_share: float = Field(
        0.7, gt=0, le=1, description="The target is the error random reaches at this share of the labels it adds."
    )
    level: float = Field(0.95, gt=0, lt=1, description="Of the bootstrap intervals.")
    n_resamples: int = Field(4000, ge=10, description="Of the bootstrap over seeds.")

    def cell_key(self, pool: str) -> str:
        """Return the hash of all that changes a cell of this pool: a finished cell is valid as long as it stays.

        Of networks and labeller what is at its default is left out, so that a new key there changes nothing.
        """
        shared = self.model_dump(mode="json", include={"seed", "n_members", "n_steps", "batch_size", "learning_rate"})
        model = self.model.model_dump(mode="json", exclude_defaults=True)
        own = self.pools[pool].model_dump(mode="json")
        return hash_json([shared, model, own, self.ammonia_key() if pool.startswith("ammonia") else None])

    def ammonia_key(self) -> dict[str, Any]:
        """Return what changes the ammonia frames."""
        frames = self.ammonia.model_dump(mode="json", exclude={"labeller"})
        labeller = self.ammonia.labeller
        return {
            **frames,
            "labeller": {"kind": labeller.kind, **labeller.model_dump(mode="json", exclude_defaults=True)},
        }

    def all_selectors(self) -> list[str]:
        """Return random, then the others."""
        return ["random", *(name for name in self.selectors if name != "random")]


def load_settings(path: Path) -> StudySettings:
    """Read the settings of a study.

    Raises
    ------
    ConfigError
        When the file is missing or holds something else.
    """
    try:
        raw: Any = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} can't be read ({error.strerror}). Name the YAML file of the study.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}. Mend that line.") from error
    try:
        return StudySettings.model_validate(raw)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise ConfigError("\n  ".join([f"{path} has {len(faults)} fault(s):", *faults])) from None
