"""What all tests share: the order of tests, no deadlines for examples, a small disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says nothing on a machine shared by several workers.
settings.register_profile("dubito", deadline=None)
settings.load_profile("dubito")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole campaigns first, so that with several workers none is left alone with them."""
    items.sort(key=lambda item: "tests/workflow" not in str(item.path))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    where = tmp_path / "disk"
    where.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(where)], check=False)
    if mounted.returncode:
        pytest.skip("file systems can't be mounted here")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)
