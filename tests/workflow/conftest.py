"""Campaigns for the tests of the workflow."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from campaigns import Campaign, example


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Callable[..., Campaign]]:
    """Make campaigns; whatever of them still runs at the end is ended."""
    made: list[Campaign] = []

    def make(name: str = "teacher", folder: str = "campaign", **sections: dict[str, Any]) -> Campaign:
        made.append(Campaign(tmp_path / folder, example(name)))
        made[-1].write(**sections)
        return made[-1]

    yield make
    for one in made:
        for process in one.started:
            _end(process)
        for event in one.events(event="started"):
            _end_job(one, event)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, 9)
        process.wait()


def _end_job(campaign: Campaign, event: dict[str, Any]) -> None:
    """End a job that outlived its driver, if its process is still that job."""
    command = Path(f"/proc/{event['pid']}/cmdline")
    if command.exists() and str(campaign.folder) in command.read_text():
        os.kill(event["pid"], 9)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A finished rehearsal; tests look at it and leave it as it is."""
    done = Campaign(tmp_path_factory.mktemp("finished"), example("teacher"))
    (done.folder / "driver.log").write_text(done.run())
    return done
