"""Every registered uncertainty method passes the shipped suite."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from dubito.config.model import ModelConfig
from dubito.config.uncertainty import KNOWN_METHODS
from dubito.core.errors import ModelError
from dubito.data.statistics import fit_statistics
from dubito.model.artifact import load_potential, save_potential
from dubito.model.potential import Potential
from dubito.testing.structures import rattled, toy_labels
from dubito.testing.uncertainty_suite import UncertaintyMethodTests
from dubito.uncertainty.base import evaluations_of
from dubito.uncertainty.files import fingerprint, method_of
from dubito.uncertainty.registry import METHODS, method_class


class TestEnsemble(UncertaintyMethodTests):
    method = "ensemble"

    def test_everything_made_of_the_members_is_on_one_scale(self, fitted: Any) -> None:
        given = fitted.predict(rattled(4, seed=11))
        spread = given.energy_ensemble.std(axis=1, ddof=1)
        np.testing.assert_allclose(spread, given.uncertainty["energy"], rtol=1e-9)
        np.testing.assert_allclose(given.energy_ensemble.mean(axis=1), given.energy, atol=1e-9)
        assert fitted.factor != 1.0
        np.testing.assert_allclose(given.uncertainty["energies"], fitted.factor * given.scores["energies"], rtol=1e-12)


def test_every_method_is_tested_and_known_to_the_configuration() -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_uncertainty*.py"))
    tested = set(re.findall(r'^    method(?:: .*)? = "(\w+)"', text, flags=re.MULTILINE))
    assert tested == set(METHODS.own) == set(KNOWN_METHODS)


# --- files ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> Potential:
    train = toy_labels(rattled(8, seed=1))
    out = Potential(ModelConfig(n_layers=1, dtype="float64", r_max_angstrom=3.5), fit_statistics(train, 3.5), 2)
    out.initialise(0, [0, 1])
    return out.requires_grad_(False)


def changed(potential: Potential, *, config: dict[str, Any] | None = None, **statistics: Any) -> Potential:
    """Return a potential of the same weights."""
    out = Potential(
        potential.config.model_copy(update=config or {}),
        replace(potential.statistics, **statistics),
        potential.n_members,
    )
    for mine, theirs in zip(out.parameters(), potential.parameters(), strict=True):
        mine.data.copy_(theirs.data)
    return out


def test_a_state_belongs_to_the_weights_the_architecture_and_the_statistics(small: Potential) -> None:
    s = small.statistics
    others = [
        changed(small, scale_ev=2 * s.scale_ev),
        changed(small, atomic_energies_ev=s.atomic_energies_ev + 1),
        changed(small, force_scale_ev_per_angstrom=2 * s.force_scale_ev_per_angstrom),
        changed(small, avg_num_neighbors=2 * s.avg_num_neighbors),
        changed(small, species=(1, 15, 16)),
        changed(small, config={"r_max_angstrom": 5.0}),
        changed(small, config={"cutoff_exponent": 8}),
    ]
    one_weight = changed(small)
    next(one_weight.parameters()).data.view(-1)[0] += 1e-9
    marks = {fingerprint(other) for other in [small, one_weight, *others]}
    assert len(marks) == len(others) + 2
    # How it is computed, and whether it went through a file, changes nothing.
    assert fingerprint(changed(small, config={"kernel": "dense"})) == fingerprint(small)


def test_a_saved_potential_keeps_its_fingerprint(small: Potential, tmp_path: Path) -> None:
    save_potential(tmp_path / "p.safetensors", small, provenance={})
    assert fingerprint(load_potential(tmp_path / "p.safetensors")) == fingerprint(small)


@pytest.mark.parametrize("method", ["distance", "ensemble"])
def test_damaged_states_are_told_from_others(small: Potential, tmp_path: Path, method: str) -> None:
    train, valid = toy_labels(rattled(8, seed=1)), toy_labels(rattled(6, seed=2))
    cls = method_class(method)
    path, spoilt = tmp_path / "whole.safetensors", tmp_path / "spoilt.safetensors"
    cls.fit(small, train, valid, seed=0).save(path)
    assert method_of(path) == method
    with safe_open(path, framework="numpy") as file:
        about = json.loads(file.metadata()["dubito"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    no_calibration = {key: value for key, value in about.items() if key != "calibration"}
    for metadata in (
        {**about, "settings": None},
        {**about, "calibration": []},
        no_calibration,
        {**about, "calibration": {}},
    ):
        save_file(tensors, spoilt, metadata={"dubito": json.dumps(metadata)})
        with pytest.raises(ModelError, match="damaged"):
            cls.load(spoilt, small)
    for key in tensors:
        rest = {k: v for k, v in tensors.items() if k != key}
        save_file(rest or {"x": np.zeros(1)}, spoilt, metadata={"dubito": json.dumps(about)})
        with pytest.raises(ModelError, match="damaged"):
            cls.load(spoilt, small)
    for text in ("null", "[1]", "{"):
        save_file(tensors, spoilt, metadata={"dubito": text})
        with pytest.raises(ModelError):
            cls.load(spoilt, small)
    spoilt.write_bytes(path.read_bytes()[:100])
    for unreadable in (spoilt, tmp_path, tmp_path / "none.safetensors"):
        with pytest.raises(ModelError, match="not a readable state"):
            cls.load(unreadable, small)
        assert method_of(unreadable) is None


def test_evaluations_of_a_method_that_does_not_say() -> None:
    class Silent:
        pass

    class Speaking:
        evaluations = 7

    assert evaluations_of(Silent(), 4) == 4.0
    assert evaluations_of(Speaking(), 4) == 7.0
