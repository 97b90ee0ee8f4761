"""A disk that is really full: every kind of file says so in one paragraph, and what was there stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dubito.core.errors import StorageError
from dubito.core.files import write_json
from dubito.data.store import write_structures
from dubito.model.artifact import save_potential
from dubito.model.potential import Potential
from dubito.testing.structures import rattled, toy_labels
from dubito.training.checkpoint import save_checkpoint


def potential() -> Potential:
    from dubito.config.model import ModelConfig
    from dubito.data.statistics import fit_statistics

    made = Potential(ModelConfig(n_features=48), fit_statistics(toy_labels(rattled(4)), 4.0), 4)
    made.initialise(0, [0, 1, 2, 3])
    return made


WRITERS: dict[str, Callable[[Path], None]] = {
    "json": lambda path: write_json(path, ["x" * 1000] * 1000),
    "hdf5": lambda path: write_structures(path, toy_labels(rattled(4000))),
    "weights": lambda path: save_potential(path, potential(), provenance={}),
    "checkpoint": lambda path: save_checkpoint(path.parent, "f", {"rows": torch.from_numpy(np.zeros(10**6))}),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_told_and_nothing_is_lost(small_disk: Path, kind: str) -> None:
    path = small_disk / ("checkpoint.pt" if kind == "checkpoint" else "file")
    path.write_text("the old content")
    with pytest.raises(StorageError, match="disk is full"):
        WRITERS[kind](path)
    assert path.read_text() == "the old content"
    assert list(small_disk.iterdir()) == [path]
