"""A planted oracle: structures whose true force errors are ``ratio`` times what their uncertainty says.

Uncertainties vary over structures and, within one, over atoms; how over-confident the model is varies too, a little,
from structure to structure, so that a score never parts right from wrong sharply.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIGMA = 0.05
"""Median uncertainty of a force component, eV/Å."""
SPREAD_STRUCTURES, SPREAD_ATOMS, SPREAD_RATIO = 0.5, 0.3, 0.15
MIN_ATOMS, MAX_ATOMS = 9, 27


@dataclass(frozen=True)
class PlantedPool:
    """``n`` structures: score, worst true force error (eV/Å), ratio of rms error to rms uncertainty; (n,) each."""

    scores: NDArray[np.float64]
    errors: NDArray[np.float64]
    ratios: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)


def planted_pool(
    rng: np.random.Generator,
    n: int,
    ratio: float = 1.8,
    *,
    sigma: float = SIGMA,
    spread: float = SPREAD_STRUCTURES,
    spread_ratio: float = SPREAD_RATIO,
) -> PlantedPool:
    """Draw a pool; the score is the longest rms force error length that the uncertainty tells of any atom, as dubito's.

    Parameters
    ----------
    ratio : true error over uncertainty, median over structures
    sigma : median uncertainty of a component, eV/Å
    spread : standard deviation of the logarithm of the uncertainty over structures
    spread_ratio : the same of the true ratio
    """
    n_atoms = rng.integers(MIN_ATOMS, MAX_ATOMS + 1, n)
    first = np.concatenate([[0], np.cumsum(n_atoms)[:-1]])
    of_atom = np.repeat(sigma * rng.lognormal(0.0, spread, n), n_atoms)
    of_atom *= rng.lognormal(0.0, SPREAD_ATOMS, len(of_atom))
    truth = of_atom * np.repeat(ratio * rng.lognormal(0.0, spread_ratio, n), n_atoms)
    squares = (truth[:, None] * rng.normal(size=(len(truth), 3))) ** 2
    lengths = squares.sum(axis=1)
    said = 3 * np.add.reduceat(of_atom**2, first)
    return PlantedPool(
        scores=np.sqrt(3) * np.maximum.reduceat(of_atom, first),
        errors=np.sqrt(np.maximum.reduceat(lengths, first)),
        ratios=np.sqrt(np.add.reduceat(lengths, first) / said),
    )


def recalibrated(rng: np.random.Generator, pool: PlantedPool, n_valid: int, spread_ratio: float) -> PlantedPool:
    """Scale the uncertainties of a pool on a few validation structures, as dubito does in every iteration.

    The validation structures are those of an unchanged model; with the pool drawn at a ratio of 1.8 nothing has moved.
    """
    valid = planted_pool(rng, n_valid, spread_ratio=spread_ratio)
    scale = float(np.sqrt(np.mean(valid.ratios**2)))
    return PlantedPool(pool.scores * scale, pool.errors, pool.ratios / scale)


@dataclass(frozen=True)
class Walked:
    """Frames of walkers: score, ratio of error to uncertainty, and the walker of each; (n,) each."""

    scores: NDArray[np.float64]
    ratios: NDArray[np.float64]
    walkers: list[str]


def walked_pool(
    rng: np.random.Generator, walkers: int, frames: int, tau: float, *, ratio: float = 1.8, sigma: float = SIGMA
) -> Walked:
    """Draw frames that are alike along each walker: logarithms of score and ratio are stationary AR(1) processes.

    Half of the variance of the ratio's logarithm comes anew with every frame.

    Parameters
    ----------
    tau : frames over which the correlation falls to 1/e
    """
    keep = np.exp(-1 / tau)

    def alike() -> NDArray[np.float64]:
        out = np.empty((walkers, frames))
        out[:, 0] = rng.normal(size=walkers)
        for t in range(1, frames):
            out[:, t] = keep * out[:, t - 1] + np.sqrt(1 - keep * keep) * rng.normal(size=walkers)
        return out.ravel()

    noise = rng.normal(size=walkers * frames)
    return Walked(
        scores=np.sqrt(3) * sigma * np.exp(SPREAD_STRUCTURES * alike()),
        ratios=ratio * np.exp(SPREAD_RATIO * (alike() + noise)),
        walkers=[f"walker{w}" for w in np.repeat(np.arange(walkers), frames)],
    )


def tolerance_for(bad_share: float, ratio: float = 1.8, *, seed: int = 0) -> float:
    """Return the force tolerance (eV/Å) that a given share of the planted pool exceeds."""
    whole = planted_pool(np.random.default_rng(seed), 100_000, ratio)
    return float(np.quantile(whole.errors, 1 - bad_share))
