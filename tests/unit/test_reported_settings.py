"""A release that adds settings must not rewrite the reports of campaigns that use none of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dubito.config import parse_config
from dubito.workflow.recorded import reported_settings

# What `reported_settings` gave for the default configuration before planning, scoring and further samplers came.
BEFORE = Path(__file__).with_name("golden") / "reported_settings.json"


def test_the_default_configuration_is_recorded_as_before():
    """Order counts too: Snakemake compares the text of what it recorded."""
    assert json.dumps(reported_settings(parse_config({}))) == json.dumps(json.loads(BEFORE.read_text()))


@pytest.mark.parametrize(
    "changed",
    [
        {"planning": {"worth_percent_per_100_labels": 2.0}},
        {"scoring": {"adaptive": True}},
        {"selection": {"min_control_labels": 40}},
        {"sampling": {"more_samplers": [{"kind": "rattle"}]}},
    ],
)
def test_a_changed_new_setting_is_recorded(changed):
    (section, keys), before = next(iter(changed.items())), json.loads(BEFORE.read_text())
    recorded = reported_settings(parse_config(changed))
    (name,) = keys
    assert name in recorded[section]
    del recorded[section][name]
    assert {key: value for key, value in recorded.items() if value} == before


def test_no_new_setting_is_hidden_by_its_default_alone():
    """A key of before is recorded whatever its value, also at its default."""
    before = json.loads(BEFORE.read_text())
    assert before["selection"]["control_fraction"] == parse_config({}).selection.control_fraction
    other = reported_settings(parse_config({"selection": {"control_fraction": 0.25}}))
    assert other["selection"]["control_fraction"] == 0.25
