"""A method that can't be fitted costs the campaign that method, not the labels; the driver has to be fitted."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubito.cli.methods import table
from dubito.config import packages, parse_config
from dubito.config.model import ModelConfig
from dubito.config.uncertainty import UncertaintyConfig
from dubito.core.errors import ConfigError, EnvironmentFault, ModelError
from dubito.core.files import read_json, write_json
from dubito.data.statistics import fit_statistics
from dubito.data.store import read_attributes, read_predictions, write_structures
from dubito.model.artifact import save_potential
from dubito.model.potential import Potential
from dubito.stages import _unfitted, fit_uncertainty, predict_batch, predict_structures, score_candidates
from dubito.stages._bakeoff import costs_of
from dubito.stages._unfitted import why_unfitted
from dubito.testing.structures import rattled, toy_labels
from dubito.uncertainty import files
from dubito.uncertainty.registry import METHODS
from dubito.workflow.campaign import forget_unfitted


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training structures, with fewer atoms than the mixture needs for its 32 latents."""
    folder = tmp_path_factory.mktemp("few")
    config = ModelConfig(n_features=4, n_layers=1, l_max=1, radial_hidden=[8], n_latent=32)
    labels = toy_labels(rattled(6))
    potential = Potential(config, fit_statistics(labels, config.r_max_angstrom), 2)
    potential.initialise(0, [0, 1])
    save_potential(folder / "e.safetensors", potential, provenance={})
    split = np.array(["train"] * 4 + ["valid"] * 2, dtype="S8")
    write_structures(folder / "d.h5", labels.with_columns(origin__split=split))
    write_structures(folder / "s.h5", rattled(3, seed=9))
    return folder


def fit(few: Path, folder: Path, method: str, role: fit_uncertainty.Role) -> str:
    return fit_uncertainty.run(
        ensemble=few / "e.safetensors",
        dataset=few / "d.h5",
        method=method,
        uncertainty=UncertaintyConfig(),
        output=folder / f"{method}.safetensors",
        about=folder / f"{method}.json",
        seed=1,
        threads=1,
        role=role,
    )


def test_a_driver_that_can_not_be_fitted_ends_it_with_a_way_out(few: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="or take it out of uncertainty"):
        fit(few, tmp_path, "gmm", "driver")
    assert not list(tmp_path.iterdir())


def test_another_method_that_can_not_be_fitted_is_left_out(few: Path, tmp_path: Path) -> None:
    line = fit(few, tmp_path, "gmm", "spectator")
    assert line.startswith("gmm could not be fitted, left out: ")
    fit(few, tmp_path, "ensemble", "driver")
    about, state = read_json(tmp_path / "gmm.json"), tmp_path / "gmm.safetensors"
    assert about == {"method": "gmm", "not_fitted": why_unfitted(state)}
    assert why_unfitted(tmp_path / "ensemble.safetensors") is None
    names = ["gmm", "ensemble"]
    where: dict[str, Any] = {
        "ensemble": few / "e.safetensors",
        "uncertainty": [tmp_path / f"{name}.safetensors" for name in names],
        "methods": names,
        "threads": 1,
    }
    said = predict_batch.run(**where, selected=few / "s.h5", output=tmp_path / "b.h5")
    assert said.endswith("doubted by ensemble")
    assert set(read_predictions(tmp_path / "b.h5")) == {"ensemble"}
    assert set(read_attributes(tmp_path / "b.h5")["cost"]["own_cpu_s"]) == {"ensemble"}
    predict_structures.run(**where, inputs=[few / "d.h5"], outputs=[tmp_path / "p.h5"])
    assert set(read_predictions(tmp_path / "p.h5")) == {"ensemble"}
    assert set(costs_of([tmp_path / f"{name}.json" for name in names], tmp_path / "b.h5")) == {"ensemble"}
    with pytest.raises(ModelError, match=r"None of the uncertainty methods could be fitted\. gmm: "):
        predict_batch.run(
            **{**where, "methods": ["gmm"], "uncertainty": [state]}, selected=few / "s.h5", output=tmp_path / "c.h5"
        )
    with pytest.raises(ModelError, match="'gmm' could not be fitted, so it can't drive"):
        score_candidates.run(
            ensemble=few / "e.safetensors",
            uncertainty=state,
            method="gmm",
            pool=[few / "s.h5"],
            output=tmp_path / "x.h5",
            threads=1,
        )


def test_a_method_that_has_to_drive_after_all_is_fitted_again(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("results/ammonia/iter_000/uncertainty")
    folder.mkdir(parents=True)
    fit(few, folder, "gmm", "spectator")
    fit(few, folder, "constant", "spectator")
    kept = parse_config({"uncertainty": {"methods": ["ensemble", "gmm", "constant"]}})
    forget_unfitted(kept)
    assert len(list(folder.iterdir())) == 4
    forget_unfitted(parse_config({"uncertainty": {"methods": ["gmm", "constant"], "acquire_with": "gmm"}}))
    assert {path.name for path in folder.iterdir()} == {"constant.json", "constant.safetensors"}


# --- doubt without a relation to the errors ----------------------------------------------------------------


def test_equal_doubt_is_recorded_and_told(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr(fit_uncertainty.log, "warning", lambda text, *values: warned.append(text % values))
    assert "ranks nothing" not in fit(few, tmp_path, "ensemble", "driver")
    assert read_json(tmp_path / "ensemble.json")["flat"] is False
    assert "ranks nothing" not in fit(few, tmp_path, "constant", "spectator"), "it is meant to"
    assert read_json(tmp_path / "constant.json")["flat"] is True
    assert warned == []
    monkeypatch.setattr(fit_uncertainty, "_is_flat", lambda *_: True)
    assert "it doubts all atoms alike, so it ranks nothing" in fit(few, tmp_path, "ensemble", "driver")
    assert warned[0].startswith("ensemble doubts all atoms alike")
    assert "It drives." in warned[0]
    fit(few, tmp_path, "ensemble", "candidate")
    assert "may drive" in warned[1]
    fit(few, tmp_path, "ensemble", "spectator")
    assert len(warned) == 2


@pytest.mark.parametrize(("spread", "flat"), [(0.0, True), (0.005, True), (0.02, False)])
def test_flat_is_a_spread_below_a_hundredth(spread: float, flat: bool) -> None:
    class Said:
        def predict(self, structures: Any) -> Any:
            values = np.tile([1 - spread, 1 + spread], 6)
            return type("P", (), {"fields": lambda _: {"forces_uncertainty": np.repeat(values[:, None], 3, axis=1)}})()

    assert fit_uncertainty._is_flat(Said(), rattled(3)) is flat


# --- packages ---------------------------------------------------------------------------------------------


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without gpytorch and scikit-learn."""
    real = importlib.util.find_spec
    hidden = {"gpytorch", "linear_operator", "sklearn"}
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name in hidden else real(name))


@pytest.mark.usefixtures("bare")
def test_what_a_method_lacks_is_told_before_anything_is_paid() -> None:
    with pytest.raises(ConfigError, match="python -m pip install gpytorch linear-operator`, or take 'svgp' out"):
        parse_config({"uncertainty": {"methods": ["ensemble", "svgp"]}})
    with pytest.raises(ConfigError, match="'gmm' needs scikit-learn, which is not installed"):
        parse_config({"uncertainty": {"methods": ["ensemble", "gmm"]}})
    parse_config({"uncertainty": {"methods": ["ensemble", "llpr"]}})


@pytest.mark.usefixtures("bare")
def test_the_list_of_methods_says_what_is_to_be_installed() -> None:
    said = {line.split()[0]: line for line in table(METHODS)}
    assert "can't be fitted here" in said["svgp"]
    assert said["gmm"].endswith("run `python -m pip install scikit-learn`")
    assert "can't" not in said["ensemble"]


@pytest.mark.usefixtures("bare")
def test_a_missing_package_is_no_reason_to_go_on_without(few: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="pip install scikit-learn"):
        fit(few, tmp_path, "gmm", "spectator")


def test_a_broken_package_is_the_machines_fault(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise ImportError("libtorch.so: undefined symbol")

    monkeypatch.setattr(fit_uncertainty, "method_class", broken)
    with pytest.raises(EnvironmentFault, match=r"can't be loaded here \(libtorch\.so: undefined symbol\)"):
        fit(few, tmp_path, "svgp", "spectator")


def test_a_plain_fit_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    write_json(tmp_path / "no.safetensors", {})
    assert why_unfitted(tmp_path / "no.safetensors") is None
    assert why_unfitted(tmp_path / "absent.safetensors") is None


def test_who_reads_states_knows_the_format() -> None:
    assert _unfitted.FORMAT == files.NOT_FITTED
