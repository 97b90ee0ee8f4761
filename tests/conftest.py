"""Order of the tests: whole campaigns first, so that with several workers none is left alone with them."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "tests/workflow" not in str(item.path))
