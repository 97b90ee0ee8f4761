"""The small files of a campaign whose costs follow a rule, so that what `dubito status` says has a closed form.

An iteration explores for ``EXPLORE_S`` (not the first), selects for ``SELECT_S``, labels in shards side by side with
``LABEL_S`` for each structure, trains for ``TRAIN_S + TRAIN_PER_LABEL_S`` times its labels, and decides. Each job has
one thread and is busy all the time; nothing is lost between jobs.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dubito.core.locks import process_start
from dubito.core.progress import record

EXPLORE_S, SELECT_S, LABEL_S, BUILD_S, TRAIN_S, TRAIN_PER_LABEL_S, FIT_S, DECIDE_S = 100, 10, 30, 5, 60, 2, 20, 5
START = 1_790_000_000.0


def train_s(labels: int) -> float:
    """Return what a training takes, s."""
    return TRAIN_S + TRAIN_PER_LABEL_S * labels


def iteration_s(labels: int, per_shard: int, *, first: bool = False) -> float:
    """Return the clock time of one iteration, s; ``labels`` are those it trains on."""
    before = SELECT_S + (0 if first else EXPLORE_S)
    return before + per_shard * LABEL_S + BUILD_S + train_s(labels) + FIT_S + DECIDE_S


def write_text(path: Path, content: str) -> None:
    """Write a file without waiting for the disk: a campaign has a thousand."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def write_json(path: Path, value: Any) -> None:
    """Write JSON the same way."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True))


def dead_pid() -> int:
    """Return the number of a process that has ended."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return gone.pid


@dataclass
class Planted:
    """Writes the files of one campaign; ``clock`` is the time that has come, seconds since 1970."""

    base: Path
    name: str = "planted"
    shards: int = 2
    per_shard: int = 5
    max_iterations: int = 5
    max_labels: int | None = None
    clock: float = START
    slurm: bool = False
    total: int = 0
    job: int = 1000
    host: str = field(default_factory=socket.gethostname)

    def __post_init__(self) -> None:
        self.folder = self.base / "results" / self.name
        self.folder.mkdir(parents=True, exist_ok=True)
        campaign = {"name": self.name, "max_iterations": self.max_iterations, "max_labels": self.max_labels}
        selection = {"n_select": self.batch - 1, "control_fraction": 0.01}
        write_text(self.folder / "config.yaml", json.dumps({"campaign": campaign, "selection": selection}))
        write_text(self.base / "config.yaml", json.dumps({"campaign": {"name": self.name}}))

    @property
    def batch(self) -> int:
        """Structures per batch."""
        return self.shards * self.per_shard

    @property
    def progress(self) -> Path:
        """The file of events."""
        return self.folder / "progress.jsonl"

    def event(self, kind: str, stage: str, iteration: int | None, part: str = "", **more: Any) -> None:
        """Append one event at the time that has come."""
        where = "" if iteration is None else f"/iter_{iteration:03d}"
        log = f"results/{self.name}/logs{where}/{stage}{f'_{part}' if part else ''}.log"
        about = {"pid": 1, "host": self.host, "log": log, "time": self.clock}
        record(self.progress, event=kind, stage=stage, iteration=iteration, part=part, **(about | more))

    def start(self, stage: str, iteration: int | None, part: str = "", **more: Any) -> None:
        """Say that a job started."""
        if self.slurm:
            self.job += 1
            more.setdefault("slurm_job", str(self.job))
        self.event("started", stage, iteration, part, threads=1, process_start="another age", **more)

    def end(self, kind: str, stage: str, iteration: int, part: str = "", *, wall: float, **more: Any) -> None:
        """Say that a job ended."""
        more = {"wall_s": wall, "cpu_s": wall, "gpu_s": 0.0, **more}
        self.event(kind, stage, iteration, part, **more)

    def run(self, stage: str, iteration: int, wall: float, part: str = "", **more: Any) -> None:
        """Let a job run to its end."""
        self.start(stage, iteration, part)
        self.clock += wall
        self.end("finished", stage, iteration, part, wall=wall, **more)

    def explore(self, k: int) -> None:
        """Let an iteration come to its selected batch."""
        (self.folder / f"iter_{k:03d}").mkdir(exist_ok=True)
        if k:
            self.run("explore_structures", k, EXPLORE_S, "0")
        self.run("select_batch", k, SELECT_S, text=f"{self.batch} of 600 candidates selected")
        plan = {"n_selected": self.batch, "n_shards": self.shards}
        write_json(self.folder / f"iter_{k:03d}" / "selection.json", plan)

    def label(self, k: int, failed: int = 0, reason: str = "scf_not_converged") -> None:
        """Label a batch; ``failed`` structures of the first shard fail."""
        wall = self.per_shard * LABEL_S
        for shard in range(self.shards):
            self.start("label_structures", k, f"{shard:03d}")
        self.clock += wall
        for shard in range(self.shards):
            self.shard_done(k, shard, failed if shard == 0 else 0, wall, reason)

    def shard_done(self, k: int, shard: int, failed: int, wall: float, reason: str = "scf_not_converged") -> None:
        """Write what a finished shard leaves."""
        done = self.per_shard - failed
        said = f"; {failed} failed ({reason})" if failed else ""
        text = f"{done} of {self.per_shard} structures labelled{said}"
        self.end("finished", "label_structures", k, f"{shard:03d}", wall=wall, text=text)
        failures = [{"id": str(i), "reason": reason.split(", ")[i % len(reason.split(", "))]} for i in range(failed)]
        report = {"done": done, "failed": failures, "reused": 0}
        write_json(self.folder / f"iter_{k:03d}" / "labels" / f"shard_{shard:03d}.json", report)

    def finish(self, k: int, failed: int = 0, state: str = "running", reason: str = "More is worth it.") -> None:
        """Build, train, evaluate and decide."""
        self.total += self.batch - failed
        self.run("build_dataset", k, BUILD_S)
        self.run("train_ensemble", k, train_s(self.total), "0")
        self.run("fit_uncertainty", k, FIT_S, "ensemble")
        metrics = {
            "iteration": k,
            "labels": {"total": self.total, "new": self.batch - failed, "failed": failed},
            "errors": {
                "valid": {"force_rmse_ev_per_angstrom": 0.4 / 2**k},
                "control": {"force_rmse_ev_per_angstrom": 0.2 / 2**k},
            },
            "miss_rate": {"value": 0.0, "high": 0.5 / (k + 1), "n_accepted": 4, "risk": 0.1,
                          "tolerance_ev_per_angstrom": 0.3},
            "physics": {"inversion": {"barrier_error_ev": 0.05 / (k + 1)}},
        }  # fmt: skip
        write_json(self.folder / f"iter_{k:03d}" / "metrics.json", metrics)
        self.run("decide", k, DECIDE_S)
        driver = {"method": "ensemble", "reason": "uncertainty.acquire_with names it."}
        decision = {"stop": state != "running", "state": state, "reason": reason, "iteration": k}
        write_json(self.folder / f"iter_{k:03d}" / "decision.json", decision | {"acquire_with": driver})

    def iteration(self, k: int, failed: int = 0, **how: Any) -> None:
        """Let a whole iteration pass."""
        self.explore(k)
        self.label(k, failed)
        self.finish(k, failed, **how)

    def drive(self, pid: int | None = None, host: str | None = None, command: str = "snakemake --cores 2") -> None:
        """Write what a driver writes of itself: this process, unless another is named."""
        pid = os.getpid() if pid is None else pid
        said = {"pid": pid, "host": host or socket.gethostname(), "time": self.clock, "command": command}
        write_json(self.folder / "state" / "driver.json", said | {"process_start": process_start(pid) or "gone"})

    def beat(self, k: int, shard: int, done: int, failed: int = 0) -> None:
        """Write the heartbeat of a labelling job."""
        path = self.folder / "state" / "labelling" / f"iter_{k:03d}" / f"shard_{shard:03d}.json"
        write_json(path, {"done": done, "failed": failed, "of": self.per_shard, "time": self.clock, "in_flight": "a"})

    def epoch(self, k: int, n: int, of: int = 200) -> None:
        """Write the heartbeat of a training."""
        path = self.folder / "state" / "training" / f"iter_{k:03d}" / "group_0" / "epoch.json"
        write_json(path, {"epoch": n, "of": of, "time": self.clock})
