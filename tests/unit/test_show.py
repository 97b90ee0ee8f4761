"""``dubito show FILE``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ledgered import DATASET, FOLDER, LEDGER, METRICS, MODEL, START, USERS_FILE, make, small_campaign
from typer.testing import CliRunner

from dubito.cli import app
from dubito.core import provenance
from dubito.core.errors import DataError
from dubito.data.store import write_structures
from dubito.labelling.base import Label
from dubito.labelling.cache import LabelCache
from dubito.testing.structures import rattled
from dubito.workflow.repair import repair_campaign


@pytest.fixture(autouse=True)
def _campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    small_campaign()
    config = FOLDER / "config" / "cafe.yaml"
    config.parent.mkdir()
    config.write_text("campaign: {name: small}\n")


def show(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["show", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_file_says_what_made_it() -> None:
    text = show(METRICS)
    for word in (
        "make_metrics, iteration 0, campaign 'small'",
        "node7, Slurm job 4711",
        "dubito 0.1.0+g123456789abc",
        "python 3.11",
        "configuration cafe in results/small/config/cafe.yaml",
        "seed 7",
        "1.5 s wall time, 2.5 s CPU time",
        "is what was written",
        f"{MODEL}  ",
        "as it was, by make_model",
    ):
        assert word in text
    assert str(START) not in text  # one step back, unless asked


def test_the_tree_leads_back_to_the_users_file() -> None:
    text = show("--tree", METRICS)
    assert [line.split()[1] for line in text.splitlines() if line.strip()[:2] in {"1 ", "2 ", "3 "}] == [
        str(DATASET),
        str(MODEL),
        str(START),
        str(USERS_FILE),
    ]
    assert "as it was, not made by a job" in text


def test_it_works_from_another_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = METRICS.absolute()
    monkeypatch.chdir(tmp_path)
    assert "as it was, by make_model" in show(file)


def test_changes_are_seen() -> None:
    MODEL.unlink()
    DATASET.write_text("changed")
    text = show(METRICS)
    assert "missing, by make_model" in text
    assert "changed since, by make_dataset" in text
    assert "itself    changed since: sha256 is " in show(DATASET)
    make(DATASET, [START], "changed")
    assert "made again since, by make_dataset" in show(METRICS)


def test_json_holds_the_same() -> None:
    found = json.loads(show("--json", METRICS))
    assert found["made_by"]["slurm_job"] == "4711"
    assert found["changed_since"] is False
    assert found["config_file"] == "results/small/config/cafe.yaml"
    states = {one["path"]: one["state"] for one in found["inputs"]}
    assert states == {
        str(MODEL): "as it was",
        str(DATASET): "as it was",
    }


def test_a_copy_is_known_by_its_content(tmp_path: Path) -> None:
    copy = shutil.copy(METRICS, tmp_path / "elsewhere.json")
    assert f"this is a copy of {METRICS}" in show(copy)


def test_a_file_moved_aside_is_explained() -> None:
    DATASET.write_text("cut")
    repair_campaign("small")
    assert "moved aside for that" in show(f"{DATASET}.damaged")


def test_a_copied_structures_file_tells_by_itself(tmp_path: Path) -> None:
    provenance.set_context(
        campaign="far",
        stage="build_dataset",
        iteration=3,
        part="",
        config_hash="beef",
        inputs={"results/a.h5": "0" * 64},
    )
    write_structures(tmp_path / "copy.h5", rattled(2))
    provenance.set_context()
    text = show(tmp_path / "copy.h5")
    assert "build_dataset, iteration 3, campaign 'far'" in text
    assert "configuration beef" in text
    assert "results/a.h5  000000000000  not here to compare" in text


def test_an_entry_of_the_label_cache(tmp_path: Path) -> None:
    provenance.set_context(campaign="small", stage="label_structures", iteration=1, part="002", inputs={})
    cache = LabelCache(tmp_path, {"method": "test"})
    cache.put("one", Label(energy=1.0, forces=np.zeros((2, 3)), method="PBE/def2-svp", code_version="pyscf 2"))
    provenance.set_context()
    text = show(cache.path("one"))
    assert "label_structures 002, iteration 1" in text
    assert "PBE/def2-svp" in text
    assert "is what was written" in text
    cache.path("one").write_text(cache.path("one").read_text().replace("1.0", "2.0"))
    assert "changed since" in show(cache.path("one"))


@pytest.mark.parametrize("name", ["notes.txt", "table.csv", "plain.json", "broken.h5", "broken.safetensors"])
def test_a_file_without_a_record_gets_one_clear_paragraph(name: str) -> None:
    Path(name).write_bytes(b"\x89HDF\r\n\x1a\nnothing" if name.endswith("h5") else b"{}")
    with pytest.raises(DataError, match=r"Nothing is known of the making of .*dubito data show") as error:
        show(name)
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_said() -> None:
    with pytest.raises(DataError, match="does not exist"):
        show("nothing.h5")
    with pytest.raises(DataError, match="is a folder"):
        show(FOLDER)


def test_accepting_needs_a_change() -> None:
    with pytest.raises(DataError, match="no change to accept"):
        show("--accept", DATASET)
    with pytest.raises(DataError, match="in no campaign's ledger"):
        show("--accept", USERS_FILE)
    DATASET.write_text("on purpose")
    assert "accepted as changed by hand" in show("--accept", DATASET)
    assert "changed by hand" in show(DATASET)
    assert LEDGER.read_text().count("changed by hand") == 1
