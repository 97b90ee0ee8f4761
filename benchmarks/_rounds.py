"""Measure several programs on the same batch in turn, round after round."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _batches import Batch
from _worker import Worker, WorkerError

# A block of repeats of a fast program lasts about this long, so that one hiccup is not a whole round.
BLOCK_S = 0.3
LARGEST_BLOCK = 20
# TorchScript, which the peers use, recompiles within the first calls.
WARM_UP = 3


@dataclass(frozen=True)
class Program:
    """What is measured: a worker and what it is told beyond the row."""

    name: str
    worker: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def members(self) -> int:
        """How many networks it evaluates together."""
        return int(self.options.get("members", 1))


@dataclass(frozen=True)
class Row:
    """One configuration, the same for all programs."""

    l_max: int
    batch: int
    structures: str = "molecules"
    dtype: str = "float32"
    n_features: int = 32
    n_layers: int = 3
    r_max_angstrom: float = 5.0

    @property
    def key(self) -> str:
        """Short name: degree and batch, and what is unusual."""
        unusual = [self.structures] * (self.structures != "molecules") + [self.dtype] * (self.dtype != "float32")
        return " ".join([f"l{self.l_max}@{self.batch}", *unusual])


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    rounds: int
    least_rounds: int
    seconds_per_row: float
    threads: int
    device: str
    timeout_s: float = 900.0
    memory_limit_mib: float = 0.0
    keep_memory: bool = True


@dataclass
class Series:
    """What one program did in a row: the median time of each round, ms."""

    program: Program
    setup: dict[str, Any] = field(default_factory=dict)
    train: list[float] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    first_train_s: float = 0.0
    first_score_s: float = 0.0
    peak_memory_mib: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)  # ms, of scoring
    error: str = ""


def measure(row: Row, programs: list[Program], batch: Batch, effort: Effort) -> list[Series]:
    """Measure the programs on one batch; one that fails is left out of later rounds, with its error kept."""
    all_series = [Series(program) for program in programs]
    workers: dict[str, Worker] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = batch.write(Path(folder) / "batch.npz", row.batch)
        try:
            for series in all_series:
                with _errors_into(series):
                    workers[series.program.name] = Worker(
                        series.program.worker, effort.threads, keep_memory=effort.keep_memory
                    )
            for series in all_series:
                with _errors_into(series):
                    _prepare(series, workers[series.program.name], row, path, effort)
            _run_rounds(all_series, workers, effort)
            for series in all_series:
                with _errors_into(series):
                    answer = workers[series.program.name].ask("memory")
                    series.peak_memory_mib = answer["peak_memory_mib"]
                    parts = workers[series.program.name].ask("parts", effort.timeout_s, repeats=WARM_UP + 4)
                    # The geometry was not measured on its own before: its first calls warm up.
                    series.parts = {name: statistics.median(one["times_ms"][WARM_UP:]) for name, one in parts.items()}
        finally:
            for worker in workers.values():
                worker.close()
    return all_series


class _errors_into:  # noqa: N801 (used like a function)
    """Do nothing for a program that failed before; keep the error of one that fails now."""

    def __init__(self, series: Series) -> None:
        self.series = series

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, KeyError) and self.series.error:
            return True
        if not isinstance(error, WorkerError):
            return False
        self.series.error = self.series.error or str(error)
        sys.stderr.write(f"  {self.series.program.name}: {error}\n")
        return True


def _prepare(series: Series, worker: Worker, row: Row, path: Path, effort: Effort) -> None:
    """Set up and warm up."""
    content = {name: getattr(row, name) for name in ("l_max", "n_layers", "n_features", "r_max_angstrom", "dtype")}
    series.setup = worker.ask(
        "setup",
        effort.timeout_s,
        **content,
        **series.program.options,
        batch_size=row.batch,
        batch=str(path),
        threads=effort.threads,
        device=effort.device,
        memory_limit_mib=effort.memory_limit_mib,
    )
    for command in ("train_step", "score"):
        first = worker.ask(command, effort.timeout_s, repeats=1)["times_ms"][0]
        setattr(series, "first_train_s" if command == "train_step" else "first_score_s", round(first / 1e3, 3))
        worker.ask(command, effort.timeout_s, repeats=WARM_UP - 1 if first < 20e3 else 1)


def _run_rounds(all_series: list[Series], workers: dict[str, Worker], effort: Effort) -> None:
    """Measure in turn; every second round backwards, so that a drift favours nobody."""
    start = time.monotonic()
    for i in range(effort.rounds):
        if i >= effort.least_rounds and time.monotonic() - start > effort.seconds_per_row:
            break
        for series in all_series[:: 1 if i % 2 == 0 else -1]:
            if series.error:
                continue
            with _errors_into(series):
                for command, times in (("train_step", series.train), ("score", series.score)):
                    ask = workers[series.program.name].ask
                    times.append(_block(ask, command, times, effort))


def _block(ask: Callable[..., dict[str, Any]], command: str, before: list[float], effort: Effort) -> float:
    """Return the median of some repeats, as many as fit into a block."""
    repeats = min(LARGEST_BLOCK, max(1, round(1e3 * BLOCK_S / before[-1]))) if before else 1
    return statistics.median(ask(command, effort.timeout_s, repeats=repeats)["times_ms"])
