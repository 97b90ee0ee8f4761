"""What a machine has for a job, seen from inside: ``python -m dubito.cli.cluster.node_facts OUTPUT OPTIONS``.

Runs on the login node, and in the trial jobs of ``dubito check --submit`` on the nodes; writes one file of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

# A thread that worked at least so long took part in the calculation; s.
_BUSY_S = 0.02


def facts(*, threads: int, gpu: bool, token: Path | None = None, lock: Path | None = None) -> dict[str, Any]:
    """Return what a job of so many threads finds here; the variables of threads have to be set before."""
    import dubito

    found: dict[str, Any] = {
        "host": socket.gethostname(),
        "python": sys.executable,
        "dubito": {"version": dubito.__version__, "file": str(Path(dubito.__file__).parent)},
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": {"asked": threads, **scf_threads()},
        "compiler": _compiler(),
    }
    if token is not None:
        found["token"] = token.read_text() if token.exists() else None
    if lock is not None:
        found["lock_is_seen"] = _is_locked(lock)
    if gpu:
        found["gpu"] = _gpus()
    return found


def scf_threads() -> dict[str, Any]:
    """Run a small SCF (water, PBE/def2-SVP); return how many threads PySCF is set to, and how many worked."""
    from pyscf import dft, gto, lib

    before, start = _task_seconds(), time.perf_counter()
    molecule = gto.M(atom="O 0 0 0.119; H 0 0.763 -0.477; H 0 -0.763 -0.477", basis="def2-svp", verbose=0)
    scf = dft.RKS(molecule, xc="PBE").density_fit()
    scf.kernel()
    after = _task_seconds()
    busy = [key for key, seconds in after.items() if seconds - before.get(key, 0.0) >= _BUSY_S]
    return {
        "set": int(lib.num_threads()),
        "worked": len(busy) if after else None,
        "converged": bool(scf.converged),
        "wall_s": round(time.perf_counter() - start, 3),
    }


def _task_seconds() -> dict[str, float]:
    """Return the processor time of each thread of this process, s; empty where the system does not tell."""
    ticks, found = os.sysconf("SC_CLK_TCK"), {}
    for path in Path("/proc/self/task").glob("*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # a thread that has just ended
            continue
        found[path.parent.name] = (int(fields[11]) + int(fields[12])) / ticks  # fields 14, 15 of proc(5)
    return found


def _compiler() -> str | None:
    from dubito.model.fused.compiler import CompilationError, compiler_version

    try:
        return compiler_version()
    except CompilationError:
        return None


def _gpus() -> dict[str, Any]:
    """Return what torch sees of GPUs."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        name = torch.cuda.get_device_name(0) if count else ""
        return {"count": count, "name": name, "shown": shown, "torch": str(torch.__version__)}
    except Exception as error:  # a driver that is too old, a card that is lost: whatever torch says is the finding
        return {"count": 0, "name": "", "shown": shown, "error": f"{type(error).__name__}: {error}"[:200]}


def _is_locked(path: Path) -> bool | None:
    """Say whether a lock that another machine holds is seen here; None when it can't be told."""
    import fcntl

    try:
        with path.open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def main(arguments: list[str] | None = None) -> int:
    """Write the facts to a file."""
    from dubito.core.files import write_json

    parser = argparse.ArgumentParser(prog="python -m dubito.cli.cluster.node_facts")
    parser.add_argument("output", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--token", type=Path)
    parser.add_argument("--lock", type=Path)
    given = parser.parse_args(arguments)
    write_json(given.output, facts(threads=given.threads, gpu=given.gpu, token=given.token, lock=given.lock))
    print(json.dumps({"host": socket.gethostname(), "written": str(given.output)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
