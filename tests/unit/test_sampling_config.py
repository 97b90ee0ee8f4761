"""Several samplers in a campaign: how they are configured, which job runs which, and what reruns a job."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dubito.cli.plan import check_start, forecast
from dubito.config import parse_config
from dubito.config.generate import SCHEMA_PATH, default_yaml
from dubito.config.plugin_sampling import PluginSamplerConfig
from dubito.core import plugins
from dubito.core.errors import ConfigError, DataError
from dubito.data.structures import Structures
from dubito.sampling.base import Sampled
from dubito.sampling.registry import make_sampler
from dubito.stages import explore_structures
from dubito.testing.sampler_suite import ToyPredictor
from dubito.testing.structures import rattled, toy_labels
from dubito.workflow import work
from dubito.workflow.arguments import convert
from dubito.workflow.recorded import exploring_settings, reported_settings
from dubito.workflow.resources import threads_of

RULES = Path(__file__).parents[2] / "workflow" / "rules"
SEVERAL = {
    "sampler": {"n_jobs": 2, "n_walkers": 5},
    "more_samplers": [
        {"kind": "rattle", "n_structures": 30},
        {"kind": "normal_modes", "n_jobs": 2},
        {"kind": "dihedral_scan"},
    ],
}


def sampling(raw: dict[str, Any] | None = None) -> Any:
    return parse_config({"sampling": raw or SEVERAL}).sampling


# --- configuration ------------------------------------------------------------------------------------------


def test_jobs_are_numbered_through_all_samplers() -> None:
    config = sampling()
    assert config.n_jobs == 6
    kinds = [config.sampler_of_job(job).kind for job in range(6)]
    assert kinds == ["langevin", "langevin", "rattle", "normal_modes", "normal_modes", "dihedral_scan"]
    for job in (-1, 6):
        with pytest.raises(IndexError, match="6 jobs explore"):
            config.sampler_of_job(job)


def test_words_for_the_report() -> None:
    assert sampling().words == (
        "langevin at 300, 600, 1200 K; rattle by 0.05, 0.1, 0.2 Å; normal_modes at 300, 600, 1200 K; "
        "dihedral_scan in steps of 30°"
    )


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"sampler": {"kind": "langevine"}}, "sampling.sampler.kind: 'langevine' is not a known sampler. Did you mean"),
        ({"more_samplers": [{"kind": "ratle"}]}, "sampling.more_samplers.0.kind: 'ratle' .* Did you mean 'rattle'"),
        # Another kind's keys are neither taken nor offered.
        (
            {"more_samplers": [{"kind": "rattle"}, {"kind": "rattle", "n_step": 3}]},
            r"sampling.more_samplers.1.n_step: is not a known key. .*Known here: displacements_angstrom, kind, n_jobs, "
            r"n_structures\.$",
        ),
        ({"sampler": {"timestep_ps": 1}}, "sampling.sampler.timestep_ps: .*Did you mean 'timestep_fs'"),
        ({"more_samplers": [{"n_walkers": 0}]}, "sampling.more_samplers.0.n_walkers: found 0"),
        ({"more_samplers": {"kind": "rattle"}}, "sampling.more_samplers: .*expected a valid list"),
        ({"more_samplers": [{"kind": "rattle", "displacements_angstrom": [2]}]}, "between 0 and 1 Å, found"),
        ({"more_samplers": [{"kind": "normal_modes", "temperatures_K": [0]}]}, "between 0 and 20000 K"),
    ],
)
def test_what_is_wrong_is_named(raw: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        sampling(raw)


@pytest.mark.parametrize(
    "raw", [{}, {"sampler": {"n_steps": 10}}, SEVERAL, {"sampler": {"kind": "other", "settings": {"a": [1]}}}]
)
def test_editors_take_what_dubito_takes(raw: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((RULES.parents[1] / SCHEMA_PATH).read_text())
    jsonschema.validate({"sampling": raw}, schema)
    for wrong in ({"sampler": {"kind": "rattle", "n_steps": 3}}, {"sampler": {"kind": "other", "n_steps": 3}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"sampling": wrong}, schema)


def test_a_configuration_with_several_samplers_survives_being_written() -> None:
    import yaml

    config = parse_config({"sampling": SEVERAL})
    assert parse_config(yaml.safe_load(default_yaml(config))) == config


# --- planning -----------------------------------------------------------------------------------------------


def test_time_and_threads_follow_all_samplers() -> None:
    alone, more = parse_config({}), parse_config({"sampling": {"more_samplers": [{"kind": "rattle"}]}})
    assert work.exploring_minutes(more) == work.exploring_minutes(alone)
    many = parse_config({"sampling": {"more_samplers": [{"n_steps": 50_000, "n_walkers": 50, "n_jobs": 2}]}})
    assert work.exploring_minutes(many) > 10 * work.exploring_minutes(alone)
    assert work.scoring_minutes(many) > work.scoring_minutes(alone)
    assert (threads_of("score_candidates", alone), threads_of("score_candidates", many)) == (1, 2)
    small = parse_config({"sampling": {"sampler": {"kind": "rattle", "n_structures": 10}}})
    assert threads_of("explore_structures", small) == 1


def test_check_says_what_explores_and_that_ammonia_has_nothing_to_turn() -> None:
    several = parse_config({"sampling": SEVERAL, "labelling": {"labeller": {"kind": "teacher"}}})
    assert f"exploring: {several.sampling.words}; jobs: 6" in forecast(several)
    with pytest.raises(DataError, match="'dihedral_scan' has nothing to turn"):
        check_start(several)
    check_start(parse_config({"labelling": {"labeller": {"kind": "teacher"}}}))


# --- reruns -------------------------------------------------------------------------------------------------


def test_a_campaign_of_one_sampler_records_what_it_always_recorded() -> None:
    # As `sampling: section("sampling")` gave it before there could be more samplers; order counts.
    assert json.dumps(exploring_settings(parse_config({}), 0)) == json.dumps(
        {
            "sampler": {
                "kind": "langevin",
                "temperatures_K": [300.0, 600.0, 1200.0],
                "n_walkers": 12,
                "n_jobs": 1,
                "timestep_fs": 0.5,
                "friction_per_fs": 0.01,
                "n_steps": 1000,
                "save_every_steps": 20,
                "stop_uncertainty_ev_per_angstrom": 1.0,
            },
            "sanity": {
                "min_distance_factor": 0.6,
                "max_bond_factor": 1.6,
                "max_fragments": 1,
                "max_energy_above_min_ev_per_atom": 1.0,
                "max_force_ev_per_angstrom": 30.0,
            },
        }
    )


def test_jobs_rerun_for_the_settings_of_their_own_sampler() -> None:
    before = parse_config({"sampling": SEVERAL})
    changed = {**SEVERAL, "more_samplers": [{"kind": "rattle", "n_structures": 31}, *SEVERAL["more_samplers"][1:]]}
    after = parse_config({"sampling": changed})
    differ = [exploring_settings(before, job) != exploring_settings(after, job) for job in range(6)]
    assert differ == [False, False, True, False, False, False]
    alone = parse_config({"sampling": {"sampler": SEVERAL["sampler"]}})
    assert exploring_settings(alone, 1) == exploring_settings(before, 1)
    wider = parse_config({"sampling": {**SEVERAL, "sanity": {"max_fragments": 2}}})
    assert all(exploring_settings(before, job) != exploring_settings(wider, job) for job in range(6))


def test_the_rule_gives_a_job_its_own_sampler_and_the_pool_is_of_all_jobs() -> None:
    assert "sampling=sampler_settings," in (RULES / "explore.smk").read_text()
    common = (RULES / "common.smk").read_text()
    assert "exploring_settings(CONFIG, int(wildcards.job))" in common
    assert "range(CONFIG.sampling.n_jobs)" in common


def test_more_samplers_are_reported_only_when_there_are_some() -> None:
    assert "more_samplers" not in reported_settings(parse_config({}))["sampling"]
    assert len(reported_settings(parse_config({"sampling": SEVERAL}))["sampling"]["more_samplers"]) == 3


# --- plug-ins -----------------------------------------------------------------------------------------------


class Shifting:
    """A sampler of another package: starts moved along x."""

    name = "shifting"

    def __init__(self, config: PluginSamplerConfig, sanity: object) -> None:
        self.by = float(config.settings["by_angstrom"])

    def sample(self, predictor: object, labelled: Structures, *, seed: int, iteration: int, job: int = 0) -> Sampled:
        """Move one start."""
        from dataclasses import replace

        one = replace(labelled[:1], columns={}, positions=labelled[0].positions + self.by)
        return Sampled(one.with_columns(origin__sampler="shifting"), {"completed": 1}, 0, 1)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("shifting_package")
    module.Shifting = Shifting  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shifting_package", module)
    point = EntryPoint("shifting", "shifting_package:Shifting", "dubito.samplers")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == "dubito.samplers" else [])


@pytest.mark.usefixtures("plugin")
def test_a_sampler_of_another_package_gets_its_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dubito.data.store import read_structures, write_structures
    from dubito.uncertainty import registry

    monkeypatch.setattr(registry, "load_method", lambda *_, **__: ToyPredictor())
    config = parse_config(
        {"sampling": {"more_samplers": [{"kind": "shifting", "settings": {"by_angstrom": 2}, "n_candidates": 7}]}}
    )
    theirs = config.sampling.samplers[1]
    assert (theirs.kind, theirs.words, theirs.candidates_per_job) == ("shifting", "shifting", 7)
    # What the job of the workflow is given, and back.
    given = convert(exploring_settings(config, 1), type(config.sampling))
    assert make_sampler(given).name == "shifting"
    labelled = toy_labels(rattled(3, molecules="ammonia"))
    write_structures(tmp_path / "d.h5", labelled)
    line = explore_structures.run(
        ensemble=tmp_path / "e",
        uncertainty=tmp_path / "u",
        method="ensemble",
        dataset=tmp_path / "d.h5",
        output=tmp_path / "p.h5",
        sampling=given,
        seed=1,
        iteration=1,
        job=1,
        threads=1,
    )
    assert line.startswith("1 candidates from 1 walkers")
    found = read_structures(tmp_path / "p.h5")
    assert found.positions[0, 0] == pytest.approx(labelled.positions[0, 0] + 2)


@pytest.mark.usefixtures("plugin")
def test_the_names_of_other_packages_are_offered_and_their_keys_kept_apart() -> None:
    with pytest.raises(ConfigError, match=r"'shiftung' is not a known sampler\. Did you mean 'shifting'"):
        sampling({"sampler": {"kind": "shiftung"}})
    with pytest.raises(ConfigError, match=r"sampler.by_angstrom: is not a known key\..*settings\.$"):
        sampling({"sampler": {"kind": "shifting", "by_angstrom": 2}})
