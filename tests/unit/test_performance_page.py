"""The numbers on the performance page are those of the benchmarks' JSON."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tables"] = module
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_up_to_date(tables: ModuleType) -> None:
    """When this fails: python benchmarks/tables.py --write"""
    for page in tables.PAGES:
        assert tables.fill(page.read_text()) == page.read_text(), page.name


def test_every_table_is_on_a_page_and_filled(tables: ModuleType) -> None:
    text = "".join(page.read_text() for page in tables.PAGES)
    for name, make in tables.TABLES.items():
        assert f"<!-- table: {name} -->\n{make()}\n<!-- end -->" in text, name
        assert make().count("\n") >= 2, f"{name} has no rows: its benchmark has not been run"
