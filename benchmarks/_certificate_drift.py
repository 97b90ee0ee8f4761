"""How often drift is found, with and without it: independent frames, frames of walkers, uncertainties scaled anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from _planted import SPREAD_RATIO, planted_pool, recalibrated, walked_pool

from dubito.certificate.drift import LEVEL, N_TESTS, Looked, drift_between
from dubito.core.random import generator

N_POOL, RATIO, RATIO_AFTER = 1000, 1.8, 2.7
WALKERS, FRAMES = 8, 120
N_PERMUTATIONS = 1999
"""A fifth of dubito's, for speed: the level is exact with any number."""
MOVES: dict[str, dict[str, float]] = {
    "nothing": {},
    "ratio 1.8 to 2.7": {"ratio": RATIO_AFTER},
    "ratio 2.7 to 1.8": {"ratio": RATIO},
    "uncertainty x 1.5": {"sigma": 0.075},
    "a better model, uncertainty x 0.7": {"sigma": 0.035},
}
KEYS = ("drifted", "by_labels", "by_scores", "cautious")

Row = dict[str, Any]
Draw = Callable[..., Looked]


def measure(how: str, draw: Draw, rng: np.random.Generator, repeats: int) -> Row:
    """Count what is found for each move between two slices, drawn as ``draw(**change)`` draws one."""
    counts = {name: np.zeros(len(KEYS)) for name in MOVES}
    for repeat in range(repeats):
        for name, change in MOVES.items():
            before = draw(ratio=RATIO_AFTER) if name == "ratio 2.7 to 1.8" else draw()
            found = drift_between(before, draw(**change), seed=repeat, n_permutations=N_PERMUTATIONS)
            if found is None:
                raise RuntimeError(f"Slices of {how} frames are too small to compare.")
            said = [p is not None and p * N_TESTS < LEVEL for p in (found.p_value, found.scores_p_value)]
            counts[name] += [found.drifted, *said, found.cautious]
    found_of = {name: dict(zip(KEYS, (n / repeats).tolist(), strict=True)) for name, n in counts.items()}
    return {"frames": how, "repeats": repeats, "found": found_of}


def independent(n_slice: int, spread: float, repeats: int, seed: int) -> Row:
    """Measure slices of independent frames."""
    rng = generator(seed, "drift", n_slice, f"{spread}")

    def draw(**change: float) -> Looked:
        pool = planted_pool(rng, n_slice, **{"ratio": RATIO, "spread_ratio": spread, **change})
        return _looked(pool.ratios, pool.scores, [""] * n_slice)

    return measure("independent", draw, rng, repeats) | {"n_slice": n_slice, "spread_ratio": spread}


def walking(n_slice: int, tau: int, repeats: int, seed: int) -> Row:
    """Measure slices by lot from pools of eight walkers."""
    rng = generator(seed, "drift of walkers", n_slice, tau)

    def draw(**change: float) -> Looked:
        pool = walked_pool(rng, WALKERS, FRAMES, tau, **{"ratio": RATIO, **change})
        rows = rng.choice(len(pool.scores), n_slice, replace=False)
        return _looked(pool.ratios[rows], pool.scores[rows], [pool.walkers[row] for row in rows])

    how = f"{WALKERS} walkers of {FRAMES} frames, alike over {tau}"
    return measure(how, draw, rng, repeats) | {"n_slice": n_slice, "spread_ratio": SPREAD_RATIO, "tau": tau}


def scaled_anew(n_slice: int, n_valid: int, spread: float, repeats: int, seed: int) -> Row:
    """Measure slices of independent frames whose uncertainties are scaled on a fresh few validation structures."""
    rng = generator(seed, "drift, scaled anew", n_slice, n_valid, f"{spread}")

    def draw(**change: float) -> Looked:
        pool = planted_pool(rng, n_slice, **{"ratio": RATIO, "spread_ratio": spread, **change})
        pool = recalibrated(rng, pool, n_valid, spread)
        return _looked(pool.ratios, pool.scores, [""] * n_slice)

    how = f"uncertainties scaled anew on {n_valid} structures"
    return measure(how, draw, rng, repeats) | {"n_slice": n_slice, "spread_ratio": spread, "n_valid": n_valid}


def all_drifts(repeats: int, seed: int) -> list[Row]:
    """Measure all of them; the first is the plain setting. Of the others half, or a quarter, as many repeats."""
    sizes, spreads = (20, 40), (SPREAD_RATIO, 0.3)
    half, quarter = repeats // 2, repeats // 4
    return [
        *(independent(n, spread, repeats, seed) for n in sizes for spread in spreads),
        *(walking(n, tau, half, seed) for tau in (10, 40) for n in sizes),
        *(scaled_anew(n, k, s, half, seed) for k in (10, 20) for s in spreads for n in sizes),
        *(scaled_anew(100, k, 0.3, quarter, seed) for k in (10, 20)),
    ]


def _looked(ratios: np.ndarray, scores: np.ndarray, walkers: list[str]) -> Looked:
    return Looked(tuple(ratios.tolist()), tuple(walkers), tuple(scores.tolist()), tuple(walkers))
