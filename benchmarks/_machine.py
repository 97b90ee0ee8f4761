"""What this machine can do at best, measured: products of matrices per second, bytes per second."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

REPEATS = 7


def _fastest(action: Callable[[], object], device: str) -> tuple[float, float]:
    """Return the shortest and the median wall time in s."""
    times = []
    for _ in range(REPEATS + 2):
        start = time.perf_counter()
        action()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[2:]), statistics.median(times[2:])


def measure_peak(device: str, dtype: str = "float32", n: int = 2048) -> dict[str, float]:
    """Measure with torch's present threads.

    Returns
    -------
    ``matmul_gflops`` of a square product (n, n), ``bandwidth_gb_s`` of the triad ``c = a + 2 b`` on arrays that no
    cache holds; the best of several, since a limit is asked for, and the medians beside them.
    """
    kind = getattr(torch, dtype)
    a, b = (torch.rand(n, n, dtype=kind, device=device) for _ in range(2))
    out = torch.empty_like(a)
    best, median = _fastest(lambda: torch.matmul(a, b, out=out), device)
    length = 2**26
    x, y = (torch.rand(length, dtype=torch.float32, device=device) for _ in range(2))
    z = torch.empty_like(x)
    triad, triad_median = _fastest(lambda: torch.add(x, y, alpha=2.0, out=z), device)
    return {
        "matmul_gflops": round(2e-9 * n**3 / best, 1),
        "matmul_gflops_median": round(2e-9 * n**3 / median, 1),
        "bandwidth_gb_s": round(1e-9 * 3 * 4 * length / triad, 1),
        "bandwidth_gb_s_median": round(1e-9 * 3 * 4 * length / triad_median, 1),
    }


def cpu_model() -> str:
    """Return the processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
