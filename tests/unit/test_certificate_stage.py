"""What ``evaluate`` writes of the certificate, on a campaign with planted errors."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import synthetic_campaign as synthetic
from synthetic_campaign import METHOD, SIGMA_FACTOR
from test_evaluate import rewrite

from dubito.core.errors import DataError
from dubito.core.files import read_json, write_json
from dubito.data.store import read_predictions

KEYS = {
    "method",
    "tolerance_ev_per_angstrom",
    "risk",
    "confidence",
    "n_pool",
    "n_control",
    "scoring_mode",
    "n_control_labelled",
    "n_control_failed",
    "n_bad",
    "holds",
    "threshold",
    "accepted_fraction",
    "bound",
    "miss_rate",
    "labels_needed",
    "strata",
    "audit",
    "drift",
    "drift_note",
    "n_accepted_bad",
    "share_escalated",
    "reason",
    "slice",
}


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certified")
    return synthetic.build(folder, iterations=4, n_new=6, n_control=24, n_failed=0, n_pool=300)


@pytest.fixture
def builder(tmp_path):
    return synthetic.build(tmp_path, iterations=3, n_new=4, n_control=24, n_failed=1, n_pool=300)


def metrics(builder: Any, k: int) -> dict[str, Any]:
    return read_json(builder.where(k) / "metrics.json")


def test_the_first_iteration_has_no_certificate(campaign):
    assert metrics(campaign, 0)["certificate"] is None


def test_certificate_of_planted_errors(campaign):
    """The worst atom is off by 0.69, 0.35 and 0.17 eV/Å by models 0, 1 and 2, and the tolerance is 0.3."""
    wrong, right = metrics(campaign, 1)["certificate"], metrics(campaign, 3)["certificate"]
    assert set(wrong) == set(right) == KEYS
    assert (wrong["n_bad"], wrong["holds"], wrong["threshold"], wrong["accepted_fraction"]) == (24, False, None, 0.0)
    assert (right["n_bad"], right["holds"], right["threshold"], right["accepted_fraction"]) == (0, True, 1.7, 1.0)
    assert right["bound"] == pytest.approx(1 / 25)
    assert (right["n_pool"], right["n_control"], right["n_control_failed"]) == (300, 24, 0)
    assert right["labels_needed"] == 19
    assert right["miss_rate"]["high"] == pytest.approx(300 / 276 * (1 - 0.025 ** (1 / 24)))
    assert [s["name"] for s in right["strata"]] == ["langevin"]


def test_miss_rate_is_that_of_the_certificate(campaign):
    for k in (1, 2, 3):
        found = metrics(campaign, k)
        part = found["certificate"]["miss_rate"]
        assert {key: found["miss_rate"][key] for key in part} == part
        assert found["miss_rate"]["n_control"] == 24
        assert found["miss_rate"]["tolerance_ev_per_angstrom"] == 0.3


def test_slice_is_kept_for_the_next_iteration(campaign):
    kept = metrics(campaign, 2)["certificate"]["slice"]
    assert kept["ratios"] == pytest.approx([1 / SIGMA_FACTOR] * 24)
    assert kept["scores"] == np.linspace(0.1, 0.4, 30)[6:].tolist()


def test_the_threshold_before_is_audited_and_drift_tested(campaign):
    assert metrics(campaign, 1)["certificate"]["audit"] is None
    assert metrics(campaign, 1)["certificate"]["drift"] is None
    assert metrics(campaign, 3)["certificate"]["audit"] is None  # that of iteration 2 accepted nothing
    drift = metrics(campaign, 3)["certificate"]["drift"]
    assert drift["ratio_before"] == pytest.approx(1 / SIGMA_FACTOR) == drift["ratio_now"]
    assert (drift["p_value"], drift["drifted"], drift["cautious"]) == (pytest.approx(1.0), False, False)
    assert "no earlier control slice" in metrics(campaign, 1)["certificate"]["drift_note"]
    assert metrics(campaign, 3)["certificate"]["drift_note"] is None


def test_an_earlier_threshold_is_judged_on_fresh_structures(builder):
    before = metrics(builder, 1)
    before["certificate"]["strata"][0]["threshold"] = 0.3
    write_json(builder.where(1) / "metrics.json", before)
    builder.evaluate(2)
    found = metrics(builder, 2)["certificate"]["audit"]
    scores = np.linspace(0.1, 0.4, 28)[4:]
    assert found["threshold_of_iteration"] == 1
    assert found["n_accepted"] == found["missed"] == int((scores <= 0.3).sum())
    assert found["value"] == found["high"] == 1.0


@pytest.mark.parametrize("change", ["none", "null", "other method"])
def test_nothing_is_compared_with_metrics_of_before(builder, change):
    before = metrics(builder, 1)
    if change == "none":
        del before["certificate"]
    elif change == "null":
        before["certificate"] = None
    else:
        before["certificate"]["method"] = "gmm"
    write_json(builder.where(1) / "metrics.json", before)
    builder.evaluate(2)
    found = metrics(builder, 2)["certificate"]
    assert (found["audit"], found["drift"]) == (None, None)
    words = "another method (gmm, now ensemble)" if change == "other method" else "no earlier control slice"
    assert words in found["drift_note"]
    assert found["n_control"] == 24


def test_drifted_ratios_are_found(builder):
    before = metrics(builder, 1)
    alone = [str(i) for i in range(24)]
    for factor, expected in ((0.5, (True, False, 1e-4, 1.0)), (2.0, (False, True, 1.0, 1e-4))):
        before["certificate"]["slice"] = {
            "ratios": [factor / SIGMA_FACTOR + 0.001 * i for i in range(24)],
            "ratio_trajectories": alone,
            "scores": [2.0] * 24,
            "score_trajectories": alone,
        }
        write_json(builder.where(1) / "metrics.json", before)
        builder.evaluate(2)
        found = metrics(builder, 2)["certificate"]["drift"]
        assert tuple(found[key] for key in ("drifted", "cautious", "p_value", "cautious_p_value")) == expected
        assert found["scores_p_value"] == 1.0


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        (None, {"n": 300, "n_escalated": 100}, "other scoring than in the iteration before (full scores then"),
        ({"n": 300, "n_escalated": 100}, None, "other scoring than in the iteration before (adaptive scores then"),
        ({"n": 300, "n_escalated": 200}, {"n": 300, "n_escalated": 100}, "the full score for 67% then, for 33% now"),
        ({"n": 300, "n_escalated": 105}, {"n": 300, "n_escalated": 100}, None),
        (None, {"n": 300, "n_escalated": 300}, None),
    ],
)
def test_other_scoring_is_not_compared(builder, before, now, words):
    for k, said in ((1, before), (2, now)):
        path = builder.where(k) / "selection.json"
        write_json(path, read_json(path) | {"adaptive": said})
        builder.evaluate(k)
    found = metrics(builder, 2)["certificate"]
    assert (found["drift"] is None) == (words is not None)
    assert words is None or words in found["drift_note"]


def test_a_slice_without_trajectories_is_not_compared(builder):
    before = metrics(builder, 1)
    before["certificate"]["slice"] = {"ratios": [1.0] * 24, "scores": [2.0] * 24}
    write_json(builder.where(1) / "metrics.json", before)
    builder.evaluate(2)
    found = metrics(builder, 2)["certificate"]
    assert found["drift"] is None
    assert "kept no trajectories" in found["drift_note"]


def test_a_failed_label_counts_as_wrong(tmp_path):
    builder = synthetic.build(tmp_path, iterations=4, n_new=2, n_control=24, n_failed=3, n_pool=300)
    found = metrics(builder, 3)
    said = found["certificate"]
    assert (said["n_control"], said["n_control_failed"], said["n_bad"], said["holds"]) == (24, 1, 1, False)
    assert len(said["slice"]["ratios"]) == 23
    assert len(said["slice"]["scores"]) == 24
    assert (found["miss_rate"]["n_control"], found["miss_rate"]["n_control_failed"]) == (23, 1)


def test_a_manifest_of_before_has_no_certificate(builder):
    path = builder.where(2) / "selection.json"
    said = read_json(path)
    write_json(path, {key: value for key, value in said.items() if key not in ("pool_scores", "strata")})
    builder.evaluate(2)
    found = metrics(builder, 2)
    assert found["certificate"] is None
    assert found["miss_rate"]["n_accepted"] == 24


def test_scores_without_unit_have_ratios_and_signed_ones_none(builder):
    path = builder.where(2) / "selected.h5"
    said = read_predictions(path)
    length = np.linalg.norm(said[METHOD].pop("forces_uncertainty"), axis=1)
    said[METHOD]["forces_score"] = length
    rewrite(path, predictions=said)
    builder.evaluate(2)
    ratios = metrics(builder, 2)["certificate"]["slice"]["ratios"]
    scores = np.linspace(0.1, 0.4, 28)[4:]
    assert ratios == pytest.approx(np.sqrt(3) * synthetic.force_error(1) / scores)
    manifest = read_json(builder.where(2) / "selection.json")
    manifest["scores"] = [score - 1 for score in manifest["scores"]]
    write_json(builder.where(2) / "selection.json", manifest)
    builder.evaluate(2)
    found = metrics(builder, 2)["certificate"]
    assert found["slice"]["ratios"] == []
    assert found["drift"]["p_value"] is None
    assert (
        found["drift_note"]
        == "Only the scores were tested for drift: the scores of this method have no ratio to errors."
    )


def test_strata_must_be_those_of_the_batch(builder):
    path = builder.where(2) / "selection.json"
    write_json(path, read_json(path) | {"strata": ["langevin"]})
    with pytest.raises(DataError, match="1 strata, expected as many"):
        builder.evaluate(2)


def test_the_same_files_give_the_same_bytes_without_nan(builder):
    path = builder.where(2) / "metrics.json"
    before = path.read_bytes()
    builder.evaluate(2)
    assert path.read_bytes() == before
    assert "NaN" not in json.dumps(json.loads(before))
