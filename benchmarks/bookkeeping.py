"""What the ledger costs: hashing, reading it, and the look at all files at each start.

    python benchmarks/bookkeeping.py          also the short form; seconds

A synthetic campaign of 5,000 finished jobs with one file of 2 kB each. CPU seconds, medians of five; `redated` reads
every file, because all have another time than the ledger says. Writes benchmarks/results/bookkeeping.json and prints it
as one line. (`--short` is the same: it takes seconds.)
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _publish import publish

from dubito.core.hashing import hash_file
from dubito.core.ledger import NAME, SHA256, read_ledger, state_of
from dubito.workflow.repair import repair_campaign

JOBS = 5000
REPEATS = 5
LARGE = 100_000_000


def cpu_s(action: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """Return the median CPU time of an action, s; ``before`` is done first and not counted."""
    found = []
    for _ in range(REPEATS):
        before()
        start = time.process_time()
        action()
        found.append(time.process_time() - start)
    return round(statistics.median(found), 3)


def make_campaign() -> list[Path]:
    """Write the files and their ledger in the working folder, an hour ago; return the files."""
    folder = Path("results", "synthetic")
    stamp = time.time() - 3600
    files, lines = [], []
    for k in range(JOBS):
        path = folder / f"iter_{k // 100:03d}" / "labels" / f"shard_{k % 100:03d}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(k.to_bytes(4, "little") * 512)
        os.utime(path, (stamp + k / 100, stamp + k / 100))
        state = state_of(path)
        about = {"sha256": hash_file(path, SHA256), "size": state.size, "mtime_ns": state.mtime_ns}
        lines.append(json.dumps(entry(k, str(path), about, stamp)) + "\n")
        files.append(path)
    (folder / NAME).write_text("".join(lines))
    return files


def entry(k: int, path: str, about: dict[str, Any], stamp: float) -> dict[str, Any]:
    """Return the line of one job."""
    return {
        "stage": "label_structures", "iteration": k // 100, "part": f"{k % 100:03d}", "time": stamp + k / 100,
        "outputs": {path: about}, "inputs": {}, "config_hash": "0" * 16, "params_hash": "0" * 16, "stage_version": 2,
        "versions": {"python": "3.11", "dubito": "0.1.0"}, "code": "0.1.0", "host": "node", "slurm_job": str(k),
        "seed": 7, "wall_s": 1.0, "cpu_s": 1.0,
    }  # fmt: skip


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.parse_args()
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        try:
            Path("large").write_bytes(os.urandom(LARGE))
            hashing = cpu_s(lambda: hash_file(Path("large"), SHA256))
            files = make_campaign()
            ledger = Path("results", "synthetic", NAME)

            def redate() -> None:
                moment = time.time() - 60
                for path in files:
                    os.utime(path, (moment, moment))

            with contextlib.redirect_stderr(io.StringIO()):
                content = {
                    "jobs": JOBS,
                    "ledger_bytes": ledger.stat().st_size,
                    "hash_100_mb_cpu_s": hashing,
                    "read_ledger_cpu_s": cpu_s(lambda: read_ledger(ledger)),
                    "start_untouched_cpu_s": cpu_s(lambda: repair_campaign("synthetic")),
                    "start_redated_cpu_s": cpu_s(lambda: repair_campaign("synthetic"), before=redate),
                }
        finally:
            os.chdir(here)
    publish("bookkeeping", content)


if __name__ == "__main__":
    main()
