"""Whether PySCF works on as many threads as its job has cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dubito.cli.cluster.findings import Finding, fault, ok, warning
from dubito.cli.cluster.plan import LABEL_RULE, Plan

_OPENMP = "OMP_NUM_THREADS"
_OTHERS = ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a job with so many threads, as :func:`dubito.workflow.stage.run_stage` sets it."""
    return {**os.environ, **dict.fromkeys((_OPENMP, *_OTHERS), str(threads))}


def counted(threads: int) -> dict[str, str]:
    """Return the variables under which the threads of PySCF alone can be counted.

    Each copy of OpenBLAS (numpy has one, scipy another) has threads of its own, which do not work at the same time.
    """
    return {_OPENMP: str(threads), **dict.fromkeys(_OTHERS, "1")}


def check_threads(plan: Plan) -> list[Finding]:
    """Run a small SCF on this machine with the threads of a labelling job, and count those that work."""
    request = plan.first(LABEL_RULE)
    threads = request.cpus if request else 1
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "facts.json")
        command = [sys.executable, "-m", "dubito.cli.cluster.node_facts", str(output), f"--threads={threads}"]
        done = subprocess.run(
            command, env={**os.environ, **counted(threads)}, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode or not output.exists():
            last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
            return [fault(f"PySCF can't run a small calculation here: {last}. Type: pip install pyscf")]
        facts = json.loads(output.read_text())
    return [judge_threads(facts["threads"], "here", int(facts["cpus"] or 1))]


def judge_threads(found: Mapping[str, Any], where: str, cpus: int) -> Finding:
    """Say whether the threads that worked are those that were asked for."""
    asked, set_, worked = int(found["asked"]), int(found["set"]), found["worked"]
    if set_ != asked:
        return fault(
            f"PySCF takes {set_} threads {where}, but the job asks for {asked}: OMP_NUM_THREADS is not honoured. Look "
            "for MKL_NUM_THREADS, OMP_THREAD_LIMIT or a site module that sets threads, and unset it."
        )
    if worked is None:
        return ok(f"PySCF is set to {set_} threads {where} (how many work can't be seen on this system)")
    if worked > asked and asked == 1:
        return warning(
            f"a calculation on 1 thread had {worked} at work {where}: jobs side by side would fight for cores. Set "
            "OPENBLAS_NUM_THREADS=1 where you start, or install numpy and scipy from PyPI."
        )
    if worked < asked and cpus < asked:
        return warning(f"{asked} threads asked for, but {where} only {cpus} CPUs may be used; not to be told from here")
    if worked < asked and asked > 1:
        return warning(
            f"PySCF had {worked} of {asked} threads at work {where}: cores that are paid for stand idle. Lower "
            f"set-threads for {LABEL_RULE}, or install a PySCF with OpenMP (`pip install pyscf` has it)."
        )
    return ok(f"PySCF works on {asked} thread{'' if asked == 1 else 's'} {where}, as asked for")
