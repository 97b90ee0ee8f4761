"""Labels a few structures as a labelling job would: ``python -m dubito.cli.probe_worker FOLDER N THREADS``.

Reads ``config.json`` from the folder and writes ``probe.json`` beside it; run in the campaign's folder.
"""

from __future__ import annotations

import platform
import socket
import sys
from pathlib import Path
from typing import Any

from dubito.core.errors import DubitoError


def main(arguments: list[str]) -> int:
    """Label and measure; return the exit code."""
    place, n, threads = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    try:
        measure(place, n, threads)
    except DubitoError as error:
        print(f"dubito: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def measure(place: Path, n: int, threads: int) -> None:
    """Write ``probe.json``: what each of ``n`` labels cost, and the memory of this process."""
    from dubito.cli.probe import CACHE
    from dubito.config import Config
    from dubito.core.files import write_json
    from dubito.data.store import read_structures
    from dubito.labelling.base import Label
    from dubito.labelling.cache import LabelCache
    from dubito.labelling.registry import make_labeller
    from dubito.labelling.service import label_one
    from dubito.labelling.vouching import new_job, sign
    from dubito.stages import prepare_structures

    config = Config.model_validate_json((place / "config.json").read_text())
    output = place / "candidates.h5"
    prepare_structures.run(output=output, data=config.data, seed=config.campaign.seed)
    structures = read_structures(output)
    labeller = make_labeller(config.labelling.labeller, threads=threads)
    cache = sign(LabelCache(CACHE, labeller.settings()), labeller, config.labelling.checks, new_job())
    found: list[dict[str, Any]] = []
    for row in spread([int(size) for size in structures.n_atoms], n):
        one = structures[row : row + 1]
        outcome = label_one(one, labeller, cache)
        result = outcome.result
        found.append(
            {
                "n_atoms": int(one.n_atoms[0]),
                "wall_s": result.wall_time_s,
                "cpu_s": result.cpu_time_s,
                "reused": outcome.reused,
                "failed": None if isinstance(result, Label) else f"{result.reason}: {result.message}",
            }
        )
    peak = None if all(one["reused"] for one in found) else peak_mb()
    facts = {"labels": found, "threads": threads, "peak_mb": peak}
    write_json(place / "probe.json", facts | {"host": socket.gethostname(), "processor": processor()})


def spread(sizes: list[int], n: int) -> list[int]:
    """Return ``n`` rows (all, where there are fewer) that lie evenly over the sizes, so that no size is overlooked."""
    order = sorted(range(len(sizes)), key=lambda row: (sizes[row], row))
    n = min(n, len(order))
    return sorted(order[((2 * k + 1) * len(order)) // (2 * n)] for k in range(n))


def peak_mb() -> float:
    """Return the largest resident memory of this process, MB."""
    import resource

    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        scale = 1e-6 if sys.platform == "darwin" else 1.024e-3
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    own = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(own[0]) * 1.024e-3 if own else 0.0


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
