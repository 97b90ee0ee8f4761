"""Calibration by stratum: element, temperature, sampler; pooled where a stratum has too few atoms.

Mondrian in spirit (Vovk et al. 2005, ch. 4.5): what holds on average over all atoms may be wrong for each kind of them,
as hydrogen errs less than carbon.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubito.config.methods import CalibrationConfig
from dubito.core.errors import DataError
from dubito.uncertainty.calibration.fitting import fit_map, restore_map
from dubito.uncertainty.calibration.sample import Map, Sample, make_sample

Array = NDArray[Any]
Stratum = int | str
# A factor from 3 x 60 heavy-tailed components is known to about 8 %.
MIN_STRATUM_ATOMS = 60


@dataclass(frozen=True)
class Stratified:
    """A map for all, and maps for the strata that had atoms enough.

    Attributes
    ----------
    pooled : fitted on all atoms; for strata that have no map of their own
    by : maps by stratum
    notes : every fall-back, in words
    """

    pooled: Map
    by: Mapping[Stratum, Map] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __call__(self, raw: Array, strata: ArrayLike) -> Array:
        """Return standard deviations (N,) eV/Å of atoms in the given strata (N,)."""
        out = self.pooled(raw)
        labels = np.asarray(strata)
        for stratum, own in self.by.items():
            mask = labels == stratum
            if np.any(mask):
                out[mask] = own(np.asarray(raw)[mask])
        return out

    def state(self) -> dict[str, Array]:
        """Return what restores it, but for the notes; strata are named by ``str``."""
        parts: dict[Stratum, Map] = {"pooled": self.pooled, **self.by}
        return {f"{stratum}/{name}": array for stratum, own in parts.items() for name, array in own.state().items()}

    @classmethod
    def from_state(cls, arrays: dict[str, Array], notes: tuple[str, ...], *, key: type = str) -> Self:
        """Restore what :meth:`state` gave; ``key`` turns names into strata."""
        parts: dict[str, dict[str, Array]] = {"pooled": {}}
        for path, array in arrays.items():
            stratum, _, name = path.rpartition("/")
            parts.setdefault(stratum, {})[name] = array
        pooled = restore_map(parts.pop("pooled"))
        return cls(pooled, {key(stratum): restore_map(part) for stratum, part in parts.items()}, notes)


def fit_by_strata(
    raw: Array,
    errors: Array,
    strata: ArrayLike,
    *,
    is_sigma: bool,
    force_scale: float,
    config: CalibrationConfig,
    min_atoms: int = MIN_STRATUM_ATOMS,
) -> Stratified:
    """Fit a calibration for each stratum.

    Parameters
    ----------
    raw : (N,) raw doubt: standard deviations in eV/Å if ``is_sigma``, scores otherwise
    errors : (N, 3) force errors in eV/Å of atoms that nothing was fitted to
    strata : (N,) integers or strings: element, temperature, sampler
    force_scale : rms force in eV/Å, the unit where there is nothing to fit on
    config : ``kind`` and ``estimator`` are used
    min_atoms : strata with fewer are left to the pooled calibration, which is noted

    Raises
    ------
    ModelError
        When doubt is NaN, or negative where it must not be.
    DataError
        When shapes don't match or errors are not finite.
    """
    sample = make_sample(raw, errors, is_sigma=is_sigma, force_scale=force_scale)
    labels = np.asarray(strata)
    if labels.shape != np.shape(raw):
        raise DataError(f"{labels.size} strata were given for {np.size(raw)} atoms; give one for each atom.")
    pooled, notes = fit_map(sample, config)
    return _with_strata(sample, labels[np.isfinite(np.asarray(raw, "f8"))], pooled, notes, config, min_atoms)


def _with_strata(
    sample: Sample, labels: Array, pooled: Map, notes: list[str], config: CalibrationConfig, min_atoms: int
) -> Stratified:
    by: dict[Stratum, Map] = {}
    for stratum in np.unique(labels).tolist():
        mask = labels == stratum
        n = int(mask.sum())
        if n < min_atoms:
            notes.append(f"stratum {stratum}: {n} atoms, fewer than {min_atoms}; it gets the pooled calibration")
            continue
        by[stratum], own = fit_map(sample.part(mask), config)
        notes += [f"stratum {stratum}: {note}" for note in own]
    return Stratified(pooled, by, tuple(notes))
