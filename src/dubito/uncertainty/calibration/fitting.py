"""Which map a set of unseen atoms allows, and what is noted where it allows less than was asked for."""

from __future__ import annotations

import numpy as np

from dubito.config.methods import CalibrationConfig
from dubito.uncertainty.calibration.isotonic import TINY, Isotonic, constant_map, fit_isotonic
from dubito.uncertainty.calibration.sample import Array, Map, Sample
from dubito.uncertainty.calibration.scale import Scale, fit_scale, refuse_negative

# Fewer unseen atoms than this give no meaningful calibration.
MIN_ATOMS = 8


def fit_map(sample: Sample, config: CalibrationConfig) -> tuple[Map, list[str]]:
    """Fit a map of the kind asked for; return it with notes on every fall-back.

    Raises
    ------
    ModelError
        When scores below 0 are to be scaled.
    """
    notes = [f"{sample.n_infinite} atoms of infinite doubt were left out"] if sample.n_infinite else []
    if len(sample.raw) < MIN_ATOMS:
        return _nothing(sample, notes)
    kind = config.kind if config.kind != "auto" else ("scale" if sample.is_sigma else "isotonic")
    if kind == "scale":
        refuse_negative(sample.raw)
        if not np.any(sample.raw > 0):
            notes.append("all raw doubt is zero, which no factor mends; all atoms get the rms error")
            kind = "isotonic"
        elif np.mean(sample.squares) <= (TINY * sample.force_scale) ** 2:
            # No factor either, but a constant map that says so.
            kind = "isotonic"
    fitted: tuple[Map, list[str]] = (fit_scale if kind == "scale" else fit_isotonic)(sample, config.estimator)
    return fitted[0], notes + fitted[1]


def _nothing(sample: Sample, notes: list[str]) -> tuple[Map, list[str]]:
    few = f"{len(sample.raw)} unseen atoms are too few to calibrate (at least {MIN_ATOMS})"
    if sample.is_sigma:
        return Scale(1.0, floor=TINY * sample.force_scale), [*notes, f"{few}; the factor stays 1"]
    return constant_map(sample.force_scale, sample), [*notes, f"{few}; all atoms get the rms force"]


def restore_map(arrays: dict[str, Array]) -> Map:
    """Restore a map from its state."""
    return Scale.from_state(arrays) if "scale" in arrays else Isotonic.from_state(arrays)
