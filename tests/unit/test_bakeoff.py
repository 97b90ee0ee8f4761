"""The bake-off has its closed forms, and the driver changes only for a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import synthetic_campaign as synthetic
from synthetic_campaign import METHOD

from dubito.config.uncertainty import AutoConfig
from dubito.core.errors import DataError, ModelError
from dubito.core.files import read_json, write_json
from dubito.data.store import read_attributes, read_predictions, write_structures
from dubito.data.structures import Structures
from dubito.metrics.bootstrap import paired_difference
from dubito.reporting import page
from dubito.reporting.collect import collect
from dubito.reporting.evaluated import Evaluated
from dubito.reporting.verdict import verdict
from dubito.stages import _bakeoff, choose_driver, decide
from dubito.stages._bakeoff import bakeoff
from dubito.stages._driver_words import apart, kept
from dubito.stages._resampling import n_resamples, thinned
from dubito.testing.structures import rattled, toy_labels
from dubito.uncertainty.registry import method_class

RIVALS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gmm": lambda length: length / np.sqrt(3),
    "llpr": lambda length: 0.1 / (0.1 + length),
    "force_norm": lambda length: np.where(np.arange(len(length)) % 2, length, length.mean()),
    "constant": lambda length: np.full(len(length), np.sqrt(np.mean(length**2) / 3)),
}
CONFIG = {
    "uncertainty": {
        "methods": [METHOD, *RIVALS],
        "acquire_with": "auto",
        "auto": {"margin": 0.02, "min_structures": 12},
    }
}


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    folder = tmp_path_factory.mktemp("auto")
    return synthetic.build(folder, iterations=3, vary=True, config=CONFIG, rivals=RIVALS, n_control=6)


def metrics(builder, k):
    return read_json(builder.where(k) / "metrics.json")


def judged(n: int, doubts: dict[str, np.ndarray], error: np.ndarray) -> Evaluated:
    """Return ``n`` structures of four atoms with forces wrong by ``error`` (4 n, 3) and the doubt (4 n,) of methods."""
    x = np.random.default_rng(0).normal(size=(n, 4, 3))
    structures = Structures.build(
        [[7, 1, 1, 1]] * n,
        list(x),
        labels__energy=np.zeros(n),
        labels__forces=np.zeros((4 * n, 3)),
        labels__mask=np.ones(n, bool),
    )
    said = {
        name: {"energy": np.zeros(n), "forces": error, "forces_uncertainty": np.repeat(doubt[:, None], 3, axis=1)}
        for name, doubt in doubts.items()
    }
    return Evaluated(structures, said)


# --- the comparison ---------------------------------------------------------------------------------------


def test_an_oracle_a_constant_and_a_liar_have_their_closed_forms(campaign):
    found = metrics(campaign, 1)["bakeoff"]["sets"]["new"]["methods"]
    oracle, liar, constant = found["gmm"], found["llpr"], found["constant"]
    assert oracle["decision_value"]["value"] == pytest.approx(1)
    assert oracle["spearman"] == pytest.approx({"value": 1, "low": 1, "high": 1})
    assert oracle["auroc"]["value"] == 1
    assert oracle["ause"]["value"] == pytest.approx(0, abs=1e-12)
    assert liar["spearman"]["value"] == pytest.approx(-1)
    assert liar["decision_value"]["high"] < 0
    assert liar["auroc"]["value"] == 0
    assert constant["decision_value"]["value"] == pytest.approx(0, abs=1e-12)
    assert constant["spearman"]["value"] is None
    assert constant["auroc"]["value"] == 0.5
    # The mean negative log density of a Gaussian of one width.
    s = constant["sharpness_ev_per_angstrom"]["value"]
    rmse = metrics(campaign, 1)["errors"]["new"]["force_rmse_ev_per_angstrom"]
    assert constant["nll"]["value"] == pytest.approx(np.log(s * np.sqrt(2 * np.pi)) + rmse**2 / (2 * s**2), rel=1e-6)


def test_the_ensemble_of_a_campaign_lies_between(campaign):
    found = metrics(campaign, 2)["bakeoff"]["sets"]["new"]["methods"][METHOD]
    assert 0.2 < found["decision_value"]["value"] < 0.95
    assert found["decision_value"]["low"] < found["decision_value"]["value"] < found["decision_value"]["high"]


def test_who_is_beaten_by_a_control_is_said(campaign):
    found = metrics(campaign, 1)["bakeoff"]
    assert found["beaten_by"]["gmm"]["ranking"] == []
    assert found["not_shown_better_than"]["gmm"]["ranking"] == []
    assert set(found["beaten_by"]["llpr"]["ranking"]) == {"force_norm", "constant"}
    assert set(found["beaten_by"]) == {METHOD, "gmm", "llpr"}, "controls are not compared with themselves"


def test_both_sets_and_the_cost_are_there(campaign):
    found = metrics(campaign, 1)["bakeoff"]
    assert found["sets"]["control"]["n_structures"] == 6
    assert found["sets"]["new"]["n_atoms"] == 4 * found["sets"]["new"]["n_structures"]
    n_atoms = 4 * (campaign.n_new + campaign.n_control)
    assert found["cost"]["gmm"] == {
        "model_evaluations": 4.0,
        "model_evaluations_alone": 1.0,
        "fit_cpu_s": 2.5,
        "predict_cpu_s_per_1000_atoms": pytest.approx(300 / n_atoms, rel=1e-5),
    }
    assert metrics(campaign, 0)["bakeoff"] == {}


def test_predictions_that_are_no_numbers_are_not_ranked():
    error = np.random.default_rng(1).normal(size=(40, 3))
    error[3] = np.nan
    found = bakeoff({"new": judged(10, {"a": np.ones(40)}, error)}, {}, tolerance=0.5, seed=1)
    assert all(np.isnan(by["value"]) for by in found["sets"]["new"]["methods"]["a"].values())


def test_a_zero_uncertainty_has_no_likelihood_but_a_rank():
    error = np.random.default_rng(1).normal(size=(40, 3))
    doubt = np.linalg.norm(error, axis=1)
    doubt[np.argmin(doubt)] = 0
    found = bakeoff({"new": judged(10, {"a": doubt}, error)}, {}, tolerance=0.5, seed=1)["sets"]["new"]["methods"]["a"]
    assert np.isnan(found["nll"]["value"])
    assert found["spearman"]["value"] == pytest.approx(1)


def test_a_fit_that_does_not_say_whose_it_is(tmp_path):
    write_json(tmp_path / "a.json", {"fit_cpu_s": 1})
    with pytest.raises(DataError, match="does not say which method"):
        _bakeoff.costs_of([tmp_path / "a.json"], None)


# --- the driver -------------------------------------------------------------------------------------------


def test_the_better_method_takes_over_and_stays(campaign):
    first, second, third = (read_json(campaign.where(k) / "driver.json") for k in range(3))
    assert (first["method"], first["n_structures"]) == (METHOD, 0)
    assert (second["previous"], second["method"]) == (METHOD, "gmm")
    assert second["reason"].startswith(f"gmm takes over from {METHOD}: on the latest 17 new structures")
    assert {row["method"] for row in second["table"]} == {METHOD, "gmm", "llpr", "force_norm"}, "constant never drives"
    assert (third["previous"], third["method"]) == ("gmm", "gmm")
    assert third["n_structures"] == 2 * 17
    assert [metrics(campaign, k)["method"] for k in range(3)] == [METHOD, METHOD, "gmm"]
    assert read_json(campaign.where(1) / "decision.json")["acquire_with"]["method"] == "gmm"


def test_few_structures_change_nothing():
    rng = np.random.default_rng(2)
    error = rng.normal(size=(44, 3))
    part = judged(11, {"old": rng.random(44), "new": np.linalg.norm(error, axis=1)}, error)
    kept = choose_driver.choose([part], "old", ["old", "new"], AutoConfig(min_structures=12), 1)
    assert kept["method"] == "old"
    assert "11 newly labelled structures are fewer than the 12" in kept["reason"]
    assert choose_driver.choose([part], "old", ["old", "new"], AutoConfig(min_structures=11), 1)["method"] == "new"


def test_equally_good_methods_hardly_ever_change_places(monkeypatch):
    monkeypatch.setattr(choose_driver, "N_RESAMPLES", 200)
    rng, switched, trials = np.random.default_rng(3), 0, 30
    for trial in range(trials):
        size = rng.lognormal(0, 0.6, 80)
        error = rng.normal(size=(80, 3)) * size[:, None]
        doubts = {name: size * rng.lognormal(0, 0.5, 80) for name in ("a", "b", "c", "d")}
        auto = AutoConfig(margin=0.02, level=0.9)
        switched += choose_driver.choose([judged(20, doubts, error)], "a", list(doubts), auto, trial)["method"] != "a"
    # At most one in twenty by the level, though percentile intervals of 20 structures are too narrow.
    assert switched <= 4


def test_a_margin_holds_back_a_small_advantage():
    rng = np.random.default_rng(4)
    size = rng.lognormal(0, 0.8, 400)
    error = rng.normal(size=(400, 3)) * size[:, None]
    part = judged(100, {"a": size * rng.lognormal(0, 0.5, 400), "b": size}, error)
    found = choose_driver.choose([part], "a", ["a", "b"], AutoConfig(margin=0.0), 1)
    assert found["method"] == "b"
    ahead = found["table"][1]["difference"]
    kept = choose_driver.choose([part], "a", ["a", "b"], AutoConfig(margin=round(ahead, 2)), 1)
    assert kept["method"] == "a"
    assert "is not above the margin" in kept["reason"]


def test_knowing_which_batch_was_harder_is_no_merit():
    rng = np.random.default_rng(5)
    easy, hard = rng.normal(size=(40, 3)), 10 * rng.normal(size=(40, 3))
    parts = [judged(10, {"a": np.full(40, level), "b": np.full(40, level)}, e) for level, e in ((0.1, easy), (9, hard))]
    table = choose_driver.choose(parts, "a", ["a", "b"], AutoConfig(), 1)["table"]
    assert table[0]["value"] == pytest.approx(0, abs=1e-6)
    assert table[1]["difference"] == pytest.approx(0, abs=1e-6)


def test_a_driver_without_numbers_keeps_driving_until_it_can_be_compared():
    error = np.random.default_rng(6).normal(size=(80, 3))
    bad = np.full(80, np.nan)
    part = judged(20, {"a": bad, "b": np.linalg.norm(error, axis=1)}, error)
    found = choose_driver.choose([part], "a", ["a", "b"], AutoConfig(), 1)
    assert found["method"] == "a"
    assert "no other method could be compared" in found["reason"]


def test_a_driver_that_is_fitted_no_more_gives_way(tmp_path, campaign):
    write_json(tmp_path / "driver.json", {"method": "gone"})
    choose_driver.run(
        iteration=1,
        dataset=campaign.where(1) / "dataset.h5",
        batches=[],
        previous=tmp_path / "driver.json",
        output=tmp_path / "next.json",
        auto=AutoConfig(start_with="llpr"),
        candidates=[METHOD, "llpr"],
        seed=1,
    )
    assert read_json(tmp_path / "next.json")["method"] == "llpr"


def test_the_choice_of_another_iteration_is_refused(tmp_path, campaign):
    write_json(tmp_path / "driver.json", {"method": METHOD, "iteration": 5})
    with pytest.raises(DataError, match="is not of iteration 2"):
        decide.run(
            metrics=[campaign.where(k) / "metrics.json" for k in range(3)],
            manifests=[campaign.where(k) / "selection.json" for k in range(3)],
            output=tmp_path / "d.json",
            campaign=campaign.config.campaign,
            selection=campaign.config.selection,
            labelling=campaign.config.labelling,
            driver=tmp_path / "driver.json",
        )


# --- methods that can't drive ------------------------------------------------------------------------------


def test_a_method_that_doubts_all_atoms_alike_does_not_take_over():
    error = np.random.default_rng(2).normal(size=(80, 3))
    part = judged(20, {"old": np.random.default_rng(9).random(80), "new": np.linalg.norm(error, axis=1)}, error)
    assert choose_driver.choose([part], "old", ["old", "new"], AutoConfig(), 1)["method"] == "new"
    found = choose_driver.choose([part], "old", ["old", "new"], AutoConfig(), 1, flat=["new"])
    assert found["method"] == "old"
    assert "all atoms are doubted alike: new" in found["reason"]
    assert {row["method"] for row in found["table"]} == {"old", "new"}
    blind = choose_driver.choose([], "old", ["old", "new"], AutoConfig(), 1, flat=["old"])
    assert blind["method"] == "old"
    assert "old itself doubts all atoms alike" in blind["reason"]


def test_a_driver_that_could_not_be_fitted_gives_way_to_the_best_that_could():
    error = np.random.default_rng(2).normal(size=(80, 3))
    length = np.linalg.norm(error, axis=1)
    doubts = {"old": length, "bad": 1 / length, "good": length**2, "other": length**3}
    part, names = judged(20, doubts, error), list(doubts)
    lost = {"old": "Too few atoms.", "other": "No."}
    found = choose_driver.choose([part], "old", names, AutoConfig(), 1, unfitted=lost)
    assert (found["previous"], found["method"]) == ("old", "good")
    assert "good takes over from old, which could not be fitted to the latest model: Too few atoms." in found["reason"]
    assert "Not fitted, so not considered: other." in found["reason"]
    early = choose_driver.choose([], "old", names, AutoConfig(start_with="good"), 1, unfitted=lost)
    assert early["method"] == "good"
    with pytest.raises(ModelError, match=r"No method that may drive could be fitted\. old: Too few atoms\. bad: x\."):
        choose_driver.choose([part], "old", ["old", "bad"], AutoConfig(), 1, unfitted={**lost, "bad": "x"})


def test_a_batch_that_a_method_was_not_asked_about_does_not_count_for_it():
    error = np.random.default_rng(2).normal(size=(80, 3))
    length = np.linalg.norm(error, axis=1)
    parts = [judged(20, {"a": 1 / length}, error), judged(20, {"a": 1 / length, "b": length}, error)]
    found = choose_driver.choose(parts, "a", ["a", "b"], AutoConfig(), 1)
    assert found["method"] == "a"
    assert found["table"][1]["value"] is None


@pytest.mark.parametrize(
    ("pair", "texts"),
    [
        ((0.0199, 0.02), ("0.0199", "0.0200")),
        ((0.05, 0.02), ("0.05", "0.02")),
        ((0.0200004, 0.02), ("0.02", "0.02")),
        ((0.024, 0.02), ("0.024", "0.020")),
    ],
)
def test_numbers_that_differ_are_told_apart(pair, texts):
    assert apart(*pair) == texts


def test_a_reason_does_not_contradict_itself_through_rounding():
    row = {"method": "b", "value": 0.5, "difference": 0.1, "low": 0.0196}
    own = {"method": "a", "value": 0.4, "difference": None, "low": None}
    assert "0.0196, is not above the margin of 0.0200" in kept("a", [own, row], 30, AutoConfig(margin=0.02))


# --- resampling -------------------------------------------------------------------------------------------


def test_kept_draws_give_the_interval_of_a_paired_difference():
    rng = np.random.default_rng(8)
    error = rng.normal(size=(120, 3))
    part = judged(
        30, {"a": rng.random(120), "force_norm": np.linalg.norm(error, axis=1) * rng.lognormal(0, 1, 120)}, error
    )
    found = bakeoff({"new": part}, {}, tolerance=0.5, seed=3)["against_controls"]["a"]["force_norm"]["ranking"]
    a, b = (_bakeoff.judged(part, name) for name in part.predictions)
    by = paired_difference(
        _bakeoff.decision_value, a.arrays, b.arrays, structure=a.structure, seed=3, level=0.9, n_resamples=400
    )
    assert (found["value"], found["low"], found["high"]) == pytest.approx((by.value, by.low, by.high))


def test_large_sets_are_thinned_by_whole_structures():
    error = np.random.default_rng(1).normal(size=(400, 3))
    part = judged(100, {"a": np.arange(400.0)}, error)
    few = thinned(part, 1, most_atoms=50)
    assert len(few) == 12
    assert set(few.structures.ids) < set(part.structures.ids)
    assert thinned(part, 1, most_atoms=400) is part
    assert n_resamples(100, 400) == 400
    assert n_resamples(10**6, 400) == 100


def test_a_difference_within_noise_beats_nobody():
    rng = np.random.default_rng(11)
    size = rng.lognormal(0, 0.6, 48)
    error = rng.normal(size=(48, 3)) * size[:, None]
    doubts = {"a": size * rng.lognormal(0, 0.3, 48), "force_norm": size * rng.lognormal(0, 0.3, 48)}
    found = bakeoff({"new": judged(12, doubts, error)}, {}, tolerance=0.5, seed=3)
    by = found["against_controls"]["a"]["force_norm"]["ranking"]
    assert by["low"] < 0 < by["high"], "else this shows nothing"
    assert found["beaten_by"]["a"]["ranking"] == []
    assert found["not_shown_better_than"]["a"]["ranking"] == ["force_norm"]
    (other,) = set(doubts) - {found["best"]["method"]}
    assert found["best"]["not_told_from"] == [other]


# --- the report -------------------------------------------------------------------------------------------


def section_text(builder) -> str:
    sections = {part.id: part for part in page.sections(collect(builder.folder, builder.config))}
    return json.dumps(sections["methods"], default=vars, ensure_ascii=False)


def test_the_report_says_who_is_best_who_is_beaten_and_who_drives(campaign):
    text = section_text(campaign)
    assert (
        "By value gmm ranks the force errors best (decision value 1.0, interval 1.0 to 1.0); told apart from all"
        in text
    )
    assert text.count("ranks the force errors best") == 1
    assert (
        "By decision value, shown better than all controls: gmm; not shown better: ensemble (than force_norm)" in text
    )
    assert "shown worse: llpr (than constant, force_norm)" in text
    assert "Intervals of 17 structures are too narrow" in text
    assert "gmm takes over from ensemble" in text
    assert "3 (next)" in text
    assert "nan" not in text.lower()


def test_the_figure_shows_each_iteration(campaign):
    sections = {part.id: part for part in page.sections(collect(campaign.folder, campaign.config))}
    (figure,) = [block for block in sections["methods"].blocks if block.kind == "figure"]
    import altair as alt

    alt.LayerChart.from_dict(dict(figure.charts[0].spec), validate=True)
    rows = [row for name, row in _rows(figure.charts[0].spec) if name == "values" and "method" in row]
    assert {row["iteration"] for row in rows} == {"iteration 1", "iteration 2"}


def _rows(spec):
    if isinstance(spec, dict):
        for key, value in spec.items():
            if key == "values" and isinstance(value, list):
                yield from (("values", row) for row in value if isinstance(row, dict))
            elif key == "datasets":
                yield from (("values", row) for rows in value.values() for row in rows)
            else:
                yield from _rows(value)
    elif isinstance(spec, list):
        for part in spec:
            yield from _rows(part)


def test_few_structures_show_no_victory_and_promise_no_interval(tmp_path):
    few = synthetic.build(tmp_path, iterations=2, vary=True, config=CONFIG, rivals=RIVALS, n_new=4, n_control=1)
    text = section_text(few)
    assert "4 structures, too few to compare" in text
    assert "4 structures are too few to tell it from the others" in text
    assert "No intervals: they need 6 structures" in text
    assert "The control slice of iteration 1 has n = 1: too few to compare." in text
    for word in ("shown better", "shown worse", "Beaten", "Ahead of the controls", "Lines: the", "In brackets"):
        assert word not in text


def test_a_method_left_out_and_a_blind_driver_are_told(tmp_path):
    fits = {
        "gmm": {"not_fitted": "It needs at least 33 atoms, found 28."},
        METHOD: {"flat": True, "calibration": {"notes": ["errors don't rise with the doubt, so all get the same"]}},
    }
    config = CONFIG | {"campaign": {"max_iterations": 1}}
    told = synthetic.build(tmp_path, iterations=2, vary=True, config=config, rivals=RIVALS, fits=fits)
    text, found = section_text(told), collect(told.folder, told.config)
    assert "not fitted: It needs at least 33 atoms, found 28." in text
    assert "calibration: errors don't rise with the doubt" in text
    assert "2 (next)" not in text, "it has ended"
    limits = " ".join(verdict(found).limits)
    assert f"Iteration 1 is driven blind: fitted to the model of iteration 0, {METHOD} doubts all atoms alike" in limits
    assert "Could not be fitted in iteration 1: gmm" in limits
    assert "gmm" not in metrics(told, 1)["bakeoff"]["cost"]


def test_a_single_method_is_told_as_such(tmp_path):
    text = section_text(synthetic.build(tmp_path, iterations=2, vary=True))
    assert "One method is fitted, ensemble" in text
    assert "Whose doubt" not in text
    assert "takes over" not in text


def test_before_anything_is_judged(tmp_path):
    text = section_text(synthetic.build(tmp_path, iterations=1))
    assert "from iteration 1 on" in text


def test_one_evaluation_of_the_members_serves_all_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dubito.config.model import ModelConfig
    from dubito.config.uncertainty import UncertaintyConfig
    from dubito.data.statistics import fit_statistics
    from dubito.model import predict
    from dubito.model.artifact import load_potential, save_potential
    from dubito.model.potential import Potential
    from dubito.stages import fit_uncertainty, predict_batch

    config = ModelConfig(n_features=4, n_layers=1, l_max=1, radial_hidden=[8], n_latent=8)
    labels = toy_labels(rattled(24))
    potential = Potential(config, fit_statistics(labels, config.r_max_angstrom), 2)
    potential.initialise(0, [0, 1])
    save_potential(tmp_path / "e.safetensors", potential, provenance={})
    potential = load_potential(tmp_path / "e.safetensors")
    split = np.array(["train"] * 16 + ["valid"] * 8, dtype="S8")
    write_structures(tmp_path / "d.h5", labels.with_columns(origin__split=split))
    write_structures(tmp_path / "s.h5", rattled(5, seed=9))
    names = [METHOD, "force_norm", "constant"]
    states = [tmp_path / f"{name}.safetensors" for name in names]
    for name, state in zip(names, states, strict=True):
        fit_uncertainty.run(
            ensemble=tmp_path / "e.safetensors",
            dataset=tmp_path / "d.h5",
            method=name,
            uncertainty=UncertaintyConfig(),
            output=state,
            about=state.with_suffix(".json"),
            seed=1,
            threads=1,
        )
    about = read_json(tmp_path / "force_norm.json")
    assert (about["evaluations"], about["evaluations_alone"]) == (2, 1)
    assert read_json(tmp_path / "ensemble.json")["evaluations_alone"] == 2
    asked = []
    real = predict.predict
    monkeypatch.setattr(predict, "predict", lambda *args, **more: asked.append(len(args[1])) or real(*args, **more))
    where = {"ensemble": tmp_path / "e.safetensors", "uncertainty": states, "methods": names, "threads": 1}
    predict_batch.run(**where, selected=tmp_path / "s.h5", output=tmp_path / "b.h5")
    assert asked == [2, 5], "once for the trial, once for the batch"
    said, cost = read_predictions(tmp_path / "b.h5"), read_attributes(tmp_path / "b.h5")["cost"]
    assert cost["n_atoms"] == int(rattled(5, seed=9).ptr[-1])
    assert set(cost["own_cpu_s"]) == set(names)
    for name, state in zip(names, states, strict=True):
        alone = method_class(name).load(state, potential).predict(rattled(5, seed=9)).fields()
        for key, values in alone.items():
            np.testing.assert_allclose(said[name][key], values, err_msg=f"{name} {key}")
