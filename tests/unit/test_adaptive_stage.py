"""Adaptive scoring from file to file, with a small ensemble."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dubito.config import Config
from dubito.config.model import ModelConfig
from dubito.config.scoring import ScoringConfig
from dubito.config.selection import SelectionConfig
from dubito.data.statistics import fit_statistics
from dubito.data.store import read_attributes, read_predictions, read_structures, write_structures
from dubito.data.structures import Structures
from dubito.metrics.reduce import worst_atom
from dubito.model.artifact import load_potential, save_potential
from dubito.model.potential import Potential
from dubito.stages import _predicting, score_candidates
from dubito.testing.structures import rattled, toy_labels
from dubito.uncertainty.ensemble import EnsembleUncertainty
from dubito.uncertainty.mixture import MixtureUncertainty

ON = ScoringConfig(adaptive=True)
SELECTION = SelectionConfig(n_select=20)
N = 1400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble of five untrained members, fitted, with its dataset and two pools of growing displacement."""
    where = tmp_path_factory.mktemp("adaptive")
    known = toy_labels(rattled(60, displacement=0.03, molecules="ammonia"))
    known = known.with_columns(origin__split=["train"] * 40 + ["valid"] * 20)
    write_structures(where / "dataset.h5", known)
    model = ModelConfig(l_max=1, n_layers=2, n_features=4, n_latent=4, radial_hidden=[8])
    potential = Potential(model, fit_statistics(known, model.r_max_angstrom), 5)
    potential.initialise(3, list(range(5)))
    save_potential(where / "ensemble.safetensors", potential, provenance={})
    potential.requires_grad_(False)
    EnsembleUncertainty.fit(potential, known[:40], known[40:], seed=1).save(where / "ensemble_state.safetensors")
    MixtureUncertainty.fit(potential, known[:40], known[40:], seed=1).save(where / "gmm_state.safetensors")
    parts = [rattled(N // 7, seed=i, displacement=0.02 + 0.015 * i, molecules="ammonia") for i in range(7)]
    pool = Structures.concatenate([part.with_columns(origin__sampler=f"md{i}") for i, part in enumerate(parts)])
    for name, rows in (("a", slice(0, 500)), ("b", slice(500, N))):
        write_structures(where / f"{name}.h5", pool[rows], attributes={"stops": {"completed": 3}, "steps": 7})
    return where


Score = Callable[..., tuple[dict[str, np.ndarray[Any, Any]], Structures, str]]


@pytest.fixture
def score(folder: Path, tmp_path: Path) -> Score:
    def run(
        name: str,
        scoring: ScoringConfig | None = ON,
        selection: SelectionConfig = SELECTION,
        method: str = "ensemble",
        metrics: Path | None = None,
    ) -> tuple[dict[str, np.ndarray[Any, Any]], Structures, str]:
        more: dict[str, Any] = {}
        if scoring is not None:
            more = {"scoring": scoring, "selection": selection, "seed": 5, "dataset": folder / "dataset.h5"}
        line = score_candidates.run(
            ensemble=folder / "ensemble.safetensors",
            uncertainty=folder / f"{method}_state.safetensors",
            method=method,
            pool=[folder / "a.h5", folder / "b.h5"],
            output=tmp_path / name,
            threads=1,
            metrics=metrics,
            **more,
        )
        return read_predictions(tmp_path / name)[method], read_structures(tmp_path / name), line

    return run


def test_from_pool_to_scores(score: Score, folder: Path, tmp_path: Path) -> None:
    said, structures, line = score("adaptive.h5")
    truth, same, _ = score("full.h5", None)
    assert structures.ids == same.ids
    about = read_attributes(tmp_path / "adaptive.h5")
    assert about["stops"] == {"completed": 6}
    told = about["adaptive"]
    full = structures.column("scoring/escalated")
    assert 0.05 < full.mean() < 0.8
    assert told["n"] == N
    assert told["n_escalated"] == full.sum()
    assert told["evaluations"] == N + 40 + 4 * full.sum()
    assert told["compute_ratio"] == pytest.approx(told["evaluations"] / (5 * N))
    assert f"{told['saved_evaluations']} saved" in line
    assert str(told["n_positives"]) in told["guarantee"]
    # Those with the full score have what the ensemble says, to the rounding of the network.
    atoms = full[structures.structure_of_atom]
    for name in ("energy", "energies", "forces", "forces_uncertainty"):
        rows = full if name == "energy" else atoms
        np.testing.assert_allclose(said[name][rows], truth[name][rows], rtol=2e-3, atol=2e-4, err_msg=name)
    # The others that of the first member, and an estimate below the threshold.
    u = worst_atom(said["forces_uncertainty"], structures.ptr)
    assert np.all(u[~full] < told["threshold"])
    assert np.all(u > 0)
    first = load_potential(folder / "ensemble.safetensors").member(0).predict(structures)
    np.testing.assert_allclose(said["forces"][~atoms], first.forces[~atoms], atol=1e-5)
    np.testing.assert_allclose(said["energy"][~full], first.energy[~full], atol=1e-5)
    # What matters is found.
    true_u = worst_atom(truth["forces_uncertainty"], structures.ptr)
    assert full[true_u >= told["threshold"]].mean() >= 0.9
    assert full[np.argsort(-true_u)[:20]].mean() >= 0.9


def test_the_same_twice(score: Score, tmp_path: Path) -> None:
    score("one.h5")
    score("two.h5")
    assert _content(tmp_path / "one.h5") == _content(tmp_path / "two.h5")


def _content(path: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()].tobytes()}) if isinstance(item, h5py.Dataset) else None
        )
        found |= {key: str(value).encode() for key, value in file.attrs.items() if key != "created_by"}
    return found


def test_off_is_as_before(score: Score, tmp_path: Path) -> None:
    score("off.h5", ScoringConfig())
    score("before.h5", None)
    assert _content(tmp_path / "off.h5") == _content(tmp_path / "before.h5")
    assert "adaptive" not in read_attributes(tmp_path / "off.h5")
    with h5py.File(tmp_path / "off.h5") as file:
        assert "scoring" not in file


def test_nothing_to_save(score: Score, tmp_path: Path) -> None:
    said, structures, line = score("half.h5", ScoringConfig(adaptive=True, top_fraction=0.97))
    truth, _, _ = score("full.h5", None)
    told = read_attributes(tmp_path / "half.h5")["adaptive"]
    assert structures.column("scoring/escalated").all()
    assert told["compute_ratio"] <= 1.1
    assert told["cutoff"] is None
    assert told["note"]
    assert told["note"] in line
    np.testing.assert_allclose(said["forces_uncertainty"], truth["forces_uncertainty"], rtol=2e-3, atol=2e-4)


def test_other_drivers_are_left_alone(score: Score, tmp_path: Path) -> None:
    _, _, line = score("gmm.h5", method="gmm")
    assert "adaptive scoring is for 'ensemble' alone, so all members were evaluated" in line
    assert "adaptive" not in read_attributes(tmp_path / "gmm.h5")


def test_memory_is_bounded_and_pieces_do_not_show(
    score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    before = Potential.predict

    def watched(self: Potential, structures: Structures, **more: Any) -> Any:
        sizes.append(len(structures))
        return before(self, structures, **more)

    score("one.h5")
    monkeypatch.setattr(Potential, "predict", watched)
    monkeypatch.setattr(_predicting, "PIECE_STRUCTURES", 64)
    monkeypatch.setattr("dubito.stages._adaptive.PIECE_STRUCTURES", 64)
    small, structures, _ = score("two.h5")
    assert max(sizes) <= 64
    one = read_predictions(tmp_path / "one.h5")["ensemble"]
    other = read_structures(tmp_path / "one.h5")
    # Rounding of the network may move one candidate across a cut.
    same = structures.column("scoring/escalated") == other.column("scoring/escalated")
    assert same.mean() > 0.99
    np.testing.assert_allclose(small["forces"][same[structures.structure_of_atom]],
                               one["forces"][same[structures.structure_of_atom]], atol=1e-4)  # fmt: skip
    left = [path.name for path in tmp_path.iterdir() if not path.name.endswith(".h5")]
    assert left == []


def test_an_empty_pool(folder: Path, tmp_path: Path) -> None:
    write_structures(tmp_path / "none.h5", Structures.empty(), attributes={"stops": {"force": 4}})
    line = score_candidates.run(
        ensemble=folder / "ensemble.safetensors",
        uncertainty=folder / "ensemble_state.safetensors",
        method="ensemble",
        pool=[tmp_path / "none.h5"],
        output=tmp_path / "s.h5",
        threads=1,
        dataset=folder / "dataset.h5",
        scoring=ON,
        selection=SELECTION,
        seed=1,
    )
    assert line.startswith("0 candidates of 1 jobs")
    told = read_attributes(tmp_path / "s.h5")["adaptive"]
    assert (told["n"], told["compute_ratio"]) == (0, 1.0)
    json.dumps(told)


def test_another_driver_is_refused_in_time() -> None:
    raw = {"scoring": {"adaptive": True}, "uncertainty": {"methods": ["gmm"], "acquire_with": "gmm"}}
    with pytest.raises(ValueError, match=r"scoring\.adaptive saves evaluations of the ensemble's members"):
        Config.model_validate(raw)
    assert Config.model_validate({"scoring": {"adaptive": True}}).scoring.recall == 0.95


def test_the_window_of_the_certificate_bounds_the_threshold(score: Score, tmp_path: Path) -> None:
    """threshold_window selects at random above what the certificate accepts: who lies there must be known."""
    truth, structures, _ = score("full.h5", None)
    full = worst_atom(truth["forces_uncertainty"], structures.ptr)
    limit = float(np.quantile(full, 0.6))
    window = SelectionConfig(n_select=20, selector="threshold_window")
    strata = [{"members": [f"md{i}" for i in range(7)], "threshold": limit}]
    said = {"method": "ensemble", "scoring_mode": "adaptive", "strata": strata}
    told = {}
    for name, certificate in (("without", None), ("with", said)):
        (tmp_path / "metrics.json").write_text(json.dumps({"certificate": certificate}))
        score(f"{name}.h5", ON, window, metrics=tmp_path / "metrics.json")
        told[name] = read_attributes(tmp_path / f"{name}.h5")["adaptive"]
    assert told["with"]["threshold"] <= limit
    escalated = read_structures(tmp_path / "with.h5").column("scoring/escalated")
    assert escalated[full > limit].mean() >= 0.9
    assert told["with"]["n_escalated"] > told["without"]["n_escalated"]
