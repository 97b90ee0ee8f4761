"""How every benchmark ends: its JSON in benchmarks/results, and the same on one line."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from dubito.core.provenance import versions


def publish(name: str, content: dict[str, Any]) -> None:
    """Add machine, versions and date to the content; write and print it."""
    out = {
        "benchmark": name,
        **content,
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
    }
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(out, indent=1) + "\n")
    sys.stdout.write(json.dumps(out) + "\n")
