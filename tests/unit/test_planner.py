"""The planner: exact curves are found again, intervals hold what they should, and the plan says what it knows."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from dubito.core.errors import DataError
from dubito.core.random import generator
from dubito.metrics.errors import rmse_relative_sd
from dubito.planning.curve import fit_curve, quantiles
from dubito.planning.plan import Ahead, limited_by, make_plan, past_forecasts, training_ratio
from dubito.planning.points import Point, error_kind, points_of, relative_sd
from dubito.planning.stop import has_not_fallen, is_below_price, why_stalled
from dubito.planning.target import worst_errors

LABELS = np.array([50.0, 80, 120, 180, 240, 300])


def curve_of(errors, sd=0.001, labels=LABELS, seed=0):
    """Fit a curve, seeded."""
    return fit_curve(labels, errors, sd, generator(seed, "test"))


def points(errors, labels=None, sd=0.03):
    """Return points of these errors."""
    labels = labels or [50 * (k + 1) for k in range(len(errors))]
    return [Point(k, n, e, sd, k) for k, (n, e) in enumerate(zip(labels, errors, strict=True))]


def plan_of(errors, labels=None, sd=0.03, *, target=None, ratio=None, batch=50, most=None, **more):
    """Return the plan after these points."""
    found = points(errors, labels, sd)
    now = found[-1].labels if found else 0
    return make_plan(found, "test", Ahead(now, batch, most, target, "config", **more), ratio, 5.0, seed=1)


@pytest.mark.parametrize("b", [0.25, 0.5, 1.0])
def test_an_exact_power_law_is_found_again(b):
    curve = curve_of(0.2 * (LABELS / 100) ** -b, sd=0.0)
    assert quantiles(curve.exponent)[1] == pytest.approx(b, rel=0.02)
    target = 0.2 * (500 / 100) ** -b
    assert quantiles(curve.labels_to(target))[1] == pytest.approx(500, rel=0.05)
    assert np.mean(np.isinf(curve.labels_to(target))) < 0.01


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_an_exact_floor_is_found_again(share):
    truth = lambda n: 0.1 * ((1 - share) * (n / 300) ** -0.7 + share)  # noqa: E731
    curve = curve_of(truth(LABELS), sd=0.0)
    low, _, high = quantiles(curve.floor)
    assert low <= share <= high
    assert quantiles(curve.labels_to(truth(450.0)))[1] == pytest.approx(450, rel=0.05)


def test_a_target_below_the_floor_is_unreachable():
    flat = np.array([0.12, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert np.mean(np.isinf(curve_of(flat).labels_to(0.05))) > 0.7
    assert np.mean(np.isinf(curve_of(0.1 * (LABELS / 300) ** -0.6).labels_to(0.05))) < 0.2


def test_the_error_and_the_labels_to_it_are_inverse_of_each_other():
    curve = curve_of(0.2 * (LABELS / 100) ** -0.4, sd=0.05)
    for target in (0.25, 0.11):  # before the last point, and beyond it
        labels = curve.labels_to(target)
        back = [curve.error(n)[i] for i, n in enumerate(labels[:50]) if np.isfinite(n)]
        assert np.allclose(back, target, rtol=1e-9)


def test_more_noise_makes_wider_forecasts():
    errors, rng = 0.2 * (LABELS / 100) ** -0.5, generator(0, "noise")
    low, high = (np.ptp(np.log(quantiles(curve_of(errors, sd).measured(600, sd, rng)))) for sd in (0.02, 0.2))
    assert high > 2 * low


def test_the_same_seed_gives_the_same_curve():
    one, two = (curve_of(0.2 * LABELS**-0.5, 0.05, seed=3) for _ in range(2))
    assert np.array_equal(one.exponent_ahead, two.exponent_ahead)
    assert not np.array_equal(one.level, curve_of(0.2 * LABELS**-0.5, 0.05, seed=4).level)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_of_error_and_label_do_not_matter(scale):
    errors = 0.2 * (LABELS / 100) ** -0.5 * np.array([1.05, 0.95, 1.02, 1, 0.97, 1.01])
    one, two = curve_of(errors, 0.05), curve_of(scale * errors, 0.05, labels=LABELS * 1000)
    assert np.allclose(one.exponent, two.exponent)
    assert np.allclose(one.floor, two.floor)


def test_errors_that_rise_are_no_fault():
    curve = curve_of([0.1, 0.11, 0.1, 0.12, 0.13, 0.12], 0.05)
    assert np.all(np.isfinite(curve.error(600.0)))
    assert 0.9 < np.median(curve.error(600.0) / curve.error(300.0)) <= 1


@pytest.mark.parametrize(
    ("labels", "errors", "word"),
    [
        ([1, 2], [1, 1], "3 points"),
        ([1, 2, 3], [1, math.nan, 1], "Point 2"),
        ([1, 2, 3], [1, 1, 0], "Point 3"),
        ([0, 2, 3], [1, 1, 1], "Point 1"),
        ([1, 2, 3], [1, 1], "3 and 2"),
    ],
)
def test_what_is_no_curve_is_refused(labels, errors, word):
    with pytest.raises(DataError, match=word):
        fit_curve(labels, errors, 0.1, generator(0, "test"))


def _line(labels, errors, rng):
    """Draw labels to a target from a straight line in logs (least squares, normal theory)."""
    x = np.stack([np.ones(len(labels)), np.log(labels)], 1)
    inverse = np.linalg.inv(x.T @ x)
    best = inverse @ x.T @ np.log(errors)
    sd = np.sqrt(np.sum((np.log(errors) - x @ best) ** 2) / rng.chisquare(len(labels) - 2, 2000))
    draws = best + sd[:, None] * (rng.standard_normal((2000, 2)) @ np.linalg.cholesky(inverse).T)
    return lambda target: np.exp(np.clip((np.log(target) - draws[:, 0]) / np.minimum(draws[:, 1], -1e-9), -50, 50))


def _family(name, rng):
    b, share = rng.uniform(0.2, 1.0), rng.uniform(0.1, 0.7)
    bend, later = rng.uniform(100, 500), b * rng.uniform(0.3, 0.9)
    return {
        "power": lambda n: 0.1 * (n / 300) ** -b,
        "floor": lambda n: 0.1 * ((1 - share) * (n / 300) ** -b + share),
        "broken": lambda n: (n / bend) ** -b * (1 + (n / bend) ** 5) ** ((b - later) / 5),
    }[name]


@pytest.mark.parametrize("family", ["power", "floor", "broken"])
def test_the_interval_holds_the_labels_to_the_target_and_better_than_a_line_does(family):
    inside, of_line, repeats = 0, 0, 200
    for i in range(repeats):
        rng = generator(5, "coverage", family, i)
        truth = _family(family, rng)
        errors = truth(LABELS) * np.exp(0.05 * rng.standard_normal(len(LABELS)))
        true = 300 * rng.uniform(1.15, 2)
        low, _, high = quantiles(fit_curve(LABELS, errors, 0.04, rng, draws=2000).labels_to(float(truth(true))))
        inside += low <= true <= high
        low, _, high = quantiles(_line(LABELS, errors, rng)(float(truth(true))))
        of_line += low <= true <= high
    assert 0.7 <= inside / repeats <= 0.99
    assert of_line < inside - 0.05 * repeats


# --- points ------------------------------------------------------------------------------------------


def metrics(k, total, control=0, **errors):
    """Return the metrics of an iteration; errors by set."""
    sets = {
        name: {"force_rmse_ev_per_angstrom": value, "n_structures": 40} if not isinstance(value, dict) else value
        for name, value in errors.items()
    }
    return {"iteration": k, "labels": {"total": total, "control": control, "new": 1, "failed": 0}, "errors": sets}


def test_a_test_set_comes_first_then_control_slices_then_validation():
    assert error_kind([metrics(0, 10, valid=1), metrics(1, 20, valid=1, control=1, test=1)]) == "test"
    assert error_kind([metrics(0, 10, valid=1), metrics(1, 20, valid=1)]) == "valid"
    history = [metrics(0, 10), metrics(1, 20)]
    history[1]["errors"] = {"control": {"force_rmse_ev_per_angstrom": 0.1}}
    assert error_kind(history) == "control"


def test_a_control_slice_is_an_error_of_the_model_before_it():
    history = [metrics(0, 12, valid=0.5), metrics(1, 30, 2), metrics(2, 48, 3)]
    history[1]["errors"]["control"] = {"force_rmse_ev_per_angstrom": 0.3, "n_structures": 2}
    history[2]["errors"]["control"] = {"force_rmse_ev_per_angstrom": 0.2, "n_structures": 3}
    found = points_of(history, "control")
    assert [(p.iteration, p.labels, p.error, p.model) for p in found] == [(1, 12, 0.3, 0), (2, 28, 0.2, 1)]
    assert [(p.iteration, p.labels) for p in points_of(history, "valid")] == [(0, 12)]


@pytest.mark.parametrize("value", [None, math.nan, math.inf, 0.0, -1.0, True, "0.1"])
def test_an_error_that_is_no_number_is_no_point(value):
    history = [metrics(0, 10, test=0.2), metrics(1, 20, test={"force_rmse_ev_per_angstrom": value})]
    assert [p.iteration for p in points_of(history, "test")] == [0]


def test_the_sampling_error_is_that_of_a_ratio_over_structures():
    rng = generator(2, "rmse")
    sizes = 0.3 * np.exp(0.5 * rng.standard_normal((400, 30)))
    found = []
    for row in sizes:
        errors = np.repeat(row, 4)[:, None] * rng.standard_normal((120, 3))
        found.append((np.sqrt(np.mean(errors**2)), rmse_relative_sd(errors, 0 * errors, np.arange(0, 121, 4))))
    actual = np.std([np.log(value) for value, _ in found])
    assert np.sqrt(np.mean([sd**2 for _, sd in found])) == pytest.approx(actual, rel=0.15)
    assert math.isnan(rmse_relative_sd(np.ones((4, 3)), np.zeros((4, 3)), [0, 4]))
    assert rmse_relative_sd(np.zeros((4, 3)), np.zeros((4, 3)), [0, 2, 4]) == 0.0


def test_few_structures_are_believed_less():
    many, few = ({"n_structures": n, "force_rmse_relative_sd": 0.0} for n in (1000, 4))
    assert relative_sd(many) < 0.002
    assert 0.1 < relative_sd(few) < 0.25
    assert relative_sd({"n_structures": 25}) == pytest.approx(0.1)
    assert relative_sd({"n_structures": 25, "force_rmse_relative_sd": None}) == pytest.approx(0.1)


def test_the_target_is_where_the_tolerance_would_hold():
    history = [metrics(0, 10, test=0.2), metrics(1, 30, 20, test=0.1)]
    worst = [0.4] * 19 + [2.0]
    history[1]["errors"]["control"] = {"worst_force_errors": worst}
    found = points_of(history, "test")
    best = lambda risk: worst_errors(history, found).best(0.3, risk)  # noqa: E731
    # 19 of 20 structures err by at most twice the RMSE of the model that was judged.
    assert best(0.05) == pytest.approx(0.15)
    assert best(0.01) == pytest.approx(0.03)
    history[1]["errors"]["control"]["worst_force_errors"] = [*worst[:-1], None]
    assert best(0.05) == pytest.approx(0.15)
    assert best(0.01) is None
    assert worst_errors(history[:1], found[:1]) is None


def _slices(worst, n_models=3):
    """Return metrics with one control slice for each model, worst errors over the RMSE, and an exact test set."""
    errors = [0.2 * (n / 100) ** -0.5 for n in LABELS[: n_models + 1]]
    history = [metrics(k, int(n), test=e) for k, (n, e) in enumerate(zip(LABELS, errors, strict=False))]
    for k, part in enumerate(np.array_split(np.asarray(worst), n_models)):
        history[k + 1]["errors"]["control"] = {"worst_force_errors": (part * errors[k]).tolist()}
    return history


@pytest.mark.parametrize(("n", "risk"), [(20, 0.05), (60, 0.05), (120, 0.1)])
def test_the_draws_of_the_target_hold_it_in_four_of_five(n, risk):
    """Of a log-normal law, whose quantile a slice of 20 leaves open beyond its largest in a third of all cases."""
    true = 0.3 / math.exp(0.5 * {0.05: 1.64485, 0.1: 1.28155}[risk])
    inside, repeats = 0, 200
    curve = curve_of(0.2 * (LABELS / 100) ** -0.5, sd=0.0)
    for i in range(repeats):
        rng = generator(3, "target", n, i)
        history = _slices(np.exp(0.5 * rng.standard_normal(n)))
        low, _, high = quantiles(worst_errors(history, points_of(history, "test")).draws(curve, rng, 0.3, risk))
        inside += low <= true <= high
    assert 0.72 <= inside / repeats <= 0.92


def test_an_error_that_is_no_number_leaves_a_target_that_may_be_zero():
    history = _slices([1.0] * 54 + [2.0] * 6)
    history[3]["errors"]["control"]["worst_force_errors"][-1] = None
    curve = curve_of(0.2 * (LABELS / 100) ** -0.5, sd=0.0)
    found = worst_errors(history, points_of(history, "test"))
    drawn = found.draws(curve, generator(0, "test"), 0.3, 0.01)
    assert found.best(0.3, 0.01) is None
    assert np.mean(drawn < 1e-6) > 0.4
    assert not np.isnan(drawn).any()
    assert quantiles(found.draws(curve, generator(0, "test"), 0.3, 0.05))[1] == pytest.approx(0.15, rel=0.1)


@pytest.mark.parametrize("n", [1, 2])
def test_one_structure_is_no_fault(n):
    history = _slices([1.0, 1.5][:n], n_models=1)
    drawn = worst_errors(history, points_of(history, "test")).draws(
        curve_of(LABELS**-0.5), generator(0, "t"), 0.3, 0.05
    )
    assert np.isfinite(drawn).all()


# --- the plan ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_points_are_no_plan(n):
    assert plan_of([0.3, 0.2, 0.15][:n]) is None


def test_the_plan_forecasts_to_twice_the_labels_and_no_farther():
    errors = [0.2 * (n / 100) ** -0.5 for n in (50, 100, 150, 200)]
    plan = plan_of(errors, target=0.2 * 3**-0.5)
    assert (plan["forecast"][0]["labels"], plan["forecast"][-1]["labels"]) == (200, 400)
    assert all(row["q10"] < row["q50"] < row["q90"] for row in plan["forecast"])
    assert plan["labels_to_target"]["q50"] == pytest.approx(300, rel=0.1)
    far = plan_of(errors, target=0.02)
    assert far["labels_to_target"] == {"q10": None, "q50": None, "q90": None}
    assert 0 < far["probability_unreachable"] < 0.9


def test_the_chance_to_keep_the_tolerance_is_asked_at_once_and_a_half_and_four_times_the_labels():
    errors = [0.2 * (n / 100) ** -0.5 for n in (50, 100, 150, 200)]
    chances = []
    for n in (150, 280, 330, 700, 1400):
        plan = plan_of(errors, sd=0.005, tolerable=0.2 * (n / 100) ** -0.5)
        chances.append((plan["probability_tolerable_soon"], plan["probability_tolerable_at_all"]))
        assert plan["labels_to_target"]["q50"] is None  # another thing than the target
    assert chances[0] == (1.0, 1.0)
    assert chances[1][0] > 0.5 > chances[2][0]
    assert chances[2][1] > 0.5 > chances[4][1]
    assert all(early >= late for pair in pairwise(chances) for early, late in zip(*pair, strict=True))
    assert plan_of(errors)["probability_tolerable_soon"] is plan_of(errors)["probability_tolerable_at_all"] is None


def test_a_target_that_is_only_estimated_widens_what_it_costs():
    errors = [0.2 * (n / 100) ** -0.5 for n in (50, 100, 150, 200)]
    target = 0.2 * 2.8**-0.5
    of = {"sd": 0.005, "target": target, "core_hours": lambda n: n / 10}
    exact = plan_of(errors, **of)
    drawn = plan_of(errors, **of, draw_target=lambda c, rng: target * np.exp(0.1 * rng.standard_normal(len(c.level))))
    assert exact["target_interval_ev_per_angstrom"] is None
    assert drawn["target_interval_ev_per_angstrom"]["q10"] == pytest.approx(target * math.exp(-0.128), rel=0.02)
    for key in ("labels_to_target", "core_hours_to_target"):
        assert drawn[key]["q10"] < 0.9 * exact[key]["q10"]
        assert drawn[key]["q90"] is None or drawn[key]["q90"] > 1.1 * exact[key]["q90"]
    same = ("forecast", "gain_percent_per_100_labels", "probability_of_5_percent", "past_forecasts")
    assert all(exact[key] == drawn[key] for key in same)


def test_the_plan_says_what_a_target_costs():
    errors = [0.2 * (n / 100) ** -0.5 for n in (50, 100, 150, 200)]
    plan = plan_of(errors, sd=0.005, target=0.2 * 3**-0.5, core_hours=lambda n: n / 10, core_hours_per_label=0.1)
    assert plan["core_hours_to_target"]["q50"] == pytest.approx(30, rel=0.1)
    nothing = plan_of(errors)
    assert nothing["core_hours_to_target"] is nothing["probability_unreachable"] is nothing["target_from"] is None


def test_the_chance_within_the_budget_rises_with_it_and_is_not_said_beyond_reach():
    errors = [0.2 * (n / 100) ** -0.5 for n in (50, 100, 150, 200)]
    few, many, beyond = (plan_of(errors, target=0.2 * 3**-0.5, most=most) for most in (220, 390, 401))
    assert few["probability_by_budget"] < 0.2
    assert many["probability_by_budget"] > 0.8
    assert beyond["probability_by_budget"] is None


def test_the_gain_is_that_of_a_hundred_labels():
    errors = [0.2 * (n / 100) ** -0.5 for n in (100, 200, 300, 400)]
    gain = plan_of(errors, [100, 200, 300, 400], sd=0.005)["gain_percent_per_100_labels"]
    assert gain["q50"] == pytest.approx(100 * (1 - (5 / 4) ** -0.5), rel=0.1)
    assert gain["q10"] < gain["q50"] < gain["q90"]


def test_past_forecasts_are_those_that_were_made():
    errors = [0.3, 0.22, 0.17, 0.155, 0.14, 0.05]
    found = past_forecasts(points(errors), seed=1)
    # At 150 labels 300 are in reach, at 200 and 250 all are.
    assert [(row["made_at_iteration"], row["labels"]) for row in found] == [
        (2, 200), (2, 250), (2, 300), (3, 250), (3, 300), (4, 300),
    ]  # fmt: skip
    assert [row["inside"] for row in found if row["labels"] == 300] == [False] * 3
    assert found[0]["inside"]
    assert past_forecasts(points(errors[:4]), seed=1) == found[:1]


def test_train_against_validation_tells_what_limits():
    assert limited_by(None) == "unknown"
    assert limited_by((0.2, 0.1)) == "data"
    assert limited_by((0.9, 0.1)) == "training"
    assert limited_by((0.9, 0.6)) == limited_by((0.5, 0.3)) == "unknown"
    errors = metrics(0, 10, train=0.05, valid=0.1)["errors"]
    assert training_ratio(errors, relative_sd) == (0.5, pytest.approx(math.sqrt(2) * relative_sd(errors["train"])))
    assert training_ratio(metrics(0, 10, train=0.05)["errors"], relative_sd) is None
    assert training_ratio(metrics(0, 10, train=None, valid=0.1)["errors"], relative_sd) is None


# --- when labels are no longer worth it --------------------------------------------------------------


def test_the_price():
    plan = {"gain_percent_per_100_labels": {"q50": 4.0}}
    assert [is_below_price(plan, price) for price in (5.0, 3.0, 0.0)] == [True, False, False]
    assert is_below_price(None, 5.0) is None
    assert is_below_price(None, 100.0) is True


def test_a_fall_within_the_noise_is_none():
    assert not has_not_fallen(points([0.3, 0.3, 0.3]))
    assert has_not_fallen(points([0.3, 0.3, 0.31, 0.3]))
    assert not has_not_fallen(points([0.3, 0.2, 0.15, 0.1]))
    assert has_not_fallen(points([0.3, 0.29, 0.28, 0.28], sd=0.15))


@pytest.mark.parametrize(
    ("errors", "ratio", "target", "why"),
    [
        ([0.12, 0.1, 0.1, 0.1, 0.1, 0.1], (0.2, 0.1), 0.02, "data"),
        ([0.4, 0.2, 0.1, 0.1, 0.1, 0.1], (0.2, 0.1), 0.02, None),  # a fall like that may not be over
        ([0.4, 0.2, 0.1, 0.1, 0.1, 0.1], (0.9, 0.1), 0.02, "training"),
        ([0.4, 0.2, 0.1, 0.1, 0.1, 0.1], (0.9, 0.1), 0.2, None),  # the target is reached
        ([0.4, 0.3, 0.2, 0.15, 0.12, 0.1], (0.9, 0.1), 0.02, None),  # it still falls
        ([0.4, 0.2], (0.9, 0.1), 0.02, None),
    ],
)
def test_stalled_is_flat_and_without_hope(errors, ratio, target, why):
    found = points(errors)
    assert why_stalled(found, plan_of(errors, ratio=ratio, target=target)) == why
