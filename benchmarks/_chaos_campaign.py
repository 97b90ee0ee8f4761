"""A campaign that is to be interrupted: started, hit, started again, and counted at the end."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from _campaign import ROOT

from dubito.core.files import read_json
from dubito.core.locks import is_alive
from dubito.core.progress import read
from dubito.data.store import read_structures

LABELLED = re.compile(r"structure (\w+) labelled in ")
Prefix = Callable[[list[str]], list[str]]


def settings(*, seconds_per_label: float, max_epochs: int, max_iterations: int) -> dict[str, Any]:
    """Return the configuration: the rehearsal, slow enough to be hit anywhere."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "config" / "examples" / "teacher.yaml").read_text())
    raw["campaign"] |= {"name": "chaos", "max_iterations": max_iterations}
    raw["training"] |= {"max_epochs": max_epochs, "early_stopping_epochs": max_epochs}
    raw["labelling"]["labeller"]["seconds_per_label"] = seconds_per_label
    return raw


@dataclass
class Campaign:
    """A campaign in a folder, its driver, and what was seen of it.

    Attributes
    ----------
    prefix : puts a command into the cluster's world; as it is on one machine
    arguments : how snakemake is told where to run
    entries : every state of a label's file that was seen, by its name: a second one was paid for twice
    """

    folder: Path
    raw: dict[str, Any]
    prefix: Prefix = lambda command: command
    arguments: Sequence[str] = ("--cores", "2")
    environment: dict[str, str] = field(default_factory=dict)
    driver: subprocess.Popen[bytes] | None = None
    starts: int = 0
    entries: dict[str, set[tuple[int, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "campaign.yaml").write_text(yaml.safe_dump(self.raw))

    @property
    def results(self) -> Path:
        return self.folder / "results" / str(self.raw["campaign"]["name"])

    # --- the driver -----------------------------------------------------------------------------

    def start(self) -> None:
        """Start the driver as a user does, in a process group of its own."""
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        command += ["--configfile", "campaign.yaml", *self.arguments]
        with (self.folder / "driver.log").open("ab") as log:
            log.write(f"\n=== start {self.starts}\n".encode())
            self.driver = subprocess.Popen(
                self.prefix(command), cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1", **self.environment},
            )  # fmt: skip
        self.starts += 1

    @property
    def is_running(self) -> bool:
        return self.driver is not None and self.driver.poll() is None

    def wait(self, seconds: float) -> int | None:
        """Wait for the driver; return its exit code, None while it runs on."""
        if self.driver is None:
            raise RuntimeError("the driver was not started")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look()
            if self.driver.poll() is not None:
                return self.driver.returncode
            time.sleep(0.1)
        return self.driver.poll()

    def end_driver(self, how: signal.Signals, *, with_jobs: bool) -> None:
        """Send a signal to the driver, or to it and all its local jobs."""
        if self.driver is None or self.driver.poll() is not None:
            return
        (os.killpg if with_jobs else os.kill)(self.driver.pid, how)
        if how == signal.SIGKILL:
            self.driver.wait()

    def running_jobs(self) -> list[dict[str, Any]]:
        """Return the started events of jobs that are at work now (their processes are of this machine)."""
        last: dict[tuple[Any, ...], dict[str, Any]] = {}
        for event in read(self.results / "progress.jsonl"):
            if event["event"] in ("started", "finished", "failed", "interrupted", "died"):
                last[event["stage"], event["iteration"], event["part"]] = event
        return [e for e in last.values() if e["event"] == "started" and is_alive(e)]

    # --- what is counted ------------------------------------------------------------------------

    def look(self) -> None:
        """Remember the state of every label in the cache."""
        for path in self.folder.glob("results/label_cache/*/*.json"):
            if path.name not in ("settings.json", "gradient_check.json"):
                try:
                    stat = path.stat()
                except FileNotFoundError:
                    continue
                self.entries.setdefault(path.name, set()).add((stat.st_ino, stat.st_size))

    def labels_computed_twice(self) -> int:
        """Return how many labels were paid for again, by the logs of the jobs and by the files themselves."""
        paid: Counter[str] = Counter()
        for log in self.results.glob("logs/**/*.log"):
            paid.update(LABELLED.findall(log.read_text(errors="replace")))
        by_log = sum(count - 1 for count in paid.values())
        by_file = sum(len(states) - 1 for states in self.entries.values())
        return max(by_log, by_file)

    def epochs_repeated(self) -> list[int]:
        """Return how many epochs each resumed training had to repeat."""
        events = read(self.results / "progress.jsonl")
        return [max(0, e["reached"] - e["epoch"]) for e in events if e["event"] == "resumed"]

    def outcome(self) -> dict[str, Any]:
        """Return what must not depend on interruptions: batches byte by byte, the datasets' content, the weights."""
        content: dict[str, Any] = {}
        for path in sorted(self.results.glob("iter_*/selection.json")):
            content[f"{path.parent.name}/selection"] = hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(self.results.glob("iter_*/dataset.h5")):
            content[f"{path.parent.name}/dataset"] = _labels_of(path)
        for path in sorted(self.results.glob("iter_*/decision.json")):
            decision = read_json(path)
            content[f"{path.parent.name}/decision"] = [decision["state"], decision["reason"]]
        return content

    @property
    def finished(self) -> bool:
        """Whether the final report is there and says that the campaign has ended."""
        summary = self.results / "summary.json"
        return summary.exists() and read_json(summary)["state"] == "max_iterations"


def _labels_of(path: Path) -> str:
    """Hash structures, split and labels of a dataset; times and hosts differ between runs."""
    data = read_structures(path)
    digest = hashlib.sha256("".join([*data.ids, *data.text("origin/split"), *data.text("origin/reason")]).encode())
    digest.update(data.energy.astype("<f8").tobytes())
    digest.update(data.forces.astype("<f8").tobytes())
    return digest.hexdigest()
