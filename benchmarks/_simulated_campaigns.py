"""Campaigns in which everything is known: a true learning curve, a pool whose errors follow it, real certificates.

The worst force error of a structure is log-normal around a multiple of the RMSE, and half known to the score that ranks
the pool. The rule is the product's own (`dubito.stages.decide`), with the product's certificate on each control slice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
from _curves import SEED_SD, Truth
from scipy.stats import norm

from dubito.certificate.certify import Slice, certify
from dubito.certificate.pool import StratumScores
from dubito.config.campaign import CampaignConfig
from dubito.config.control_size import control_labels_needed
from dubito.config.labelling import LabellingConfig
from dubito.config.planning import PlanningConfig
from dubito.config.selection import SelectionConfig
from dubito.stages._certified import Looks, certified
from dubito.stages._planning import outlook
from dubito.stages.decide import decide

WORST, SPREAD, RANK = 2.0, 0.5, 0.8
ACCEPTED = 0.9
POOL = 4000
LAST = 60
# Structures of a fixed test set, where there is one: all models share its sampling error.
TEST = 200
PRICE = 5.0
RULES: tuple[Looks, ...] = ("agreed", "once", "twice", "two_of_three")
# Campaigns that never get there: from so many labels on the error stays as it is.
PLATEAU = 500.0


@dataclass(frozen=True)
class Setting:
    """What a campaign is given: labels, and the tolerance and price that make it end."""

    first: int
    batch: int
    n_control: int
    risk: float
    tolerance: float
    price: float
    n_test: int
    test_error: float

    def known(self, model: int) -> int:
        """Return the labels that the model of an iteration knows: all but its own control slice."""
        return self.first + model * (self.batch + self.n_control) - (self.n_control if model else 0)


def true_miss_rate(error: float, tolerance: float) -> float:
    """Return the share above the tolerance of the structures accepted, when as many are as should be."""
    z = norm.ppf((np.arange(2000) + 0.5) / 2000 * ACCEPTED)
    limit = np.log(tolerance / (WORST * error)) / SPREAD
    return float(np.mean(norm.sf((limit - RANK * z) / np.sqrt(1 - RANK**2))))


def draw_setting(truth: Truth, rng: np.random.Generator, n_control: int | None = None) -> Setting:
    """Return a campaign; its tolerance, as a length on a log scale, is kept from somewhere within 150 to 900 labels on.

    Every other one has a fixed test set; the others follow the error of their control slices.
    """
    risk = float(rng.choice([0.05, 0.1]))
    drawn = int(rng.integers(max(20, control_labels_needed(risk, ACCEPTED)), 61))
    strict, loose = (np.log(_tolerance(float(truth.error(n)), risk)) for n in (900, 150))
    tolerance, batch = float(np.exp(rng.uniform(strict, loose))), int(rng.integers(50, 151))
    n_test = TEST * int(rng.integers(2))
    test_error = float(np.exp(sampling_sd(n_test) * rng.standard_normal())) if n_test else 1.0
    return Setting(100, batch, n_control or drawn, risk, tolerance, PRICE, n_test, test_error)


def on_a_plateau(truth: Truth, setting: Setting, times: float) -> tuple[Truth, Setting]:
    """Return a campaign whose error stops to fall where the true miss rate is so many times the risk."""
    flat = Truth("plateau", lambda n: truth.error(np.minimum(n, PLATEAU)))
    return flat, replace(setting, tolerance=_tolerance(float(flat.error(PLATEAU)), times * setting.risk))


def sampling_sd(n: int) -> float:
    """Return the relative sampling error of an RMSE over ``n`` structures."""
    return float(np.sqrt((np.exp(4 * SPREAD**2) - 1) / n) / 2)


def _tolerance(error: float, risk: float) -> float:
    low, high = np.log(error) - 3, np.log(error) + 5
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if true_miss_rate(error, np.exp(middle)) > risk else (low, middle)
    return float(np.exp(high))


def oracle(truth: Truth, setting: Setting) -> tuple[int, int]:
    """Return the first iteration in which the true miss rate is within the risk, and the one where it may also end."""
    safe = None
    for k in range(1, LAST + 1):
        # The slice of an iteration judges the model before it.
        if safe is None and true_miss_rate(float(truth.error(setting.known(k - 1))), setting.tolerance) <= setting.risk:
            safe = k
        if safe is not None and truth.gain(setting.known(k)) < setting.price:
            return safe, k
    return safe or LAST, LAST


def first_price(truth: Truth, setting: Setting) -> int:
    """Return the first iteration after which 100 more labels are truly worth less than their price."""
    return next((k for k in range(1, LAST + 1) if truth.gain(setting.known(k)) < setting.price), LAST)


def measured(k: int, truth: Truth, setting: Setting, rng: np.random.Generator) -> dict[str, Any]:
    """Return what evaluating iteration ``k`` would say."""
    total = setting.first + k * (setting.batch + setting.n_control)
    found: dict[str, Any] = {
        "iteration": k,
        "labels": {"total": total, "new": 1, "failed": 0, "control": setting.n_control if k else 0},
        "errors": {},
        "certificate": None,
        "miss_rate": {"value": None, "low": 0.0, "high": 1.0, "n_accepted": 0, "n_control": 0},
    }
    if setting.n_test:
        error = float(truth.error(setting.known(k))) * np.exp(SEED_SD * rng.standard_normal())
        found["errors"]["test"] = {
            "n_structures": setting.n_test,
            "force_rmse_ev_per_angstrom": error * setting.test_error,
            "force_rmse_relative_sd": sampling_sd(setting.n_test),
        }
    if k == 0:
        return found
    error = float(truth.error(setting.known(k - 1))) * np.exp(SEED_SD * rng.standard_normal())
    z = rng.standard_normal((2, POOL))
    worst = WORST * error * np.exp(SPREAD * (RANK * z[0] + np.sqrt(1 - RANK**2) * z[1]))
    scores, drawn = np.sort(z[0]), rng.choice(POOL, setting.n_control, replace=False)
    n = setting.n_control
    # The mean square force error of a structure goes with the square of its worst.
    squares = worst[drawn] ** 2 / (WORST**2 * np.exp(2 * SPREAD**2))
    found["errors"]["control"] = {
        "n_structures": n,
        "force_rmse_ev_per_angstrom": float(np.sqrt(squares.mean())),
        "force_rmse_relative_sd": float(squares.std(ddof=1) / squares.mean() / np.sqrt(n) / 2),
        "worst_force_errors": worst[drawn].tolist(),
    }
    found["certificate"] = certify(
        Slice(z[0][drawn], worst[drawn], ("all",) * n),
        {"all": StratumScores(POOL, scores)},
        tolerance=setting.tolerance,
        risk=setting.risk,
        min_accepted_fraction=ACCEPTED,
    )
    threshold = found["certificate"]["threshold"]
    accepted = np.delete(z[0], drawn) <= (-np.inf if threshold is None else threshold)
    wrong = np.delete(worst, drawn)[accepted] > setting.tolerance
    found["true_miss_rate"] = float(wrong.mean()) if wrong.size else 0.0
    return found


@dataclass(frozen=True)
class End:
    """How a campaign ends by one rule: in which iteration, as what, and when its certificate was first confirmed."""

    iteration: int
    state: str
    confirmed: int


def run(
    truth: Truth, setting: Setting, rng: np.random.Generator, last: int = LAST
) -> tuple[dict[Looks, End], list[dict[str, Any]]]:
    """Run a campaign until all rules have ended it; return how each does, and what was measured."""
    campaign = CampaignConfig(max_iterations=last, seed=int(rng.integers(1 << 30)))
    selection = SelectionConfig(
        n_select=setting.batch, risk=setting.risk, force_tolerance_ev_per_angstrom=setting.tolerance
    )
    planning, labelling = PlanningConfig(worth_percent_per_100_labels=setting.price), LabellingConfig()
    free = PlanningConfig(worth_percent_per_100_labels=100.0)
    history: list[dict[str, Any]] = []
    manifests: list[dict[str, Any]] = []
    confirmed: dict[Looks, int] = {}
    ends: dict[Looks, End] = {}
    for k in range(last + 1):
        history.append(measured(k, truth, setting, rng))
        size = setting.batch + setting.n_control if k else setting.first
        manifests.append({"iteration": k, "n_selected": size, "n_candidates": POOL, "rejected": {}})
        # Past forecasts take most of the time and decide nothing.
        with patch("dubito.planning.plan.past_forecasts", lambda points, seed: []):
            ahead = outlook(history, manifests, campaign, selection, planning)
        for looks in RULES:
            if k and looks not in confirmed:
                # At no price the certificate alone decides.
                yes = certified(history, ahead.plan, free, selection, looks=looks)
                confirmed |= {looks: k} if yes else {}
            if looks not in ends:
                state, _ = decide(history, manifests, campaign, selection, labelling, planning, ahead, looks)
                if state != "running":
                    ends[looks] = End(k, state, confirmed.get(looks, last))
        if len(ends) == len(RULES):
            break
    return ends, history
