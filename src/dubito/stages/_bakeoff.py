"""All uncertainty methods judged on the same new labels, by the model that had not seen them.

Ranking is judged by what it is for, the decision what to label: *decision value*, the share of the fall of the RMSE
that a perfect ranking would bring when the most doubtful atoms are refused (1: perfect, 0: chance, below: misleading).
Unlike a rank correlation it weighs errors by their size. Forces are judged by atom for ranking, by component for
calibration; intervals resample whole structures (:mod:`dubito.metrics.bootstrap`).

A batch is chosen by the method that drives. Its structures are alike in that method's doubt, which costs it some of
its ranking, and nothing to the others; the control slice, drawn at random, has no such fault but is small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.config.uncertainty import CONTROLS
from dubito.core.errors import DataError
from dubito.core.files import read_json
from dubito.data.store import read_attributes
from dubito.metrics.calibration import coverage, miscalibration_area
from dubito.metrics.ranking import auroc_error, spearman
from dubito.metrics.reduce import atom_norm
from dubito.metrics.reliability import sharpness
from dubito.metrics.scoring import gaussian_nll
from dubito.metrics.sparsification import sparsification
from dubito.reporting.evaluated import Evaluated
from dubito.stages._resampling import drawn, interval, thinned

Array = NDArray[Any]
Measure = Callable[[Array, Array, Array], float]
NAN = float("nan")
LEVEL, N_RESAMPLES = 0.9, 400
# Below, resampling structures says nothing.
MIN_STRUCTURES = 6
# What a control is to be beaten at: by a ranking, and by standard deviations.
JUDGED_BY = {"ranking": ("decision_value", 1.0), "likelihood": ("nll", -1.0)}
WITH_INTERVAL = ("decision_value", "spearman", "auroc", "miscalibration_area", "coverage_95", "nll")


@dataclass(frozen=True)
class Judged:
    """What one method said of ``N`` atoms, and how wrong the model was.

    Attributes
    ----------
    doubt : (N,) expected length of the force error in eV/Å, or a score
    difference : (N, 3) predicted minus labelled forces, eV/Å
    sigma : (N, 3) standard deviations, eV/Å; NaN where the method gives none
    structure : (N,) number of the structure of each atom
    """

    doubt: Array
    difference: Array
    sigma: Array
    structure: Array

    @property
    def arrays(self) -> tuple[Array, Array, Array]:
        """The arguments of a measure."""
        return self.doubt, self.difference, self.sigma

    @property
    def is_finite(self) -> bool:
        """Whether all of it are numbers, but for standard deviations that are not given."""
        return bool(np.all(np.isfinite(self.doubt)) and np.all(np.isfinite(self.difference)))


def judged(part: Evaluated, method: str) -> Judged | None:
    """Return doubt and errors of one method; None when it was not fitted, or says nothing of forces."""
    if method not in part.predictions:
        return None
    said, difference = part.of(method), part.force_difference(method)
    sigma = said.get("forces_uncertainty")
    doubt = said.get("forces_score") if sigma is None else atom_norm(sigma)
    if doubt is None:
        return None
    structures = part.structures
    number = np.repeat(np.arange(len(structures)), structures.n_atoms)
    return Judged(np.asarray(doubt), difference, np.full_like(difference, NAN) if sigma is None else sigma, number)


# --- measures ---------------------------------------------------------------------------------------------


def decision_value(doubt: Array, difference: Array, sigma: Array) -> float:
    """Return the decision value; see the module. Rounded, so that a constant doubt has exactly 0."""
    return round(1 - sparsification(doubt, atom_norm(difference), ()).relative, 12) + 0.0


def nll(doubt: Array, difference: Array, sigma: Array) -> float:
    """Return the mean Gaussian negative log-likelihood of a force component, nats; NaN where a sigma is 0."""
    known = bool(np.all((sigma > 0) & np.isfinite(sigma)))
    return float(np.mean(gaussian_nll(difference, sigma))) if known else NAN


def _of_sigma(measure: Callable[[Array, Array], float]) -> Measure:
    def get(doubt: Array, difference: Array, sigma: Array) -> float:
        return measure(difference, sigma) if np.all(np.isfinite(sigma)) else NAN

    return get


def measures(tolerance: float) -> dict[str, Measure]:
    """Return all measures by name; ``tolerance`` (eV/Å) is the length above which a force error is an event."""

    def auroc(doubt: Array, difference: Array, sigma: Array) -> float:
        return auroc_error(doubt, atom_norm(difference), tolerance)

    def ause(doubt: Array, difference: Array, sigma: Array) -> float:
        return sparsification(doubt, atom_norm(difference), ()).ause

    return {
        "decision_value": decision_value,
        "spearman": lambda doubt, difference, sigma: spearman(doubt, atom_norm(difference)),
        "auroc": auroc,
        "ause": ause,
        "miscalibration_area": _of_sigma(miscalibration_area),
        "coverage_68": _of_sigma(lambda e, s: coverage(e, s, 0.68)),
        "coverage_95": _of_sigma(lambda e, s: coverage(e, s, 0.95)),
        "nll": nll,
        "sharpness_ev_per_angstrom": _of_sigma(lambda _, s: sharpness(s)),
    }


# --- the bake-off -----------------------------------------------------------------------------------------


class _Draws:
    """The measures of all methods on one set: of all its atoms, and of resampled structures, drawn once for all."""

    def __init__(self, part: Evaluated, tolerance: float, seed: int) -> None:
        found = {method: judged(part, method) for method in part.predictions}
        self.judged = {method: said for method, said in found.items() if said is not None}
        self.is_enough = len(part) >= MIN_STRUCTURES
        self._measures, self._seed = measures(tolerance), seed
        self._kept: dict[tuple[str, str], tuple[float, Array]] = {}

    def of(self, method: str, name: str) -> tuple[float, Array]:
        """Return one measure of one method, and its values on the resamples."""
        if (method, name) not in self._kept:
            said = self.judged[method]
            self._kept[method, name] = drawn(self._measures[name], said.arrays, said.structure, self._seed, N_RESAMPLES)
        return self._kept[method, name]

    def measured(self, method: str) -> dict[str, dict[str, float]]:
        """Return all measures of one method, with intervals where there are structures enough."""
        said = self.judged[method]
        if not said.is_finite:
            return {name: {"value": NAN} for name in self._measures}
        return {
            name: interval(*self.of(method, name), LEVEL)
            if self.is_enough and name in WITH_INTERVAL
            else {"value": measure(*said.arrays)}
            for name, measure in self._measures.items()
        }

    def ahead(self, method: str, other: str, criterion: str) -> dict[str, float] | None:
        """Return how much better a method is than another, on the same resamples; None where nothing can be said."""
        name, sign = JUDGED_BY[criterion]
        pair = [self.judged.get(method), self.judged.get(other)]
        if not self.is_enough or any(said is None or not said.is_finite for said in pair):
            return None
        (a, drawn_a), (b, drawn_b) = self.of(method, name), self.of(other, name)
        return interval(sign * (a - b), sign * (drawn_a - drawn_b), LEVEL) if np.isfinite(a - b) else None


def bakeoff(
    sets: Mapping[str, Evaluated],
    costs: Mapping[str, Mapping[str, Any]],
    *,
    tolerance: float,
    seed: int,
) -> dict[str, Any]:
    """Return what ``metrics.json`` says of all methods on the new labels.

    Of large sets, structures drawn at random are judged (``n_structures`` of ``n_structures_all``).

    Parameters
    ----------
    sets : the new structures under ``new``, the random ones among them under ``control``
    costs : by method, see :func:`costs_of`
    """
    parts = {name: thinned(part, seed) for name, part in sets.items() if len(part)}
    draws = {name: _Draws(part, tolerance, seed) for name, part in parts.items()}
    if not draws:
        return {}
    against = _against_controls(draws["new"]) if "new" in draws else {}
    return {
        "level": LEVEL,
        "n_resamples": N_RESAMPLES,
        "min_structures": MIN_STRUCTURES,
        "sets": {
            name: {
                "n_structures": len(part),
                "n_structures_all": len(sets[name]),
                "n_atoms": int(part.structures.ptr[-1]),
                "methods": {method: draws[name].measured(method) for method in draws[name].judged},
            }
            for name, part in parts.items()
        },
        "cost": dict(costs),
        "best": _best(draws["new"]) if "new" in draws else None,
        "against_controls": against,
        "beaten_by": {method: _controls(found, lambda i: i["high"] < 0) for method, found in against.items()},
        "not_shown_better_than": {
            method: _controls(found, lambda i: not i["low"] > 0) for method, found in against.items()
        },
    }


def _best(draws: _Draws) -> dict[str, Any] | None:
    """Return the best method by decision value, and the others that it is not shown to rank better than."""
    values = {name: decision_value(*said.arrays) for name, said in draws.judged.items() if said.is_finite}
    known = {name: value for name, value in values.items() if np.isfinite(value)}
    if not known:
        return None
    best = max(known, key=lambda name: known[name])
    if not draws.is_enough:
        return {"method": best, "not_told_from": None}
    ahead = {name: draws.ahead(best, name, "ranking") for name in known if name != best}
    unclear = [name for name, found in ahead.items() if found is None or not found["low"] > 0]
    return {"method": best, "not_told_from": sorted(unclear, key=lambda name: -known[name])}


def _against_controls(draws: _Draws) -> dict[str, Any]:
    """Return by method, control and criterion how much better the method is, with its interval."""
    controls = [name for name in CONTROLS if name in draws.judged]
    others = [name for name in draws.judged if name not in CONTROLS]
    if not controls:
        return {}
    return {
        method: {
            control: {
                criterion: found
                for criterion in JUDGED_BY
                if (found := draws.ahead(method, control, criterion)) is not None
            }
            for control in controls
        }
        for method in others
    }


def _controls(found: Mapping[str, Any], wanted: Callable[[Mapping[str, float]], bool]) -> dict[str, list[str]]:
    """Return by criterion the controls whose difference is as wanted."""
    return {
        criterion: [control for control, by in found.items() if criterion in by and wanted(by[criterion])]
        for criterion in JUDGED_BY
    }


def costs_of(fits: Sequence[Path], batch: Path | None) -> dict[str, dict[str, float | None]]:
    """Return what each fitted method costs: evaluations of one network, the fit, and a prediction of 1000 atoms.

    Parameters
    ----------
    fits : what ``fit_uncertainty`` wrote beside the states
    batch : the predictions of ``predict_batch``; None: no time was taken
    """
    said: Mapping[str, Any] = {} if batch is None else read_attributes(batch).get("cost", {})
    atoms = int(said.get("n_atoms") or 0)
    found: dict[str, dict[str, float | None]] = {}
    for path in fits:
        fit = read_json(path)
        if "not_fitted" in fit:
            continue
        if "method" not in fit:
            raise DataError(f"{path} does not say which method was fitted; delete it and start the campaign again.")
        own = said.get("own_cpu_s", {}).get(fit["method"])
        seconds = None if own is None or not atoms else 1000 * (own + said["members_cpu_s"]) / atoms
        found[fit["method"]] = {
            "model_evaluations": fit["evaluations"],
            "model_evaluations_alone": fit["evaluations_alone"],
            "fit_cpu_s": fit["fit_cpu_s"],
            "predict_cpu_s_per_1000_atoms": None if seconds is None else round(seconds, 6),
        }
    return found
