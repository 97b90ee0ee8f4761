"""Section ``model``: the equivariant network."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from dubito.config.base import Section


class ModelConfig(Section):
    """The E(3)-equivariant network (NequIP type, https://doi.org/10.1038/s41467-022-29939-5)."""

    r_max_angstrom: float = Field(4.0, gt=0.5, le=20.0, description="Cutoff radius of the neighbourhood.")
    l_max: int = Field(1, ge=0, le=4, description="Highest degree of harmonics and features.")
    n_layers: int = Field(3, ge=1, le=8, description="Interaction layers.")
    n_features: int = Field(32, ge=2, le=512, description="Channels of each irreducible representation.")
    parity: bool = Field(False, description="Carry features of both parities; false: only the natural parity (-1)^l.")
    n_radial_basis: int = Field(8, ge=2, le=64, description="Bessel functions of the distance.")
    radial_hidden: list[PositiveInt] = Field([32, 32], description="Widths of the hidden layers of the radial network.")
    cutoff_exponent: int = Field(6, ge=2, le=20, description="Exponent p of the polynomial cutoff.")
    n_latent: int = Field(16, ge=1, le=256, description="Width of the invariant latent of each atom.")
    dtype: Literal["float32", "float64"] = Field("float32", description="Precision of the network.")
    n_spline_intervals: int = Field(
        128, ge=8, le=4096, description="Intervals of the splines that carry the radial functions."
    )
    kernel: Literal["auto", "fused", "dense", "e3nn"] = Field(
        "auto",
        description="How the layers are computed: auto (the fastest that works), fused (compiled C), dense (torch), "
        "or the e3nn reference.",
    )
