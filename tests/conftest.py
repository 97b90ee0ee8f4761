"""Whole campaigns first, so that with several workers none is left alone with them; no deadlines for examples."""

from __future__ import annotations

import pytest
from hypothesis import settings

# How long an example takes says nothing on a machine shared by several workers.
settings.register_profile("dubito", deadline=None)
settings.load_profile("dubito")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "tests/workflow" not in str(item.path))
