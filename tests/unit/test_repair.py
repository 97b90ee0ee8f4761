"""Damaged and wrongly dated files of a campaign, and folders of other versions."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import time
from pathlib import Path

import pytest
from ledgered import (
    DATASET,
    FOLDER,
    LEDGER,
    METRICS,
    MODEL,
    START,
    USERS_FILE,
    about,
    date,
    lines,
    make,
    seconds,
    small_campaign,
)

from dubito.cli.show.accepting import accept_change
from dubito.core.errors import DataError, EnvironmentFault
from dubito.core.ledger import append
from dubito.workflow.repair import repair_campaign
from dubito.workflow.schema import SCHEMA_VERSION, claim_schema
from dubito.workflow.versions import STAGE_VERSIONS

CHAIN = (START, DATASET, MODEL, METRICS)


@pytest.fixture(autouse=True)
def began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.chdir(tmp_path)
    return small_campaign()


def in_order() -> bool:
    """Say whether Snakemake would leave all files alone: none older than what it was made from."""
    return all(a.stat().st_mtime <= b.stat().st_mtime for a, b in itertools.pairwise(CHAIN))


def test_a_sound_campaign_is_only_looked_at(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dubito.workflow.repair.hash_file", lambda *_: pytest.fail("a file was read"))
    before = lines()
    found = repair_campaign("small")
    assert (found.damaged, found.dated, lines()) == ([], 0, before)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("harm", "word"),
    [
        (lambda text: text[: len(text) // 2], "bytes"),
        (lambda text: text[:-1] + "?", "other content of the same size"),
        (lambda _: "", "0 of"),
    ],
)
def test_a_damaged_file_is_moved_aside_and_named(harm, word, capsys: pytest.CaptureFixture[str]) -> None:
    harmed = harm(DATASET.read_text())
    DATASET.write_text(harmed)
    repair_campaign("small")
    assert not DATASET.exists()
    assert DATASET.with_name("dataset.h5.damaged").read_text() == harmed
    said = capsys.readouterr().err
    assert str(DATASET) in said
    assert word in said
    assert f"dubito show --accept {DATASET}" in said
    assert all(path.exists() for path in (START, MODEL, METRICS))


def test_an_earlier_damaged_file_is_kept_too() -> None:
    aside = DATASET.with_name("dataset.h5.damaged")
    aside.write_text("the first")
    DATASET.write_text("the second")
    repair_campaign("small")
    assert aside.read_text() == "the first"
    assert DATASET.with_name("dataset.h5.damaged.2").read_text() == "the second"


def test_copied_files_get_their_times_back(began: float, capsys: pytest.CaptureFixture[str]) -> None:
    for k, path in enumerate(reversed(CHAIN)):
        date(path, began + 1000 + k)  # copied in another order than they were made in
    assert not in_order()
    found = repair_campaign("small")
    assert in_order()
    assert seconds(START) == pytest.approx(began)
    assert found.wrong_order == 3
    assert "nothing is made again" in capsys.readouterr().err
    again = repair_campaign("small")
    assert (again.hashed, again.dated, again.wrong_order) == (0, 0, 0)


def test_what_snakemake_touched_is_no_news(began: float, capsys: pytest.CaptureFixture[str]) -> None:
    for k, path in enumerate(CHAIN):
        date(path, began + 100 * k + 1)
    repair_campaign("small")
    assert in_order()
    assert capsys.readouterr().err == ""


def test_times_of_the_future_are_taken_back() -> None:
    date(DATASET, time.time() + 1e6)
    repair_campaign("small")
    assert in_order()
    assert seconds(DATASET) < time.time()


def test_a_job_whose_clock_was_ahead_does_not_spoil_the_order(capsys: pytest.CaptureFixture[str]) -> None:
    make(MODEL, [DATASET], "anew", when=time.time() + 5e5)
    make(METRICS, [MODEL, DATASET], "anew too")
    assert seconds(METRICS) < seconds(MODEL)
    repair_campaign("small")
    assert seconds(MODEL) <= seconds(METRICS) <= time.time()
    assert "another clock" in capsys.readouterr().err
    assert repair_campaign("small").hashed == 0


def test_a_users_file_of_the_same_content_reruns_nothing_and_of_another_does() -> None:
    date(USERS_FILE, time.time())
    repair_campaign("small")
    assert seconds(USERS_FILE) <= seconds(START)
    assert in_order()
    USERS_FILE.write_text("1\n\nHe 0 0 0\n")
    date(USERS_FILE, time.time() + 1)
    repair_campaign("small")
    assert seconds(USERS_FILE) > seconds(START)


def test_what_was_made_from_older_content_is_still_out_of_date(began: float) -> None:
    """The dataset was made again, the model not yet: a kill in between, and then a copy without times."""
    make(DATASET, [START], "other content", when=began + 5)  # a clock that is behind, too
    for path in reversed(CHAIN):
        date(path, began + 500)
    repair_campaign("small")
    assert seconds(DATASET) > seconds(MODEL)


def test_a_file_under_way_is_left_to_snakemake() -> None:
    mark = Path(".snakemake/incomplete", base64.urlsafe_b64encode(str(DATASET).encode()).decode())
    mark.parent.mkdir(parents=True)
    mark.write_text("{}")
    DATASET.write_text("half")
    assert repair_campaign("small").damaged == []
    assert DATASET.read_text() == "half"
    mark.unlink()
    assert [path for path, _, _ in repair_campaign("small").damaged] == [DATASET]


def test_the_mark_of_a_long_name_is_found_where_snakemake_puts_it(tmp_path: Path) -> None:
    from snakemake.persistence.file import FilePersistence

    from dubito.workflow.repair import is_under_way

    name = f"results/small/iter_000/{'long_' * 45}.h5"
    subject = tmp_path / ".snakemake" / "incomplete"
    subject.mkdir(parents=True)
    class_ = object.__new__(FilePersistence)
    class_._max_len = None
    mark = Path(class_._record_path(str(subject), name))
    mark.parent.mkdir(parents=True, exist_ok=True)
    assert not is_under_way(name)
    mark.touch()
    assert is_under_way(name)


def test_reports_that_are_refreshed_on_purpose_are_left_alone() -> None:
    page = FOLDER / "report" / "index.html"
    make(page, [METRICS])
    page.write_text("the interim page")
    date(page, 1)
    assert repair_campaign("small").damaged == []
    assert seconds(page) == 1


def test_missing_files_are_left_to_snakemake() -> None:
    MODEL.unlink()
    assert repair_campaign("small").damaged == []
    assert in_order_without_model()


def in_order_without_model() -> bool:
    return seconds(DATASET) <= seconds(METRICS)


def test_a_change_on_purpose_is_kept_once_it_is_accepted() -> None:
    DATASET.write_text("better data")
    repair_campaign("small")
    aside = DATASET.with_name("dataset.h5.damaged")
    shutil.move(aside, DATASET)
    assert "accepted" in accept_change(DATASET)
    assert repair_campaign("small").damaged == []
    assert DATASET.read_text() == "better data"
    assert seconds(DATASET) > seconds(MODEL)  # what was made from the old one is made again
    with pytest.raises(DataError, match="no change to accept"):
        accept_change(DATASET)


def test_a_campaign_without_a_ledger_is_left_as_it_is() -> None:
    LEDGER.unlink()
    DATASET.write_text("?")
    assert repair_campaign("small").damaged == []
    assert not LEDGER.exists()


def test_a_wrong_line_in_the_ledger_stops_nothing() -> None:
    with LEDGER.open("a") as handle:
        handle.write('[1, 2]\nnot json\n{"stage": "x"}\n')
    append(LEDGER, {"stage": "y", "inputs": {}, "outputs": {}})
    assert repair_campaign("small").damaged == []


def test_the_same_content_made_again_reruns_nothing(began: float) -> None:
    make(DATASET, [START], DATASET.read_text(), when=began + 1000)
    assert about(DATASET)["sha256"]
    repair_campaign("small")
    assert in_order()


# --- versions of the folder ---------------------------------------------------------------------

SCHEMA = FOLDER / "state" / "schema.json"


def test_a_folder_of_before_is_brought_up_to_date() -> None:
    claim_schema("small")
    found = json.loads(SCHEMA.read_text())
    assert found["schema_version"] == SCHEMA_VERSION
    assert found["stage_versions"] == STAGE_VERSIONS
    claim_schema("small")


def test_a_new_folder_gets_its_version() -> None:
    claim_schema("new")
    assert json.loads(Path("results/new/state/schema.json").read_text())["schema_version"] == SCHEMA_VERSION


def write_schema(**changes: object) -> str:
    claim_schema("small")
    SCHEMA.write_text(json.dumps({**json.loads(SCHEMA.read_text()), "dubito": "99.1", **changes}))
    return SCHEMA.read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": SCHEMA_VERSION + 1}, "it has the layout"),
        ({"stage_versions": {**STAGE_VERSIONS, "evaluate": 99}}, "newer versions of evaluate"),
    ],
)
def test_a_folder_of_a_newer_dubito_is_refused(changes: dict[str, object], words: str) -> None:
    before = write_schema(**changes)
    with pytest.raises(EnvironmentFault, match=rf"made by dubito 99\.1.*{words}.*make env"):
        claim_schema("small")
    assert SCHEMA.read_text() == before


def test_newer_stages_than_the_folders_are_welcome() -> None:
    write_schema(stage_versions={**STAGE_VERSIONS, "evaluate": 0, "a_stage_of_before": 7})
    claim_schema("small")
    assert json.loads(SCHEMA.read_text())["stage_versions"] == STAGE_VERSIONS


def test_a_folder_that_is_too_old_is_refused() -> None:
    write_schema(schema_version=0, dubito="0.0.1")
    with pytest.raises(EnvironmentFault, match=r"older than any.*0\.0\.1.*another campaign\.name"):
        claim_schema("small")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema_version": "two"}'])
def test_a_damaged_version_file_says_what_to_type(text: str) -> None:
    SCHEMA.parent.mkdir(parents=True)
    SCHEMA.write_text(text)
    with pytest.raises(EnvironmentFault, match=rf"rm {SCHEMA}"):
        claim_schema("small")
