"""What a campaign folder lacks: its ledger, Snakemake's records, damaged files that nothing needs, an end."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from ledgered import DATASET, FOLDER, LEDGER, METRICS, MODEL, START, make, small_campaign

from dubito.config import Config, config_hash, parse_config
from dubito.config.generate import default_yaml
from dubito.workflow.lacking import (
    heed_changed_settings,
    tell_what_stays_away,
    warn_of_lost_ledger,
    why_unfinished,
)
from dubito.workflow.repair import repair_campaign
from dubito.workflow.schema import claim_schema

DECISION = FOLDER / "iter_000" / "decision.json"


@pytest.fixture(autouse=True)
def began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_campaign()
    for name in ("selection.json", "decision.json"):
        (FOLDER / "iter_000" / name).write_text("{}")


def settings(**sections: dict[str, object]) -> Config:
    return parse_config({**sections, "campaign": {"name": "small", **sections.get("campaign", {})}})


def made_with(config: Config) -> None:
    """Let some jobs of this configuration have made files, as in a copy that Snakemake knows nothing of."""
    frozen = FOLDER / "config" / f"{config_hash(config)}.yaml"
    frozen.parent.mkdir(exist_ok=True)
    frozen.write_text(default_yaml(config))
    for path, stage in ((DATASET, "build_dataset"), (MODEL, "train_ensemble"), (DECISION, "decide")):
        make(path, [START], stage=stage, config_hash=config_hash(config))


def test_a_lost_ledger_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    claim_schema("small")
    assert not warn_of_lost_ledger("small")
    LEDGER.unlink()
    assert warn_of_lost_ledger("small")
    assert f"{LEDGER}, which says what made each file, is missing" in capsys.readouterr().err


def test_a_folder_of_before_the_ledger_has_lost_none() -> None:
    LEDGER.unlink()
    assert not warn_of_lost_ledger("small")
    claim_schema("small")
    assert not warn_of_lost_ledger("small"), "it said so after the upgrade"


def test_a_decision_of_other_settings_is_made_anew_in_a_copy(capsys: pytest.CaptureFixture[str]) -> None:
    made_with(settings(campaign={"max_iterations": 2}))
    assert heed_changed_settings(settings(campaign={"max_iterations": 2})) == {}
    assert DECISION.exists()
    assert heed_changed_settings(settings(campaign={"max_iterations": 3})) == {"decide": {"campaign.max_iterations"}}
    assert not DECISION.exists()
    assert capsys.readouterr().err == ""


def test_costly_results_of_other_settings_are_kept_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    made_with(settings())
    now = settings(model={"n_layers": 1}, training={"members_per_job": 2}, resources={"device": "cpu"})
    assert heed_changed_settings(now) == {"train_ensemble": {"model.n_layers"}}
    assert MODEL.exists()
    assert "`--forcerun train_ensemble`" in capsys.readouterr().err


def test_what_snakemake_has_a_record_of_is_left_to_it() -> None:
    made_with(settings())
    record = Path(".snakemake", "metadata", base64.urlsafe_b64encode(str(MODEL).encode()).decode())
    record.parent.mkdir(parents=True)
    record.touch()
    assert heed_changed_settings(settings(model={"n_layers": 1})) == {}


def test_a_damaged_file_that_was_not_made_again_is_named_with_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    DATASET.write_text("cut")
    repair_campaign("small")
    capsys.readouterr()
    assert tell_what_stays_away("small", ["--configfile", "a b.yaml"]) == [str(DATASET)]
    assert f"`snakemake {DATASET} --configfile 'a b.yaml'`" in capsys.readouterr().err
    make(DATASET, [START])
    assert tell_what_stays_away("small", []) == []
    METRICS.unlink()
    assert tell_what_stays_away("small", []) == [], "a file that the user deleted"


def test_a_campaign_without_a_last_decision_is_not_at_its_end() -> None:
    DECISION.write_text(json.dumps({"stop": False}))
    assert "iter_001/decision.json is missing" in why_unfinished("small")
    DECISION.write_text(json.dumps({"stop": True}))
    assert why_unfinished("small") == ""
    DECISION.unlink()
    assert "iter_000/decision.json is missing" in why_unfinished("small")
