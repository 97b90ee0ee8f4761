"""What all workers of the speed benchmark share: JSON lines over stdin and stdout, timing, peak memory.

A worker is a process of its own, in its program's own environment, so this module needs Python, numpy and torch only.
One JSON object per line comes in, ``{"command": name, ...}``, and one goes out; a failure is ``{"error": text}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch


class Program(Protocol):
    """What a worker measures."""

    n_parameters: int

    def train_step(self) -> None:
        """Forward, forces, loss of energies and forces, backward, one step of the optimiser."""
        ...

    def score(self) -> torch.Tensor:
        """Compute energies and forces, not differentiable any further; return the forces."""
        ...


def read_batch(path: str) -> dict[str, np.ndarray]:
    """Read positions (n, atoms, 3) Å, numbers (atoms,), cell (3, 3) Å, pbc (3,), energy (n,) eV, forces eV/Å."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def peak_memory_mib(device: str) -> float:
    """Return the largest memory so far, MiB: allocated on the card, or resident in RAM."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    with contextlib.suppress(OSError):
        # Not getrusage: a process inherits that from the one which started it.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
    per_unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * per_unit / 2**20


def _limit_memory(mib: float) -> None:
    """Let an allocation fail here, rather than let the kernel end whichever process it likes."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if mib:
        resource.setrlimit(resource.RLIMIT_DATA, (int(mib * 2**20), resource.RLIM_INFINITY))


def _measure(action: Callable[[], torch.Tensor | None], repeats: int, device: str) -> dict[str, Any]:
    """Return the wall time of each call in ms; a time for forces that are not numbers would be worth nothing."""
    times, result = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        result = action()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    if result is not None and not (bool(torch.isfinite(result).all()) and bool(result.any())):
        raise ValueError("the forces are not finite, or all zero")
    return {"times_ms": times}


def serve(make: Callable[[dict[str, Any], dict[str, np.ndarray]], Program]) -> None:
    """Answer commands until ``quit`` or the end of the input; ``make`` builds the program at ``setup``."""
    # Libraries print on stdout as they please; the answers keep a channel of their own.
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    program: Program | None = None
    device = "cpu"
    for line in sys.stdin:
        request = json.loads(line)
        command = request["command"]
        try:
            if command == "quit":
                break
            if command == "setup":
                device = request.get("device", "cpu")
                if device == "cpu":
                    _limit_memory(request.get("memory_limit_mib", 0))
                torch.set_num_threads(request["threads"])
                imported, start = peak_memory_mib(device), time.perf_counter()
                program = make(request, read_batch(request["batch"]))
                answer = {
                    "n_parameters": program.n_parameters,
                    "seconds": time.perf_counter() - start,
                    "memory_after_import_mib": imported,
                    "torch": torch.__version__,
                }
            elif command == "memory":
                answer = {"peak_memory_mib": peak_memory_mib(device)}
            elif program is None:
                answer = {"error": f"{command} before setup"}
            elif command in ("train_step", "score"):
                answer = _measure(getattr(program, command), request["repeats"], device)
            elif command == "parts":
                # Where scoring spends its time; only dubito's worker takes it apart.
                parts = getattr(program, "parts", dict)()
                answer = {name: _measure(part, request["repeats"], device) for name, part in parts.items()}
            else:
                answer = {"error": f"unknown command {command!r}"}
        except Exception as error:  # whatever a peer raises is a result to show
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:600]}
        channel.write(json.dumps(answer) + "\n")
