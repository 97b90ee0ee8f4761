"""The whole configuration."""

from __future__ import annotations

from pydantic import Field, model_validator

from dubito.config.base import Section
from dubito.config.biased_sampling import FOLLOW_MEMBERS
from dubito.config.campaign import CampaignConfig
from dubito.config.data import DataConfig
from dubito.config.evaluation import EvaluationConfig
from dubito.config.labelling import LabellingConfig
from dubito.config.model import ModelConfig
from dubito.config.packages import how_to_install
from dubito.config.planning import PlanningConfig
from dubito.config.report import ReportConfig
from dubito.config.resources import ResourcesConfig
from dubito.config.sampling import SamplingConfig
from dubito.config.scoring import ScoringConfig
from dubito.config.selection import LOOK_AT_NO_SCORES, SelectionConfig
from dubito.config.training import TrainingConfig
from dubito.config.uncertainty import (
    AUTO,
    CONTROLS_WITHOUT_RANK,
    KNOWN_METHODS,
    MEMBERS_IN_ONE_NETWORK,
    UncertaintyConfig,
)


class Config(Section):
    """Configuration of a dubito campaign. The defaults are the demo."""

    campaign: CampaignConfig = Field(default_factory=CampaignConfig, description="Name, seed and budget.")
    data: DataConfig = Field(default_factory=DataConfig, description="Where the campaign starts.")
    model: ModelConfig = Field(default_factory=ModelConfig, description="The equivariant network.")
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="Training of the ensemble.")
    uncertainty: UncertaintyConfig = Field(default_factory=UncertaintyConfig, description="The uncertainty methods.")
    sampling: SamplingConfig = Field(default_factory=SamplingConfig, description="How candidates are found.")
    scoring: ScoringConfig = Field(default_factory=ScoringConfig, description="How candidates are scored.")
    selection: SelectionConfig = Field(default_factory=SelectionConfig, description="Which candidates are labelled.")
    labelling: LabellingConfig = Field(default_factory=LabellingConfig, description="Who computes the labels.")
    evaluation: EvaluationConfig = Field(
        default_factory=EvaluationConfig, description="What each iteration is measured on."
    )
    planning: PlanningConfig = Field(default_factory=PlanningConfig, description="When a label is worth its price.")
    report: ReportConfig = Field(default_factory=ReportConfig, description="The report.")
    resources: ResourcesConfig = Field(
        default_factory=ResourcesConfig, description="What it runs on; changes no result and reruns nothing."
    )

    @model_validator(mode="after")
    def _one_spelling(self) -> Config:
        names = [p.name for p in self.evaluation.profiles]
        if len(set(names)) != len(names):
            raise ValueError(f"evaluation.profiles has two profiles of the same name: {names}; rename one")
        return self

    @model_validator(mode="after")
    def _members_to_follow(self) -> Config:
        """Refuse samplers that follow the members' spread where there is none, before anything is paid."""
        seeking = sorted({sampler.kind for sampler in self.sampling.samplers if sampler.kind in FOLLOW_MEMBERS})
        driver, auto = self.uncertainty.acquire_with, self.uncertainty.acquire_with == AUTO
        drivers = self.uncertainty.candidates if auto else [driver]
        # A method of another package may have members of its own: exploring finds out.
        lacking = [name for name in drivers if name in KNOWN_METHODS and name not in MEMBERS_IN_ONE_NETWORK]
        if seeking and self.training.n_members < 2 and lacking:
            may = " (which auto may choose)" if auto else ""
            raise ValueError(
                f"the sampler {' and '.join(seeking)} follows the spread of members, but training.n_members is 1, and "
                f"{', '.join(lacking)}{may} has none of its own; raise training.n_members to 2 or more, drive with "
                f"{' or '.join(MEMBERS_IN_ONE_NETWORK)}, or choose another sampler"
            )
        return self

    @model_validator(mode="after")
    def _possible(self) -> Config:
        """Refuse what could only fail after labels and training are paid."""
        if "ensemble" in self.uncertainty.methods and self.training.n_members < 2:
            raise ValueError(
                "training.n_members is 1, but the uncertainty method 'ensemble' needs 2 members at least; raise it, or "
                "take 'ensemble' out of uncertainty.methods and name another method in uncertainty.acquire_with"
            )
        if self.scoring.adaptive and self.uncertainty.acquire_with not in ("ensemble", AUTO):
            raise ValueError(
                f"scoring.adaptive saves evaluations of the ensemble's members, but uncertainty.acquire_with is "
                f"'{self.uncertainty.acquire_with}', which judges by other means; set scoring.adaptive to false, or "
                "uncertainty.acquire_with to ensemble"
            )
        if (
            self.scoring.adaptive
            and self.scoring.decision == "selection"
            and self.selection.stratify_by_sampler
            and self.selection.selector not in LOOK_AT_NO_SCORES
        ):
            raise ValueError(
                f"scoring.adaptive gives the full score to the most doubtful of the whole pool, but with "
                f"selection.stratify_by_sampler '{self.selection.selector}' takes the most doubtful of each sampler, "
                "so that part of the batch would be ranked by estimates; set one of the two to false, or choose a "
                f"selector that looks at no scores ({', '.join(LOOK_AT_NO_SCORES)})"
            )
        lacking = [text for text in map(how_to_install, self.uncertainty.methods) if text]
        if lacking:
            raise ValueError("; ".join(lacking))
        if self.uncertainty.acquire_with == AUTO and len(self.uncertainty.candidates) < 2:
            raise ValueError(
                f"uncertainty.acquire_with is 'auto', but {self.uncertainty.candidates} is all that may drive of "
                f"uncertainty.methods; list two methods at least, or name one in uncertainty.acquire_with "
                f"({' and '.join(CONTROLS_WITHOUT_RANK)} never drive)"
            )
        if self.labelling.labeller.kind == "dataset" and self.campaign.max_iterations > 0:
            raise ValueError(
                "labelling.labeller.kind 'dataset' only knows the structures of its files, but molecular dynamics "
                "makes new ones; set campaign.max_iterations to 0, or choose a labeller that computes"
            )
        return self
