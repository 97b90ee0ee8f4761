"""A campaign with several uncertainty methods, whose driver is chosen anew after each batch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from campaigns import Campaign, example, read_json

from dubito.data.store import read_predictions, read_structures

METHODS = {"ensemble", "gmm", "llpr", "force_norm", "constant"}

pytestmark = pytest.mark.xdist_group("auto")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A finished campaign of three models; easily persuaded, so that a driver may change."""
    raw = example("several_methods")
    raw["uncertainty"]["auto"] |= {"start_with": "force_norm", "margin": 0.0, "level": 0.5}
    done = Campaign(tmp_path_factory.mktemp("auto"), raw)
    done.run("--cores", "1")
    return done


@pytest.fixture
def edited(finished: Campaign) -> Iterator[Campaign]:
    """The finished campaign, whose configuration a test may change."""
    before = yaml.safe_dump(finished.raw)
    yield finished
    finished.raw = yaml.safe_load(before)
    finished.write()


def of(one: Campaign, k: int, name: str) -> Any:
    return read_json(one.results / f"iter_{k:03d}" / name)


def test_it_takes_little_time(finished: Campaign) -> None:
    assert sum(event["cpu_s"] for event in finished.events(event="finished")) < 150


def test_each_iteration_is_driven_by_the_method_chosen_before(finished: Campaign) -> None:
    assert of(finished, 0, "selection.json")["method"] is None
    assert of(finished, 0, "driver.json")["method"] == "force_norm"
    for k in (1, 2):
        driver = of(finished, k - 1, "driver.json")["method"]
        assert of(finished, k, "selection.json")["method"] == driver
        assert of(finished, k, "metrics.json")["method"] == driver
        assert [path.stem for path in (finished.results / f"iter_{k:03d}" / "scores").iterdir()] == [driver]
        assert set(read_predictions(finished.results / f"iter_{k:03d}" / "selected.h5")) == {driver}


def test_the_decision_says_who_drives_next_and_why(finished: Campaign) -> None:
    for k in (0, 1, 2):
        said, driver = of(finished, k, "decision.json")["acquire_with"], of(finished, k, "driver.json")
        assert said["method"] == driver["method"]
        assert said["previous"] == (of(finished, k - 1, "driver.json")["method"] if k else "force_norm")
        assert said["method"] in said["reason"]
        assert {row["method"] for row in said["table"]} == (METHODS - {"constant"} if k else set())


def test_all_methods_are_judged_by_the_model_that_had_not_seen_the_batch(finished: Campaign) -> None:
    for k in (1, 2):
        folder = finished.results / f"iter_{k:03d}"
        said, selected = read_predictions(folder / "predictions" / "batch.h5"), read_structures(folder / "selected.h5")
        assert set(said) == METHODS
        assert read_structures(folder / "predictions" / "batch.h5").ids == selected.ids
        driver = of(finished, k, "selection.json")["method"]
        before = read_predictions(folder / "selected.h5")[driver]
        for name, values in before.items():
            assert said[driver][name] == pytest.approx(values, rel=1e-3, abs=1e-5), name
        found = of(finished, k, "metrics.json")["bakeoff"]
        assert set(found["sets"]["new"]["methods"]) == set(found["cost"]) == METHODS
        for cost in found["cost"].values():
            assert cost["model_evaluations"] >= 2
            assert cost["fit_cpu_s"] >= 0
            assert cost["predict_cpu_s_per_1000_atoms"] > 0


def test_the_report_compares_them(finished: Campaign) -> None:
    html = (finished.results / "report" / "index.html").read_text()
    assert "Whose doubt is worth most?" in html
    assert "Which method drives, and why" in html
    assert "nan" not in html[html.index('id="methods"') : html.index('id="selected"')]


def test_a_second_run_does_nothing(finished: Campaign) -> None:
    assert "Nothing to be done" in finished.run()


def test_settings_of_a_method_refit_it_alone(edited: Campaign) -> None:
    drove = {of(edited, k, "driver.json")["method"] for k in (0, 1)}
    spare = next(name for name in ("llpr", "gmm") if name not in drove)
    key = {"llpr": {"max_force_structures": 3}, "gmm": {"max_components": 3}}[spare]
    edited.write(uncertainty={spare: key})
    text = edited.run("-n")
    assert f"fit {spare}" in text
    for other in METHODS - {spare}:
        assert f"fit {other}" not in text
    assert not edited.jobs_of_dry_run() & {"train_ensemble", "explore_structures", "select_batch", "label_structures"}


def test_a_driver_lost_is_chosen_again_and_selects_the_same(finished: Campaign) -> None:
    before, selected = of(finished, 1, "driver.json"), finished.selections()["iter_002"]
    (finished.results / "iter_001" / "driver.json").unlink()
    shutil.rmtree(finished.results / "iter_002")
    finished.run("--cores", "1", f"results/{finished.name}/iter_002/selection.json")
    after = of(finished, 1, "driver.json")
    assert before.pop("chosen_at") != after.pop("chosen_at")
    assert before == after
    assert finished.selections()["iter_002"] == selected
    finished.run("--cores", "1")


def test_other_terms_for_a_switch_touch_nothing_but_the_choice(edited: Campaign) -> None:
    drivers = [of(edited, k, "driver.json")["method"] for k in (0, 1)]
    edited.write(uncertainty={"auto": {**edited.raw["uncertainty"]["auto"], "level": 0.45}})
    jobs = edited.jobs_of_dry_run()
    assert {"choose_driver", "decide"} <= jobs <= {"choose_driver", "decide", "write_report", "publish_report", "all"}
    before = [event["stage"] for event in edited.events(event="finished")]
    edited.run("--cores", "1")
    assert [of(edited, k, "driver.json")["method"] for k in (0, 1)] == drivers
    new = [event["stage"] for event in edited.events(event="finished")][len(before) :]
    assert new.count("choose_driver") == new.count("decide") == 3, "not only the first, though it chose the same"
    assert set(new) <= jobs | {"write_report"}
    assert edited.jobs_of_dry_run() == set()


def test_a_driver_that_changes_explores_anew(edited: Campaign) -> None:
    driver = of(edited, 1, "driver.json")["method"]
    other = "gmm" if driver != "gmm" else "ensemble"
    edited.write(uncertainty={"auto": {**edited.raw["uncertainty"]["auto"], "start_with": other, "margin": 0.99}})
    edited.run("--cores", "1", f"results/{edited.name}/iter_000/driver.json")
    assert of(edited, 0, "driver.json")["method"] == other
    assert "explore" in edited.run("-n", f"results/{edited.name}/iter_001/selection.json")
