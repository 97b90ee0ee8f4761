"""Selecting asks for the memory that the distances of its pool take."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dubito.data.store import write_structures
from dubito.data.structures import Structures
from dubito.workflow.work import SELECTING_MB, selecting_mb


def pool(path: Path, n: int, n_atoms: int) -> Path:
    x = np.random.default_rng(0).uniform(0, 20, size=(n_atoms, 3))
    write_structures(path, Structures.build([np.ones(n_atoms, int)] * n, [x + 1e-3 * i for i in range(n)]))
    return path


def test_it_grows_with_candidates_and_pairs(tmp_path: Path) -> None:
    small = selecting_mb(pool(tmp_path / "small.h5", 20, 4))
    assert small == SELECTING_MB + 1
    # 4095 pairs of 8 bytes, of 2000 structures, three times.
    large = selecting_mb(pool(tmp_path / "large.h5", 2000, 91))
    assert large == SELECTING_MB + 197
    # No more than 4096 distances are kept.
    assert selecting_mb(pool(tmp_path / "huge.h5", 200, 400)) == SELECTING_MB + 20


def test_a_pool_that_is_not_there_yet_or_damaged(tmp_path: Path) -> None:
    assert selecting_mb(tmp_path / "none.h5") == SELECTING_MB
    (tmp_path / "broken.h5").write_bytes(b"no HDF5")
    assert selecting_mb(tmp_path / "broken.h5") == SELECTING_MB
