"""The report tells what became of the candidates, in words, and what scoring them cost."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import synthetic_campaign as synthetic
import synthetic_certificate as planted
from reading_reports import Reader, is_clean, read, rows, section

from dubito.data import sanity
from dubito.reporting.choosing import reason_words


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return synthetic.build(tmp_path_factory.mktemp("campaign"), iterations=3, n_control=4, n_failed=0)


@pytest.fixture
def campaign(built, tmp_path):
    shutil.copytree(built.folder, tmp_path / "campaign")
    return replace(built, folder=tmp_path / "campaign")


def test_every_code_of_the_gates_has_words():
    assert all(reason_words(code) != code.replace("_", " ") for code in sanity.REASONS)
    assert reason_words("a_code_of_a_plug_in") == "a code of a plug in"


def test_rejections_stand_by_reason_over_iterations(campaign):
    planted.put(campaign, 1, manifest={"rejected": {"min_distance": 7, "own_code": 2}})
    planted.put(campaign, 2, manifest={"rejected": {"duplicate_labelled": 1003}})
    html, _, _ = read(campaign)
    found = {row[0]: row[1:] for row in rows(html, "What became of the candidates")[1:]}
    assert found["found"][:2] == ["240", "240"]
    assert found["rejected: atoms too close"] == ["7", "0", "sampling.sanity.min_distance_factor"]
    assert found["rejected: as good as labelled already"][:2] == ["0", "1,003"]
    assert found["rejected: own code"] == ["2", "0", "–"]
    assert found["left"][:2] == [str(240 - 16 - 9), "0"]
    assert (found["chosen"][:2], found["of them control"][:2]) == (["16", "16"], ["4", "4"])
    assert "most often with the reason 'as good as labelled already' (1,003)" in section(html, "choosing")
    assert is_clean(html)


def test_candidates_are_told_by_sampler(campaign):
    said = planted.pool_scores(campaign, 2)
    planted.put(campaign, 2, manifest=said)
    html, _, _ = read(campaign)
    assert "<b>langevin" not in html
    assert planted.HOSTILE in Reader(html).text
    header, *lines = rows(html, "Where candidates came from, latest first")
    found = {line[0]: dict(zip(header, line, strict=True)) for line in lines}
    one = found[planted.STRATUM]
    quantiles = said["pool_scores"][planted.STRATUM]["quantiles"]
    assert (one["iteration"], one["candidates"], one["selected"], one["control"]) == ("2", "77", "6", "2")
    assert float(one["median score"]) == pytest.approx(np.median(quantiles), rel=1e-2)


def test_control_structures_are_set_against_the_selected(campaign):
    html, _, found = read(campaign)
    lines = rows(html, "Are the chosen worse than random ones?")
    # Planted: every component of a force is wrong by the same amount, so every atom by sqrt(3) times that.
    worst = 1000 * np.sqrt(3) * synthetic.force_error(0)
    assert lines[1][:3] == ["1", "selected", "12"]
    assert lines[2][:3] == ["1", "control", "4"]
    assert float(lines[1][3]) == pytest.approx(worst, rel=1e-2)
    assert lines[1][5] == "100 %"
    assert found.config.selection.force_tolerance_ev_per_angstrom == 0.3
    assert float(lines[3][3]) == pytest.approx(worst / 2, rel=1e-2)


def test_adaptive_scoring_prints_the_guarantee_and_no_more(campaign):
    planted.put(campaign, 1, manifest={"adaptive": planted.adaptive(note="Nothing could be saved <here>.")})
    html, text, _ = read(campaign)
    assert planted.GUARANTEE in text
    assert planted.GUARANTEE not in html  # escaped
    assert "took 43 % of the model evaluations that the full score of all 1,234 candidates of iteration 1" in text
    assert "Nothing could be saved <here>." in Reader(html).text
    header, line = rows(html, "What scoring spent and saved")
    assert dict(zip(header, line, strict=True)) == {
        "iteration": "1",
        "candidates": "1,234",
        "calibrated on": "111",
        "full score": "321",
        "share of the cost": "43 %",
        "evaluations saved": "2,804",
        "recall asked for": "95 %",
    }


def test_a_pool_that_costs_more_than_it_saves_is_said_to_cost(campaign):
    hard = planted.adaptive(compute_ratio=1.05, saved_evaluations=-310)
    planted.put(campaign, 2, manifest={"adaptive": hard})
    html, text, _ = read(campaign)
    assert "Adaptive scoring cost 105 % of the model evaluations" in text
    assert rows(html, "What scoring spent and saved")[1][5] == "−310"


def test_without_adaptive_scoring_nothing_is_said_of_it(campaign):
    assert "Adaptive scoring" not in read(campaign)[1]


def test_the_first_iteration_chooses_nothing(tmp_path):
    campaign = synthetic.build(tmp_path, iterations=1)
    assert "Candidates are chosen from iteration 1 on." in section(read(campaign)[0], "choosing")
