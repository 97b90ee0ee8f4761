"""What issue 6 asked of the study, and whether it is met: choosing has to save labels, and to do no harm.

Where pool and test come from the same distribution (``NO_LOSS``) every selector of the study is looked at: it fails as
soon as one is shown to lose, its interval wholly below 1. Elsewhere (``SAVES``) one selector is asked, the best over
all of these pools, chosen once; the same numbers choose it and are shown for it, which flatters it. Whatever has not
all its seeds is neither chosen nor judged.
"""

from __future__ import annotations

import math
from typing import Any

from dubito.studies.label_savings.savings import MIN_SEEDS
from dubito.studies.label_savings.settings import StudySettings

Json = dict[str, Any]

SAVES = {"acac": 1.5, "3bpa": 1.5, "ammonia_rare": 2.0}
NO_LOSS = ("rmd17_ethanol", "rmd17_aspirin")
_SHOWN = ("ratio", "low", "high", "t_low", "t_high", "bound", "n_seeds")


def goals(savings: Json, settings: StudySettings) -> Json:
    """Return what came out of each goal.

    Parameters
    ----------
    savings : by ``<pool>.<selector>``

    Returns
    -------
    dict
        ``best``: the selector, None while none has all seeds on all pools of ``SAVES``; ``not_finished``: selectors
        that were not considered for that; ``saves``: per pool ``asked``, the numbers of the best, ``met``
        (None: not finished) and ``met_at_the_lower_end`` of the paired t interval; ``no_loss``: per pool
        ``selectors``, ``lose`` (upper end below 1), ``below_one`` (the estimate alone), the same of energies without
        offset, ``not_finished``, ``met`` (of forces), the numbers of the best too.
    """
    names = settings.all_selectors()[1:]
    asked = {pool: ratio for pool, ratio in SAVES.items() if pool in settings.pools}
    complete = [name for name in names if asked and all(_is_finished(savings, pool, name, settings) for pool in asked)]
    best = max(complete, key=lambda name: _mean_ratio(savings, list(asked), name)) if complete else None
    return {
        "best": best,
        "mean_ratio_of_the_best": None if best is None else float(f"{_mean_ratio(savings, list(asked), best):.4g}"),
        "not_finished": [name for name in names if name not in complete],
        "saves": {pool: _saves(savings, pool, best, ratio) for pool, ratio in asked.items()},
        "no_loss": {pool: _no_loss(savings, pool, best, settings) for pool in NO_LOSS if pool in settings.pools},
    }


def _is_finished(savings: Json, pool: str, name: str, settings: StudySettings) -> bool:
    one = savings.get(f"{pool}.{name}")
    return one is not None and one["n_seeds"] == settings.n_seeds


def _mean_ratio(savings: Json, pools: list[str], name: str) -> float:
    """Return the geometric mean of the ratios."""
    return math.exp(sum(math.log(savings[f"{pool}.{name}"]["ratio"]) for pool in pools) / len(pools))


def _shown(savings: Json, pool: str, name: str | None) -> Json | None:
    one = savings.get(f"{pool}.{name}")
    return None if one is None else {key: one[key] for key in _SHOWN}


def _saves(savings: Json, pool: str, best: str | None, asked: float) -> Json:
    one = _shown(savings, pool, best)
    low = None if one is None else one["t_low"]
    return {
        "asked": asked,
        "best": one,
        "met": None if one is None else one["ratio"] >= asked,
        "met_at_the_lower_end": None if low is None else low >= asked,
    }


def _no_loss(savings: Json, pool: str, best: str | None, settings: StudySettings) -> Json:
    names = settings.all_selectors()[1:]
    found = {name: one for name in names if (one := _shown(savings, pool, name)) is not None}
    done = {name: one for name, one in found.items() if _is_finished(savings, pool, name, settings)}
    lose = _lose(done)
    energies = {name: one for name in done if (one := savings[f"{pool}.{name}"].get("energy_without_offset"))}
    waiting = [name for name in names if name not in done]
    # One that is shown to lose settles it; that none does is known when all are there, and have an interval.
    is_known = bool(lose) or (not waiting and settings.n_seeds >= MIN_SEEDS)
    return {
        "selectors": found,
        "best": _shown(savings, pool, best) if best in done else None,
        "lose": lose,
        "below_one": [name for name, one in found.items() if one["ratio"] < 1],
        "lose_energy": _lose(energies),
        "below_one_energy": [name for name, one in energies.items() if one["ratio"] < 1],
        "not_finished": waiting,
        "met": not lose if is_known else None,
    }


def _lose(found: Json) -> list[str]:
    return [name for name, one in found.items() if one["t_high"] is not None and one["t_high"] < 1]
