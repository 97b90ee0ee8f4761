"""Where networks run: what is chosen, what is said when it can't be, and that nothing reruns for it."""

from __future__ import annotations

import inspect
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from dubito.config import config_hash, parse_config
from dubito.config.model import ModelConfig
from dubito.core.errors import ConfigError, EnvironmentFault
from dubito.data import device
from dubito.data.device import choose_device
from dubito.data.statistics import fit_statistics
from dubito.model.artifact import save_potential
from dubito.model.potential import Potential
from dubito.stages import (
    explore_structures,
    fit_uncertainty,
    predict_batch,
    predict_structures,
    score_candidates,
    train_ensemble,
)
from dubito.testing.structures import rattled, toy_labels
from dubito.uncertainty.ensemble import EnsembleUncertainty
from dubito.uncertainty.registry import load_method
from dubito.workflow.resources import gpus_of_rule, machine_has_gpu, visible_gpus

NETWORK = (
    train_ensemble,
    fit_uncertainty,
    explore_structures,
    score_candidates,
    predict_structures,
    predict_batch,
)


@pytest.mark.parametrize(
    ("wanted", "gpus", "has_cuda", "expected"),
    [
        ("cpu", 1, True, "cpu"),
        ("auto", 0, True, "cpu"),
        ("auto", 1, True, "cuda"),
        ("auto", 1, False, "cpu"),
        ("auto", 0, False, "cpu"),
        ("cuda", 0, True, "cuda"),
        ("cuda", 1, True, "cuda"),
    ],
)
def test_choice(monkeypatch: pytest.MonkeyPatch, wanted: str, gpus: int, has_cuda: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    assert choose_device(wanted, gpus) == expected


@pytest.mark.parametrize(("built", "words"), [(None, "build without CUDA"), ("12.8", "built for CUDA 12.8, but finds")])
def test_a_missing_gpu_is_an_error_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, built: str | None, words: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    with pytest.raises(EnvironmentFault, match=rf"resources\.device is 'cuda'.*{words}.*gpu: 1.*finished work is kept"):
        choose_device("cuda")


def test_a_gpu_that_can_not_be_used_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device.log, "propagate", True)
    with caplog.at_level(logging.WARNING):
        choose_device("auto", 1)
    assert "can't use one" in caplog.text


@pytest.mark.parametrize("stage", NETWORK, ids=lambda stage: stage.__name__.rpartition(".")[2])
def test_every_stage_with_network_takes_a_device(stage: Any) -> None:
    taken = inspect.signature(stage.run).parameters
    assert {"device", "gpus"} <= set(taken)


def test_a_stage_that_is_refused_a_gpu_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ensemble, method = save_ensemble(tmp_path)
    with pytest.raises(EnvironmentFault, match=r"resources\.device"):
        load_method("ensemble", ensemble, method, device="cuda")
    from dubito.data.store import write_structures

    write_structures(tmp_path / "pool.h5", rattled(3))
    with pytest.raises(EnvironmentFault, match=r"resources\.device"):
        score_candidates.run(
            ensemble=ensemble, uncertainty=method, method="ensemble", pool=[tmp_path / "pool.h5"],
            output=tmp_path / "scores.h5", threads=1, device="cuda",
        )  # fmt: skip
    assert not list(tmp_path.glob("*scores*"))


def save_ensemble(folder: Path) -> tuple[Path, Path]:
    config = ModelConfig(n_features=4, n_layers=1, radial_hidden=[4], n_latent=2)
    potential = Potential(config, fit_statistics(toy_labels(rattled(4)), config.r_max_angstrom), 2)
    potential.initialise(0, [0, 1])
    save_potential(folder / "e.safetensors", potential, provenance={})
    EnsembleUncertainty.uncalibrated(potential).save(folder / "m.safetensors")
    return folder / "e.safetensors", folder / "m.safetensors"


def stored_fingerprint(state: Path) -> str:
    with safe_open(state, framework="numpy") as file:
        return str(json.loads(file.metadata()["dubito"])["potential"])


@pytest.mark.parametrize("where", ["cpu", "meta"])
def test_weights_go_where_they_are_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    # `meta` stands in for a GPU: a tensor that stayed behind would still be on the processor.
    monkeypatch.setattr("dubito.data.device.choose_device", lambda *_: where)
    ensemble, method = save_ensemble(tmp_path)
    # Weights on `meta` have no values to be compared with those the method was fitted to.
    monkeypatch.setattr("dubito.uncertainty.method.fingerprint", lambda _: stored_fingerprint(method))
    fitted = load_method("ensemble", ensemble, method, device="cuda", gpus=1)
    assert {p.device.type for p in fitted.potential.parameters()} == {where}
    assert {b.device.type for b in fitted.potential.buffers()} <= {where}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_predicts_what_the_processor_predicts(tmp_path: Path) -> None:
    ensemble, method = save_ensemble(tmp_path)
    structures = rattled(20)
    here, there = (
        load_method("ensemble", ensemble, method, device=name, gpus=1).predict(structures) for name in ("cpu", "cuda")
    )
    assert abs(here.energy - there.energy).max() < 1e-4
    assert abs(here.forces - there.forces).max() < 1e-3


# --- the configuration and the rules ------------------------------------------------------------------------


def test_the_device_is_no_part_of_the_results() -> None:
    one, other = parse_config({}), parse_config({"resources": {"device": "cpu"}})
    assert one.resources.device == "auto"
    assert config_hash(one) == config_hash(other)
    assert config_hash(one) != config_hash(parse_config({"campaign": {"seed": 1}}))
    with pytest.raises(ConfigError, match=r"resources\.device: found 'gpu'"):
        parse_config({"resources": {"device": "gpu"}})


@pytest.mark.parametrize(
    ("wanted", "is_driver", "runs_here", "has_gpu", "shown", "expected"),
    [
        ("cpu", True, True, True, None, 0),
        ("auto", True, True, True, None, 1),
        ("auto", True, True, False, None, 0),
        ("auto", True, True, True, "", 0),
        ("auto", True, False, True, None, 0),
        ("cuda", True, False, False, None, 1),
        ("cuda", True, True, False, None, 1),
        ("auto", False, True, True, None, 0),
        ("auto", False, True, True, "0", 1),
        ("cuda", False, True, True, "0,1", 2),
    ],
)
def test_gpus_of_a_rule(
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    is_driver: bool,
    runs_here: bool,
    has_gpu: bool,
    shown: str | None,
    expected: int,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    real = machine_has_gpu
    folder = Path("/nowhere")
    monkeypatch.setattr(
        "dubito.workflow.resources.machine_has_gpu",
        lambda environment: has_gpu and (real(environment, folder) or "CUDA_VISIBLE_DEVICES" not in environment),
    )
    assert gpus_of_rule(wanted, is_driver=is_driver, runs_here=runs_here) == expected


def test_gpus_are_found_by_their_device_files(tmp_path: Path) -> None:
    for name in ("nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert not machine_has_gpu({}, tmp_path)
    (tmp_path / "nvidia0").touch()
    assert machine_has_gpu({}, tmp_path)
    assert machine_has_gpu({"CUDA_VISIBLE_DEVICES": "0"}, tmp_path)
    assert not machine_has_gpu({"CUDA_VISIBLE_DEVICES": "-1"}, tmp_path)
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "GPU-6f, GPU-7a"}) == 2
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}) == 0
