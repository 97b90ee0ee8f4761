"""Section ``uncertainty``: which methods doubt, and which one drives selection."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from dubito.config.base import Section
from dubito.config.methods import (
    CalibrationConfig,
    DistanceConfig,
    EvidentialConfig,
    GmmConfig,
    LlprConfig,
    ShallowEnsembleConfig,
    SparseGpConfig,
    SvgpConfig,
)
from dubito.core.errors import unknown_name
from dubito.core.plugins import known_names

# Names only, so that reading a configuration imports no torch; a test keeps them equal to the registry.
KNOWN_METHODS = (
    "ensemble",
    "shallow_ensemble",
    "gmm",
    "evidential",
    "svgp",
    "sparse_gp",
    "llpr",
    "distance",
    "force_norm",
    "constant",
    "random",
)
# They rank nothing: stand beside the others to be beaten.
CONTROLS_WITHOUT_RANK = ("constant", "random")
CONTROLS = ("distance", "force_norm", *CONTROLS_WITHOUT_RANK)
# Their spread is that of members within one network: what follows the members' spread works with a single network too.
MEMBERS_IN_ONE_NETWORK = ("shallow_ensemble", "llpr")
AUTO = "auto"


class AutoConfig(Section):
    """How ``acquire_with: auto`` chooses the method that drives."""

    start_with: str = Field("ensemble", description="The method that drives until the bake-off has something to say.")
    margin: float = Field(
        0.02, ge=0, lt=1, description="A challenger must be better by this at the lower end of the interval."
    )
    level: float = Field(0.9, gt=0, lt=1, description="Level of that bootstrap interval.")
    min_structures: int = Field(20, ge=4, description="Newly labelled structures below which nothing is switched.")


class UncertaintyConfig(Section):
    """The uncertainty methods of the campaign."""

    methods: list[str] = Field(["ensemble"], min_length=1, description="Methods fitted each iteration.")
    acquire_with: str = Field(
        "ensemble",
        description="The method that drives exploring and selection; auto: the one that proved best on new labels.",
    )
    auto: AutoConfig = Field(default_factory=AutoConfig, description="How auto chooses.")
    calibration: CalibrationConfig = Field(
        default_factory=CalibrationConfig, description="How doubt becomes a standard deviation."
    )
    gmm: GmmConfig = Field(default_factory=GmmConfig, description="Gaussian mixture on the latents.")
    distance: DistanceConfig = Field(default_factory=DistanceConfig, description="Distance in the latents.")
    evidential: EvidentialConfig = Field(default_factory=EvidentialConfig, description="Evidential regression.")
    svgp: SvgpConfig = Field(default_factory=SvgpConfig, description="Variational Gaussian process.")
    sparse_gp: SparseGpConfig = Field(default_factory=SparseGpConfig, description="Gaussian process in closed form.")
    llpr: LlprConfig = Field(default_factory=LlprConfig, description="Last-layer prediction rigidity.")
    shallow_ensemble: ShallowEnsembleConfig = Field(
        default_factory=ShallowEnsembleConfig, description="Readouts on one trunk."
    )

    @property
    def first_driver(self) -> str:
        """The method that drives at the start."""
        return self.auto.start_with if self.acquire_with == AUTO else self.acquire_with

    @property
    def candidates(self) -> list[str]:
        """The methods that may drive."""
        return [name for name in self.methods if name not in CONTROLS_WITHOUT_RANK]

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
        key = "auto.start_with" if self.acquire_with == AUTO else "acquire_with"
        if self.first_driver not in self.methods:
            raise ValueError(
                f"{key} is '{self.first_driver}', which is not among the fitted methods "
                f"{self.methods}; add it there or choose one of them"
            )
        if self.first_driver in CONTROLS_WITHOUT_RANK:
            raise ValueError(
                f"{key} is '{self.first_driver}', a control that doubts nothing in particular; choose another "
                "method, or selection.selector: random for a campaign at random"
            )
        return self
