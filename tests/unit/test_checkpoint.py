"""A checkpoint that is not what was written is none: torch itself reads flipped bits without complaint."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from dubito.training.checkpoint import NAME, has_checkpoint, load_checkpoint, save_checkpoint

STATE = {"epoch": 7, "rows": torch.arange(3000.0).reshape(2, 1500), "adam": {"step": [1, 2]}, "history": [0.5, 0.25]}


def write_old(folder: Path) -> None:
    """Write one as dubito did before it knew of hashes."""
    torch.save({"fingerprint": "f", **STATE}, folder / NAME)


def write_new(folder: Path) -> None:
    save_checkpoint(folder, "f", STATE)


@pytest.fixture(params=[write_old, write_new], ids=["old", "new"])
def content(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    request.param(tmp_path)
    return (tmp_path / NAME).read_bytes()


def is_as_written(folder: Path) -> bool:
    state = load_checkpoint(folder, "f")
    if state is None:
        return False
    rows = state.pop("rows")
    told = {"fingerprint": "f", **{key: value for key, value in STATE.items() if key != "rows"}}
    assert (state, torch.equal(rows, STATE["rows"])) == (told, True)
    return True


def test_what_was_written_is_read(content: bytes, tmp_path: Path) -> None:
    assert is_as_written(tmp_path)
    assert has_checkpoint(tmp_path, "f")
    assert not has_checkpoint(tmp_path, "g")


@pytest.mark.parametrize("harm", ["bit", "block", "cut", "longer"])
def test_a_damaged_one_is_none(content: bytes, tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(harm)  # noqa: S311 - no secret
    refused = 0
    for _ in range(60):
        spoiled, at = bytearray(content), rng.randrange(len(content))
        if harm == "bit":
            spoiled[at] ^= 1 << rng.randrange(8)
        elif harm == "block":
            spoiled[at : at + 512] = bytes(len(spoiled[at : at + 512]))
        elif harm == "cut":
            del spoiled[at:]
        else:
            spoiled[at:at] = rng.randbytes(3)
        (tmp_path / NAME).write_bytes(spoiled)
        # What torch pads its file with may be anything; a state that is read is the one that was written.
        refused += not is_as_written(tmp_path)
    assert refused >= 50
    assert "training starts anew" in caplog.text


@pytest.mark.parametrize("value", [[1, 2], 3, torch.zeros(2)])
def test_what_is_no_state_is_none(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / NAME)
    assert load_checkpoint(tmp_path, "f") is None
    assert not has_checkpoint(tmp_path, "f")
