"""Configuration: faults are named, generated files don't drift, resolving is a fixed point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dubito.cli.generated import generated_files
from dubito.config import Config, config_hash, load_config, parse_config
from dubito.config.generate import default_yaml
from dubito.config.inputs import input_files, require_inputs
from dubito.config.uncertainty import KNOWN_METHODS
from dubito.core.errors import ConfigError
from dubito.uncertainty.registry import METHODS

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "config" / "examples").glob("*.yaml"))

# Each broken configuration, and what the message must say: key, found or expected, remedy.
BROKEN: list[tuple[str, str, list[str]]] = [
    ("unknown section", "modelx: {}", ["modelx: is not a known key", "Did you mean 'model'"]),
    ("unknown key", "training: {n_member: 4}", ["training.n_member", "Did you mean 'n_members'"]),
    (
        "key without its unit",
        "model: {r_max: 4.0}",
        ["model.r_max: is not a known key", "Did you mean 'r_max_angstrom'"],
    ),
    (
        "wrong unit suffix",
        "sampling: {sampler: {timestep_ps: 0.5}}",
        ["sampling.sampler.timestep_ps", "Did you mean 'timestep_fs'"],
    ),
    (
        "unit in the value",
        "model: {r_max_angstrom: '4 A'}",
        ["model.r_max_angstrom: found '4 A'", "the unit is Å, write the number alone"],
    ),
    ("wrong type", "campaign: {seed: many}", ["campaign.seed: found 'many' (str)", "expected a valid integer"]),
    ("fraction for a count", "training: {n_members: 2.5}", ["training.n_members: found 2.5", "integer"]),
    ("negative", "selection: {n_select: -3}", ["selection.n_select: found -3", "greater than or equal to 1"]),
    ("not a number", "model: {r_max_angstrom: .nan}", ["model.r_max_angstrom: found nan", "finite number"]),
    ("empty hidden layer", "model: {radial_hidden: [8, 0]}", ["model.radial_hidden.1: found 0", "greater than 0"]),
    ("a name that is taken", "campaign: {name: label_cache}", ["campaign.name: results/label_cache is where"]),
    ("ensemble of one", "training: {n_members: 1}", ["training.n_members is 1", "needs 2 members"]),
    (
        "look-up of structures that don't exist yet",
        "labelling: {labeller: {kind: dataset, files: [a.h5]}}",
        ["only knows the structures of its files", "campaign.max_iterations to 0"],
    ),
    ("l_max too high", "model: {l_max: 9}", ["model.l_max: found 9", "less than or equal to 4"]),
    (
        "unknown labeller",
        "labelling: {labeller: {kind: pysf}}",
        ["labelling.labeller.kind: found 'pysf'", "pyscf, teacher, dataset", "Did you mean 'pyscf'"],
    ),
    (
        "key of another labeller",
        "labelling: {labeller: {kind: teacher, basis: def2-svp}}",
        ["labelling.labeller.basis: is not a known key"],
    ),
    (
        "labeller without its files",
        "labelling: {labeller: {kind: dataset}}",
        ["labelling.labeller.files: is required here and is missing"],
    ),
    (
        "literal",
        "labelling: {labeller: {kind: teacher, potential: mores}}",
        ["labelling.labeller.potential: found 'mores'", "Did you mean 'morse'"],
    ),
    (
        "two origins",
        "data: {initial: {kind: rattle, molecule: NH3, file: a.xyz}}",
        ["data.initial: give exactly one of `molecule` and `file`"],
    ),
    (
        "kind left out",
        "data: {initial: {molecule: NH3}}",
        ["data.initial.kind: is required here and is missing; add one of: rattle, files"],
    ),
    ("unknown selector", "selection: {selector: top}", ["selection.selector: 'top' is not a known selector"]),
    ("unknown method", "uncertainty: {methods: [ensembel]}", ["uncertainty.methods", "Did you mean 'ensemble'"]),
    ("method not fitted", "uncertainty: {acquire_with: gmm}", ["uncertainty: acquire_with is 'gmm'", "add it there"]),
    (
        "start of auto not fitted",
        "uncertainty: {methods: [gmm, llpr], acquire_with: auto}",
        ["uncertainty: auto.start_with is 'ensemble'", "not among the fitted methods ['gmm', 'llpr']"],
    ),
    (
        "unknown start of auto",
        "uncertainty: {methods: [ensemble, gmm], acquire_with: auto, auto: {start_with: emsemble}}",
        ["auto.start_with is 'emsemble'", "choose one of them"],
    ),
    (
        "nothing to choose from",
        "uncertainty: {methods: [ensemble, constant], acquire_with: auto}",
        ["acquire_with is 'auto', but ['ensemble'] is all that may drive", "constant and random never drive"],
    ),
    (
        "auto starts with noise",
        "uncertainty: {methods: [ensemble, random], acquire_with: auto, auto: {start_with: random}}",
        ["auto.start_with is 'random', a control", "selection.selector: random"],
    ),
    (
        "ensemble of one",
        "{training: {n_members: 1}, uncertainty: {methods: [gmm, ensemble], acquire_with: gmm}}",
        ["needs 2 members at least", "take 'ensemble' out of uncertainty.methods"],
    ),
    ("method twice", "uncertainty: {methods: [ensemble, gmm, gmm]}", ["a method is listed twice"]),
    ("nothing to learn", "training: {energy_weight: 0, force_weight: 0}", ["training: energy_weight", "raise one"]),
    (
        "rates reversed",
        "training: {learning_rate: 1.0e-6}",
        ["training: min_learning_rate (1e-05) must be below learning_rate (1e-06)"],
    ),
    (
        "temperature",
        "sampling: {sampler: {temperatures_K: [300, -5]}}",
        ["sampling.sampler.temperatures_K", "between 0 and 20000 K"],
    ),
    (
        "profile atoms",
        "evaluation: {profiles: [{plane_atoms: [1, 1, 2]}]}",
        ["evaluation.profiles.0.plane_atoms", "three different atoms"],
    ),
    ("profiles of one name", "evaluation: {profiles: [{}, {}]}", ["two profiles of the same name"]),
    ("name with a slash", "campaign: {name: ../up}", ["campaign.name: found '../up'", "pattern"]),
    ("section that is a list", "training: [1, 2]", ["training: found [1, 2] (list)"]),
    ("not a mapping", "- 1\n- 2", ["holds a list", "expected sections"]),
    ("not YAML", "campaign: {name: [}", ["is not valid YAML", "Mend that line"]),
]


@pytest.mark.parametrize(("text", "fragments"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_broken_configuration_is_named(tmp_path: Path, text: str, fragments: list[str]) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert str(path) in message
    for fragment in fragments:
        assert fragment in message
    assert "Traceback" not in message
    assert "pydantic" not in message


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match="has 3 faults"):
        parse_config({"campaign": {"namee": "x", "seed": -1}, "model": {"l_max": 7}})


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Make one with `dubito new DIR`"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path)


def test_empty_file_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert load_config(tmp_path / "empty.yaml") == Config()


@pytest.mark.parametrize("path", EXAMPLES, ids=[p.stem for p in EXAMPLES])
def test_resolving_is_a_fixed_point(path: Path) -> None:
    once = load_config(path)
    assert parse_config(once.model_dump(mode="json")) == once
    assert parse_config(yaml.safe_load(default_yaml(once))) == once
    assert config_hash(parse_config(yaml.safe_load(default_yaml(once)))) == config_hash(once)


@given(
    rate=st.floats(2e-5, 0.9),
    decay=st.floats(0, 0.999),
    seed=st.integers(0, 2**31 - 1),
    temperatures=st.lists(st.floats(0.1, 20000), min_size=1, max_size=4),
    name=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True),
)
def test_any_configuration_survives_its_yaml(
    rate: float, decay: float, seed: int, temperatures: list[float], name: str
) -> None:
    raw: dict[str, Any] = {
        "campaign": {"seed": seed, "name": name},
        "training": {"learning_rate": rate, "ema_decay": decay},
        "sampling": {"sampler": {"kind": "langevin", "temperatures_K": temperatures}},
    }
    config = parse_config(raw)
    assert parse_config(yaml.safe_load(default_yaml(config))) == config


def test_generated_files_have_not_drifted() -> None:
    for path, text in generated_files(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, f"{path} drifted: run `dubito config --write`"


def test_every_key_says_what_it_is() -> None:
    from dubito.config.generate import key_table

    for row in key_table().splitlines()[2:]:
        meaning = row.split("|")[3].strip()
        assert len(meaning) > 8, row


def test_known_methods_are_those_of_the_registry() -> None:
    assert set(KNOWN_METHODS) == set(METHODS.own)


def test_missing_and_empty_inputs_are_named(tmp_path: Path) -> None:
    (tmp_path / "start.xyz").write_text("")
    (tmp_path / "test_set.xyz").write_text("1\n\nH 0 0 0\n")
    config = parse_config(
        {
            "campaign": {"max_iterations": 0},
            "data": {"initial": {"kind": "files", "files": [str(tmp_path / "start.xyz")]}},
            "labelling": {"labeller": {"kind": "dataset", "files": [str(tmp_path)]}},
            "evaluation": {"test_files": [str(tmp_path / "testset.xyz")]},
        }
    )
    assert set(input_files(config)) == {"data.initial.files", "labelling.labeller.files", "evaluation.test_files"}
    with pytest.raises(ConfigError) as caught:
        require_inputs(config)
    message = str(caught.value)
    assert "start.xyz is empty" in message
    assert "is a folder; name the files in it" in message
    assert "testset.xyz does not exist" in message
    assert f"Did you mean '{tmp_path / 'test_set.xyz'}'" in message
