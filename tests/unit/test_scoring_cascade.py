"""The cascade: what it keeps, what it spends, when it gives up."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dubito.config import parse_config
from dubito.config.sanity import SanityConfig
from dubito.config.scoring import ScoringConfig
from dubito.config.selection import LOOK_AT_NO_SCORES, SelectionConfig
from dubito.core.errors import ConfigError
from dubito.data.structures import Structures
from dubito.scoring.cascade import FIT, Cascade, Rule, Verdict
from dubito.scoring.conformal import cutoff, positives_needed, rank_of_cutoff
from dubito.scoring.evaluations import Evaluations
from dubito.scoring.forecast import cheapest, exceedance, forecast
from dubito.scoring.matter import rule_of, share_that_matters
from dubito.scoring.members import joined, joined_forces
from dubito.scoring.upper_estimate import QUANTILE, UpperEstimate
from dubito.scoring.words import guarantee, record
from dubito.selection.batch import choose_batch

Array = np.ndarray[Any, Any]


def pool(n: int, seed: int, noise: float = 0.25) -> tuple[Array, Array]:
    """Return cheap features (n, 2) and full scores (n,): log-normal, known up to a noise, more of it where larger."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=n)
    log_score = -2.0 + 0.5 * hidden + noise * (1 + 0.5 * np.maximum(hidden, 0)) * rng.normal(size=n)
    return np.stack([hidden + 0.1 * rng.normal(size=n), rng.normal(size=n)], axis=1), np.exp(log_score)


def run(features: Array, scores: Array, rule: Rule, seed: int = 0, **more: Any) -> tuple[Verdict, list[int]]:
    asked: list[int] = []

    def full(rows: Array) -> Array:
        asked.extend(rows.tolist())
        out: Array = scores[rows]
        return out

    return Cascade(features, full, n_members=5, rule=rule, seed=seed, **more).decide(), asked


def test_rank_and_need() -> None:
    assert [positives_needed(recall) for recall in (0.5, 0.9, 0.95, 0.99)] == [1, 9, 19, 99]
    for recall in (0.5, 0.8, 0.9, 0.95, 0.98, 0.99):
        n = positives_needed(recall)
        assert rank_of_cutoff(n, recall) == 1
        assert rank_of_cutoff(n - 1, recall) == 0
    assert cutoff(np.arange(18.0), 0.95) == -math.inf, "too few positives: everything is kept"
    assert cutoff(np.arange(19.0)[::-1], 0.95) == 0.0
    assert cutoff(np.arange(39.0), 0.95) == 1.0


@pytest.mark.parametrize(("rule", "repeats"), [(Rule(0.95, 0.05), 200), (Rule(0.9, 0.0, level=0.4), 60)])
def test_recall_of_what_matters(rule: Rule, repeats: int) -> None:
    """Over many draws at least the promised share of positives that were not drawn gets the full score."""
    kept, all_kept, cost = [], [], []
    for seed in range(repeats):
        features, scores = pool(2000, seed)
        verdict, asked = run(features, scores, rule, seed)
        assert len(set(asked)) == len(asked) == verdict.full.sum()
        if verdict.cutoff is None:
            continue
        drawn = np.zeros(len(scores), bool)
        drawn[asked[: FIT + verdict.n_calibration]] = True
        matter = scores >= verdict.threshold
        kept.append(np.mean(verdict.full[matter & ~drawn]))
        all_kept.append(np.mean(verdict.full[matter]))
        cost.append(verdict.full.mean())
    assert len(kept) > 0.75 * repeats
    error = np.std(kept) / np.sqrt(len(kept))
    assert np.mean(kept) >= rule.recall - 2 * error
    assert np.mean(all_kept) >= np.mean(kept)
    assert np.mean(cost) < 0.75, "and it is worth it"


def test_why_not_a_bound_that_holds_on_average() -> None:
    """Conformal quantile regression covers 95 % of all candidates and loses far more than 5 % of those that matter."""
    covered, kept = [], []
    for seed in range(60):
        features, scores = pool(6000, seed)
        rows = np.random.default_rng(seed).permutation(6000)
        first, second, rest = rows[:300], rows[300:1300], rows[1300:]
        model = UpperEstimate.fit(features[first], np.log(scores[first]))
        upper = model(features)
        excess = np.sort(np.log(scores[second]) - upper[second])
        upper = upper + excess[math.ceil(0.95 * 1001) - 1]
        level = np.quantile(scores, 0.98)
        covered.append(np.mean(np.log(scores[rest]) <= upper[rest]))
        matter = rest[scores[rest] >= level]
        kept.append(np.mean(upper[matter] >= np.log(level)))
    assert np.mean(covered) == pytest.approx(0.95, abs=0.005)
    assert np.mean(kept) < 0.92


def test_estimates_stay_below_the_threshold() -> None:
    features, scores = pool(4000, 1)
    verdict, _ = run(features, scores, Rule(0.95, 0.04))
    assert verdict.threshold is not None
    assert np.all(verdict.estimate[~verdict.full] < verdict.threshold)
    assert np.all(np.isnan(verdict.estimate[verdict.full]))
    # They are upper estimates: most true scores lie below.
    assert np.mean(scores[~verdict.full] <= verdict.estimate[~verdict.full]) > 0.8
    again, _ = run(features, scores, Rule(0.95, 0.04))
    np.testing.assert_array_equal(again.full, verdict.full)
    np.testing.assert_array_equal(again.estimate, verdict.estimate)
    other, _ = run(features, scores, Rule(0.95, 0.04), seed=1)
    assert np.any(other.full != verdict.full)


@pytest.mark.parametrize(
    ("case", "rule", "says"),
    [
        ("hard", Rule(0.95, 0.6), "to cost"),
        ("hard level", Rule(0.95, 0.0, level=0.11), "to cost"),
        ("blind", Rule(0.95, 0.02), "to cost"),
        ("rare", Rule(0.95, 0.0, level=3.0), "are expected to reach"),
        ("small", Rule(0.95, 0.05), "too few to draw from"),
        ("broken", Rule(0.95, 0.05), "have finite features and scores"),
    ],
)
def test_a_pool_where_nothing_is_saved(case: str, rule: Rule, says: str) -> None:
    features, scores = pool(400 if case == "small" else 3000, 2)
    if case == "blind":
        features = np.random.default_rng(0).normal(size=features.shape)
    if case == "broken":
        features = np.where(np.arange(len(features))[:, None] % 3 > 0, np.nan, features)
    verdict, asked = run(features, scores, rule)
    assert verdict.full.all(), "nothing is lost"
    assert says in verdict.note
    assert sorted(asked) == list(range(len(scores))), "and nothing is evaluated twice"
    assert Evaluations(len(scores), len(asked), 5, n_known=100).ratio <= 1.1
    assert guarantee(rule, verdict) == "Every candidate got the full score."


def test_a_draw_that_is_not_of_this_pool_is_noticed() -> None:
    features, scores = pool(3000, 3)
    cold_first = np.argsort(features[:, 0] > np.quantile(features[:, 0], 0.7), kind="stable")
    order = np.concatenate([np.random.default_rng(0).permutation(cold_first[:2100]), cold_first[2100:]])
    # The first draw is of the whole pool, the calibration of its cold part.
    mixed = np.random.default_rng(1).permutation(3000)[:FIT]
    order = np.concatenate([mixed, order[~np.isin(order, mixed)]])
    verdict, _ = run(features, scores, Rule(0.95, 0.15), order=order)
    assert verdict.full.all()
    assert verdict.same_p is not None
    assert verdict.same_p < 1e-3
    assert "not those of the pool" in verdict.note
    honest, _ = run(features, scores, Rule(0.95, 0.15))
    assert honest.same_p is not None
    assert honest.same_p > 1e-3


def test_what_is_no_number_gets_the_full_score() -> None:
    features, scores = pool(3000, 4)
    features[::50, 0] = np.nan
    scores[::75] = np.nan
    verdict, _ = run(features, scores, Rule(0.95, 0.05))
    assert verdict.cutoff is not None
    assert verdict.full[::50].all()
    assert np.isfinite(verdict.estimate[~verdict.full]).all()


def test_estimate_is_a_quantile() -> None:
    features, scores = pool(4000, 5)
    constant = np.column_stack([features, np.full(len(features), 3.0)])
    model = UpperEstimate.fit(constant[:2000], np.log(scores[:2000]))
    assert np.mean(np.log(scores[2000:]) <= model(constant[2000:])) == pytest.approx(QUANTILE, abs=0.03)
    assert model.slopes[0] > 0.2
    assert model(np.array([[1e6, 0.0, 3.0]]))[0] == pytest.approx(math.log(10 * scores[:2000].max()))


def test_forecast_is_near_the_truth() -> None:
    features, scores = pool(20000, 6)
    model = UpperEstimate.fit(features[:400], np.log(scores[:400]))
    estimates, logs = model(features), np.log(scores)
    level = float(np.quantile(logs, 0.9))
    assert exceedance(estimates, model.residuals, level).mean() == pytest.approx(0.1, abs=0.03)
    found = forecast(estimates, model.residuals, level, recall=0.95, n_drawn=400)
    assert found.share == pytest.approx(0.1, abs=0.03)
    matter = logs >= level
    truth = np.mean(estimates >= np.quantile(estimates[matter], 0.05))
    drawn = (400 + 19 / 0.1) / 20000
    assert found.evaluated == pytest.approx(drawn + (1 - drawn) * truth, abs=0.06)
    wide = cheapest(estimates, model.residuals, 1e-4, recall=0.95, n_drawn=400)
    assert wide.share > 1e-3, "two candidates of 20000 matter: a wider level is cheaper to calibrate"


def test_which_candidates_matter() -> None:
    def share(selector: str, n: int = 1000, scoring: dict[str, Any] | None = None, **more: Any) -> float:
        selection = SelectionConfig.model_validate({"selector": selector, "n_select": 20, **more})
        return share_that_matters(ScoringConfig.model_validate(scoring or {}), selection, n)

    assert share("top_uncertainty") == pytest.approx(0.03)
    assert share("top_uncertainty", skip_top_fraction=0.02) == pytest.approx(0.05)
    assert share("farthest_point") == 0.5
    assert share("random") == pytest.approx(0.001)
    assert share("top_uncertainty", n=10) == 1.0
    assert share("farthest_point", scoring={"top_fraction": 0.1}) == 0.1
    assert share("lcmd") == share("max_det") == share("threshold_window") == share("random")
    assert share("lcmd", skip_top_fraction=0.02) == pytest.approx(0.021)


NAN = float("nan")
WINDOWS: list[tuple[str, dict[str, float], tuple[float, float] | None]] = [
    ("lcmd", {}, None),
    ("lcmd", {"skip_top_fraction": 0.1}, None),
    ("lcmd", {"max_score": 1.5}, None),
    ("max_det", {"min_score": 1.2, "max_score": 2.5}, None),
    ("random", {"skip_accepted": True}, (1.2, 1.8)),
    ("threshold_window", {"min_score": 1.4}, None),
    ("threshold_window", {}, (1.5, NAN)),
    ("threshold_window", {"skip_top_fraction": 0.05}, (1.3, 1.3)),
    ("threshold_window", {}, None),
    ("top_uncertainty", {"max_score": 1.5, "skip_top_fraction": 0.02}, None),
    ("top_uncertainty", {"skip_accepted": True}, (2.3, 1.3)),
    ("top_uncertainty", {"skip_accepted": True}, (2.3, NAN)),
    ("clustered_top", {"max_score": 2.2}, None),
    ("farthest_point", {"skip_accepted": True}, (0.9, 0.9)),
    ("farthest_point", {"min_score": 0.9}, None),
]


@pytest.mark.parametrize(("selector", "window", "limits"), WINDOWS)
def test_the_batch_is_that_of_full_scores(
    selector: str, window: dict[str, float], limits: tuple[float, float] | None
) -> None:
    """Where all that reaches the threshold has the full score, estimates of the others change nothing of the batch."""
    n, rng = 1600, np.random.default_rng(4)
    scores = np.exp(rng.normal(scale=0.6, size=n))
    sampler = np.arange(n) % 2
    scores[sampler == 0] *= 1.3
    config = SelectionConfig.model_validate({"selector": selector, "n_select": 20, "features": "latent", **window})
    rule = rule_of(ScoringConfig(), config, n, limits)
    # The cheap score knows the rank, but for a little, and nothing of the size.
    cheap = np.log(scores)[:, None] + rng.normal(scale=0.01, size=(n, 1))
    cascade = Cascade(cheap, lambda rows: scores[rows], n_members=8, rule=rule, seed=1)
    verdict = cascade.decide()
    if limits is None or not np.isnan(limits).any() or selector in LOOK_AT_NO_SCORES:
        assert not verdict.note
        assert verdict.full.mean() < (0.55 if selector not in ("clustered_top", "farthest_point") else 0.8)
    threshold = verdict.threshold or 0.0
    full = verdict.full | (scores >= threshold)
    seen = np.where(full, scores, threshold * rng.uniform(0.3, 0.999, size=n))
    water = np.array([[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]])
    pool = Structures.build([np.array([8, 1, 1])] * n, [water + rng.normal(scale=0.05, size=(3, 3)) for _ in range(n)])
    features = rng.normal(size=(n, 4))
    batches = [
        choose_batch(
            pool,
            labelled=Structures.empty(),
            config=config,
            sanity=SanityConfig(),
            seed=0,
            iteration=1,
            scores=each,
            features=features,
            accepted_up_to=None if limits is None else np.array(limits)[sampler],
        )
        for each in (scores, seen)
    ]
    assert len(batches[0].chosen) > 20
    assert batches[0].chosen == batches[1].chosen


def test_shares_of_samplers_are_refused_where_scores_rank() -> None:
    raw: dict[str, Any] = {"scoring": {"adaptive": True}, "selection": {"stratify_by_sampler": True}}
    with pytest.raises(ConfigError, match="takes the most doubtful of each sampler"):
        parse_config(raw)
    raw["selection"]["selector"] = "lcmd"
    assert parse_config(raw).scoring.adaptive


@pytest.mark.parametrize("m", [2, 3, 5])
def test_members_joined(m: int) -> None:
    forces = np.random.default_rng(0).normal(size=(m, 7, 3))
    others = forces[1:]
    spread = others.std(axis=0, ddof=1) if m > 2 else np.zeros((7, 3))
    pooled = np.sqrt((spread**2).mean(axis=1))
    mean, deviation = joined_forces(forces[0], others.mean(axis=0), pooled, m)
    np.testing.assert_allclose(mean, forces.mean(axis=0))
    np.testing.assert_allclose(deviation, np.sqrt(forces.var(axis=0, ddof=1).mean(axis=1)))
    mean, squares = joined(forces[0], others.mean(axis=0), spread, m)
    np.testing.assert_allclose(squares / (m - 1), forces.var(axis=0, ddof=1))


def test_account_and_words() -> None:
    account = Evaluations(1000, 300, 5, n_known=50)
    assert (account.spent, account.full, account.saved) == (2250, 5000, 2750)
    assert account.ratio == 0.45
    assert Evaluations(0, 0, 5).ratio == 1.0
    rule = Rule(0.95, 0.03)
    features, scores = pool(3000, 7)
    verdict, _ = run(features, scores, rule)
    said = guarantee(rule, verdict)
    assert f"at least {verdict.threshold:.4g} eV/Å" in said
    assert "probability of at least 0.95" in said
    assert "Nothing is said of other candidates" in said
    about = record(rule, verdict, account)
    assert {"n", "n_calibration", "n_escalated", "threshold", "recall_target", "guarantee"} <= set(about)
    assert {"compute_ratio", "saved_evaluations", "note"} <= set(about)
