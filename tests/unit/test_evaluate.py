"""Metrics of a campaign with planted errors equal their closed forms."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import synthetic_campaign as synthetic
from synthetic_campaign import ENERGY_ERROR, METHOD, SIGMA_FACTOR, force_error

from dubito.core.errors import DataError
from dubito.core.files import read_json
from dubito.data.store import read_attributes, read_predictions, read_structures, write_structures

N_NEW, N_CONTROL = 12, 2


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return synthetic.build(tmp_path_factory.mktemp("planted"), iterations=4, n_new=N_NEW, n_control=N_CONTROL)


@pytest.fixture
def builder(tmp_path):
    return synthetic.build(tmp_path, iterations=2, n_new=N_NEW, n_control=N_CONTROL)


def metrics(builder, k):
    return json.loads((builder.where(k) / "metrics.json").read_text())


def rewrite(path, *, structures=None, predictions=None, attributes=None):
    """Write a structures file again with something replaced."""
    kept = {k: v for k, v in read_attributes(path).items() if k in ("profile", "stops")}
    write_structures(
        path,
        read_structures(path) if structures is None else structures,
        predictions=read_predictions(path) if predictions is None else predictions,
        attributes=kept if attributes is None else attributes,
    )


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize(("name", "age"), [("new", 1), ("control", 1), ("train", 0), ("valid", 0)])
def test_errors_are_the_planted_ones(planted, k, name, age):
    found, size = metrics(planted, k)["errors"][name], force_error(k - age)
    for key in ("force_rmse", "force_mae", "force_max"):
        assert found[f"{key}_ev_per_angstrom"] == pytest.approx(size, rel=1e-9)
    assert found["energy_rmse_ev"] == pytest.approx(ENERGY_ERROR, rel=1e-6)
    assert found["energy_rmse_ev_per_atom"] == pytest.approx(ENERGY_ERROR / 4, rel=1e-6)
    assert found["energy_mae_ev_per_atom"] == pytest.approx(ENERGY_ERROR / 4, rel=1e-6)
    assert found["n_atoms"] == 4 * found["n_structures"]


def test_labels_are_counted_and_failed_ones_left_out(planted):
    first, later = metrics(planted, 0)["labels"], metrics(planted, 2)["labels"]
    assert (first["total"], first["new"], first["failed"], first["control"]) == (N_NEW, N_NEW, 0, 0)
    assert (later["new"], later["failed"], later["reused"]) == (N_NEW + N_CONTROL - 1, 1, 1)
    assert later["total"] == N_NEW + 2 * (N_NEW + N_CONTROL - 1)
    assert later["train"] + later["valid"] + later["control"] == later["total"]
    assert metrics(planted, 2)["errors"]["new"]["n_structures"] == later["new"]


def test_the_first_iteration_has_no_structures_unseen_by_an_earlier_model(planted):
    assert set(metrics(planted, 0)["errors"]) == {"train", "valid", "profile_inversion"}
    assert metrics(planted, 0)["miss_rate"]["value"] is None
    assert (metrics(planted, 0)["miss_rate"]["low"], metrics(planted, 0)["miss_rate"]["high"]) == (0.0, 1.0)


def test_calibration_has_its_closed_form(planted):
    found = metrics(planted, 2)["uncertainty"][METHOD]["new"]
    level = math.erf(1 / SIGMA_FACTOR / math.sqrt(2))  # every component lies at |z| = 1 / SIGMA_FACTOR = 1.25
    assert found["coverage_68"] == 0.0
    assert found["coverage_95"] == 1.0
    assert found["miscalibration_area"] == pytest.approx((level**2 + (1 - level) ** 2) / 2)
    assert found["mean_uncertainty_ev_per_angstrom"] == pytest.approx(math.sqrt(3) * SIGMA_FACTOR * force_error(1))
    assert found["n"] == 4 * (N_NEW + N_CONTROL - 1)
    assert found["spearman_force"] is None  # constant: no order to compare, and JSON has no NaN


def test_barrier_has_its_closed_form(planted):
    for k in range(4):
        found = metrics(planted, k)["physics"]["inversion"]
        assert found["barrier_reference_ev"] == pytest.approx(synthetic.BARRIER)
        assert found["barrier_error_ev"] == pytest.approx(synthetic.barrier_error(k), abs=1e-9)
        spread = synthetic.member_spread(k) * math.sqrt(20 / 3)
        assert found["barrier_uncertainty_ev"] == pytest.approx(spread, rel=1e-6)
        assert found["max_profile_error_ev"] == pytest.approx(abs(synthetic.barrier_error(k)), rel=1e-6)


def test_miss_rate_counts_control_structures_over_the_tolerance(planted):
    # The worst atom is off by sqrt(3) times the planted error: 0.69 eV/Å by model 0, 0.17 by model 2.
    missed, right = metrics(planted, 1)["miss_rate"], metrics(planted, 3)["miss_rate"]
    assert (missed["value"], missed["n_accepted"], missed["high"]) == (1.0, 2, 1.0)
    assert missed["low"] == pytest.approx(math.sqrt(0.025))
    assert (right["value"], right["n_accepted"], right["low"]) == (0.0, 2, 0.0)
    assert right["high"] == pytest.approx(1 - math.sqrt(0.025))
    assert right["tolerance_ev_per_angstrom"] == 0.3
    assert right["risk"] == 0.05


@pytest.mark.parametrize(("threshold", "accepted"), [(0.39, 1), (0.05, 0), (None, 2)])
def test_only_structures_within_the_threshold_are_trusted(tmp_path, threshold, accepted):
    builder = synthetic.build(tmp_path, iterations=2, threshold=threshold)
    found = metrics(builder, 1)["miss_rate"]
    assert (found["n_accepted"], found["n_control"]) == (accepted, 2)
    assert (found["value"] is None) == (accepted == 0)


def test_a_failed_control_structure_is_said_to_be_missing(tmp_path):
    builder = synthetic.build(tmp_path, iterations=2, n_new=3, n_control=2, n_failed=4)
    found = metrics(builder, 1)["miss_rate"]
    assert (found["n_control"], found["n_control_failed"]) == (1, 1)


def test_an_error_that_is_no_number_is_a_miss(builder):
    path = builder.where(1) / "selected.h5"
    predictions = read_predictions(path)
    predictions[METHOD]["forces"][-1] = np.nan
    rewrite(path, predictions=predictions)
    builder.config = builder.config.model_copy(
        update={"selection": builder.config.selection.model_copy(update={"force_tolerance_ev_per_angstrom": 5.0})}
    )
    builder.evaluate(1)
    text = (builder.where(1) / "metrics.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["miss_rate"]["value"] == 0.5
    assert json.loads(text)["errors"]["new"]["force_rmse_ev_per_angstrom"] is None


def test_the_same_files_give_the_same_bytes(builder):
    before = (builder.where(1) / "metrics.json").read_bytes()
    builder.evaluate(1)
    assert (builder.where(1) / "metrics.json").read_bytes() == before


def test_labels_are_joined_by_id_not_by_place(builder):
    path = builder.where(1) / "labels" / "shard_000.h5"
    before = metrics(builder, 1)
    rewrite(path, structures=read_structures(path)[[3, 0, 5, 1, 4, 2]])
    builder.evaluate(1)
    assert metrics(builder, 1) == before


def test_a_test_set_is_judged_by_the_latest_model(tmp_path):
    builder = synthetic.build(tmp_path, iterations=2, n_test=7)
    found = metrics(builder, 1)
    assert found["errors"]["test"]["force_rmse_ev_per_angstrom"] == pytest.approx(force_error(1))
    assert found["errors"]["test"]["n_structures"] == found["uncertainty"][METHOD]["test"]["n"] / 4 == 7


def test_nothing_selected_is_no_error(builder):
    for path in (builder.where(1) / "labels").iterdir():
        path.unlink()
    builder.evaluate(1)
    found = metrics(builder, 1)
    assert found["labels"]["new"] == 0
    assert "new" not in found["errors"]


def test_a_score_without_unit_is_ranked_but_not_calibrated(builder):
    path = builder.where(1) / "predictions" / "dataset.h5"
    said = read_predictions(path)
    plain = {key: said[METHOD][key] for key in ("energy", "forces")}
    score = np.linalg.norm(said[METHOD]["forces"] - read_structures(path).forces, axis=1)
    said["mixture"] = plain | {"forces_score": np.log(score + np.arange(len(score)))}
    rewrite(path, predictions=said)
    builder.evaluate(1)
    found = metrics(builder, 1)["uncertainty"]["mixture"]["train"]
    assert found["coverage_95"] is None
    assert found["mean_uncertainty_ev_per_angstrom"] is None


def test_labels_of_another_selection_are_refused(builder):
    path = builder.where(1) / "labels" / "shard_000.h5"
    rewrite(path, structures=builder.ammonia(3, 0.3))
    with pytest.raises(DataError, match="not selected"):
        builder.evaluate(1)


def test_a_manifest_of_another_selection_is_refused(builder):
    (builder.where(1) / "selection.json").write_text((builder.where(0) / "selection.json").read_text())
    with pytest.raises(DataError, match="no score for control structure"):
        builder.evaluate(1)


def test_predictions_of_another_dataset_are_refused(builder):
    path = builder.where(1) / "dataset.h5"
    rewrite(path, structures=read_structures(path)[:-1])
    with pytest.raises(DataError, match="does not hold the structures of the dataset"):
        builder.evaluate(1)


def test_a_missing_method_is_named(builder):
    path = builder.where(1) / "predictions" / "dataset.h5"
    rewrite(path, predictions={})
    with pytest.raises(DataError, match="no predictions of 'ensemble'"):
        builder.evaluate(1)


def test_errors_are_those_of_the_mean_whichever_method_has_it(builder):
    """A method that could not be fitted has no predictions; the mean of the members is the same by all."""
    before = metrics_of(builder, 1)["errors"]
    path = builder.where(1) / "predictions" / "dataset.h5"
    rewrite(path, predictions={"other": read_predictions(path)[METHOD]})
    builder.evaluate(1)
    assert metrics_of(builder, 1)["errors"] == before


def metrics_of(builder, iteration):
    return read_json(builder.where(iteration) / "metrics.json")


def test_a_profile_without_its_minimum_is_refused(builder):
    rewrite(builder.where(1) / "predictions" / "profile_inversion.h5", attributes={})
    with pytest.raises(DataError, match="root attribute 'profile'"):
        builder.evaluate(1)


def test_the_line_for_the_watcher_says_what_counts(builder):
    line = builder.evaluate(1)
    assert "\n" not in line
    assert "1 failed" in line
    assert "unseen structures 400 meV/Å" in line
    assert "inversion barrier -120 meV off" in line
