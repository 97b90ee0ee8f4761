"""The report tells how many labels to come, what they cost, and why the campaign goes on or stopped."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import pytest
import synthetic_campaign as synthetic
import synthetic_certificate as planted
from reading_reports import data, is_clean, read, rows, section, specs

from dubito.reporting.summary import summarise


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return synthetic.build(tmp_path_factory.mktemp("campaign"), iterations=4)


@pytest.fixture
def campaign(built, tmp_path):
    shutil.copytree(built.folder, tmp_path / "campaign")
    return replace(built, folder=tmp_path / "campaign")


def test_the_forecast_stands_in_words_and_in_the_summary(campaign):
    planted.put(campaign, 3, plan=planted.plan())
    html, _, found = read(campaign)
    text = section(html, "planning")
    assert (
        "The target, a force error of 43.2 meV/Å, is expected at 129 labels (80 % interval from 103 to more than twice "
        "the labels of the last point; probability that no number of labels reaches it: 14 %)." in text
    )
    assert "Probability of reaching it within the iterations left: 62 %." in text
    assert "A label has cost 1.10 core-seconds so far." in text
    assert "100 more labels are worth 5 %" in text
    assert "Data-limited: structures trained on are known far better than others (training over validation" in text
    assert summarise(found)["plan"] == {
        "labels_to_target": {"q10": 103, "q50": 129, "q90": None},
        "probability_unreachable": 0.137,
    }
    assert rows(html, "What it would take")[1:] == [
        ["labels to the target", "103", "129", "–"],
        ["core-hours to the target", "0.0123", "0.0345", "–"],
        ["error lowered by 100 more labels, %", "12", "46", "68"],
    ]
    assert is_clean(html)


def test_the_fan_ends_at_twice_the_labels(campaign):
    plan = planted.plan()
    beyond = [{"labels": 400, "q10": 0.001, "q50": 0.002, "q90": 0.003}]
    planted.put(campaign, 3, plan=plan | {"forecast": plan["forecast"] + beyond})
    spec = specs(read(campaign)[0])["charts"]["forecast-0"]
    fan = [row for row in data(spec) if "middle" in row and "made" not in row]
    assert max(row["labels"] for row in fan) == 168
    by_labels = {row["labels"]: row for row in fan}
    for row in plan["forecast"]:
        drawn = by_labels[row["labels"]]
        assert (drawn["low"], drawn["middle"], drawn["high"]) == pytest.approx(
            tuple(1000 * row[q] for q in ("q10", "q50", "q90"))
        )


def test_points_ghosts_and_target_are_drawn_inside_the_axes(campaign):
    plan = planted.plan()
    planted.put(campaign, 3, plan=plan)
    spec = specs(read(campaign)[0])["charts"]["forecast-0"]
    points = {row["labels"]: row for row in data(spec) if "error" in row}
    for point in plan["points"]:
        drawn = points[point["labels"]]
        assert drawn["error"] == pytest.approx(1000 * point["error_ev_per_angstrom"])
        assert math.log(drawn["high"] / drawn["error"]) == pytest.approx(1.96 * point["relative_sd"])
    ghost, *again = [row for row in data(spec) if "made" in row]
    assert all(row == ghost for row in again)  # a bar and a tick
    assert (ghost["made"], ghost["labels"], ghost["middle"]) == (2, 84, pytest.approx(60))
    (aim,) = [row["aim"] for row in data(spec) if "aim" in row]
    assert aim == pytest.approx(43.2)
    low, high = next(
        layer["encoding"]["y"]["scale"]["domain"]
        for layer in spec["layer"]
        if "scale" in layer["encoding"].get("y", {})
    )
    assert low < aim < high
    assert all(low < row["error"] < high for row in points.values())


def test_earlier_forecasts_are_put_to_the_test(campaign):
    late = {"made_at_iteration": 2, "labels": 84, "q10": 0.07, "q50": 0.08, "q90": 0.09, "realised": 0.0584}
    good = late | {"q10": 0.05}
    planted.put(campaign, 3, plan=planted.plan(past_forecasts=[good, late]))
    html, _, _ = read(campaign)
    assert "1 of 2 earlier forecasts held what came within the 80 % interval." in section(html, "planning")
    planted.put(campaign, 3, plan=planted.plan(past_forecasts=[]))
    html, _, _ = read(campaign)
    assert "No earlier forecast has been put to the test yet." in section(html, "planning")
    assert "forecast earlier" not in str(specs(html)["charts"]["forecast-0"])


def test_labels_at_hand_that_are_not_judged_yet_are_told(campaign):
    path = campaign.where(3) / "metrics.json"
    metrics = json.loads(path.read_text())
    planted.put(campaign, 3, plan=planted.plan())
    more = "labels at hand already exceed that; the model trained on them is not judged yet."
    for known, said in ((128, False), (129, True)):
        path.write_text(json.dumps(metrics | {"labels": metrics["labels"] | {"total": known + 8, "control": 8}}))
        assert (f"The {known} {more}" in section(read(campaign)[0], "planning")) is said


def test_the_interval_of_an_estimated_target_is_told(campaign):
    between = {"q10": 0.0345, "q50": 0.0432, "q90": 0.0567}
    planted.put(campaign, 3, plan=planted.plan(target_interval_ev_per_angstrom=between))
    html, _, _ = read(campaign)
    assert "a force error of 43.2 meV/Å (34.5 to 56.7), is expected at" in section(html, "planning")
    assert "what they leave open (in brackets: 80 %)" in section(html, "planning")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"probability_unreachable": 0.8, "labels_to_target": dict.fromkeys(("q10", "q50", "q90"))},
            "out of reach of more labels with a probability of 80 %",
        ),
        (
            {"probability_unreachable": 0.2, "labels_to_target": dict.fromkeys(("q10", "q50", "q90"))},
            "takes more than twice the 84 labels of the last point",
        ),
        ({"labels_to_target": {"q10": 40, "q50": 60, "q90": 90}}, "is reached with the 84 labels of the last point"),
        ({"probability_unreachable": 0.0}, "reaches it: below 1.0 %"),
        (
            {
                "target_ev_per_angstrom": None,
                "target_from": None,
                "probability_unreachable": None,
                "probability_by_budget": None,
                "core_hours_to_target": None,
                "core_hours_per_label": None,
                "labels_to_target": dict.fromkeys(("q10", "q50", "q90")),
            },
            "No target error is known yet. 100 more labels would lower the error by 46 %.",
        ),
        ({"limited_by": "training"}, "Training-limited: structures trained on are known hardly better than others"),
        ({"limited_by": "training"}, "labels help these as forecast above, all the same"),
        (
            {"limited_by": "unknown", "train_test_ratio": None},
            "Whether data or training limits the error can't be told",
        ),
    ],
)
def test_every_outlook_has_its_words(campaign, changes, said):
    planted.put(campaign, 3, plan=planted.plan(**changes))
    html, _, _ = read(campaign)
    assert said in section(html, "planning")
    assert is_clean(html)


def test_without_a_plan_it_says_why(campaign):
    planted.put(campaign, 3, plan=None)
    html, _, found = read(campaign)
    assert "A forecast takes three points of the learning curve; there are 4 iterations so far." in section(
        html, "planning"
    )
    assert summarise(found)["plan"] is None
    decision = campaign.where(3) / "decision.json"
    decision.unlink()
    html, _, _ = read(campaign)
    assert "Whether to go on is not decided yet." in section(html, "planning")
    assert is_clean(html)


def test_a_campaign_of_before_has_no_forecast(campaign):

    path = campaign.where(3) / "decision.json"
    old = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("plan", "certified_since")}
    path.write_text(json.dumps(old))
    html, _, _ = read(campaign)
    assert "These iterations have no forecast" in section(html, "planning")
    assert is_clean(html)


def test_why_it_stopped_is_told_in_the_words_of_the_decision(campaign):
    reason = "Certified, and 100 labels are worth <i>less</i> than their price & time."
    planted.put(campaign, 3, decision={"stop": True, "state": "certified", "reason": reason, "certified_since": 2})
    html, text, _ = read(campaign)
    assert "<i>less" not in html
    assert f"Why it stopped: {reason} The certificate has held since iteration 2." in section(html, "planning")
    assert text.index("Certified") < text.index("Labels to come")


def test_the_new_charts_are_valid_vega_lite(campaign):
    import altair

    planted.put(campaign, 1, certificate=planted.certificate(holds=False, missed=1))
    planted.put(campaign, 3, plan=planted.plan(), certificate=planted.certificate(audit=planted.audit(1, 1, 9)))
    found = specs(read(campaign)[0])["charts"]
    assert set(found) == {"certificates-0", "certificates-1", "forecast-0"}
    for spec in found.values():
        altair.Chart.from_dict(spec, validate=True)
