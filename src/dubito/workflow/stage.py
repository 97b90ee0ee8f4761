"""Run one stage as a job: log, lock, progress, errors that a person can use."""

from __future__ import annotations

import importlib
import logging
import os
import resource
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from dubito.core.errors import CampaignPaused, DubitoError, MemoryFault
from dubito.core.interrupt import Interrupted, listening
from dubito.core.locks import exclusive, process_start
from dubito.core.logs import configure, get_logger
from dubito.core.progress import announce, is_job, record
from dubito.reporting.pause import write_pause
from dubito.workflow.arguments import gpus_of, stage_arguments
from dubito.workflow.attempts import ATTEMPT_VARIABLE, OUT_OF_MEMORY, part_of
from dubito.workflow.ledger import Making

log = get_logger(__name__)

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# MB in the unit of ru_maxrss: bytes on macOS, KiB elsewhere.
_RSS_MB = 1e-6 if sys.platform == "darwin" else 1.024e-3
# Of the memory of a Slurm job, what Snakemake itself takes there (two processes), MB.
_SNAKEMAKE_MB = 500


def run_stage(name: str, snakemake: Any) -> None:
    """Run ``dubito.stages.<name>`` for one job and leave the process with 0, 2 (user's fault) or 1 (bug).

    Parameters
    ----------
    name : the stage, a module of :mod:`dubito.stages` with a function ``run``
    snakemake : the object Snakemake gives to scripts
    """
    job = _Job(name, snakemake)
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = str(snakemake.threads)
    configure(job.log)
    _log_warnings()
    try:
        with exclusive(job.lock):
            text = _measured(job, snakemake)
    except CampaignPaused as pause:
        # Said to the person by the driver, once, when the other jobs have ended.
        log.info("too few labels, so the campaign is paused; %s says more", job.folder / "summary.json")
        write_pause(job.folder, pause, snakemake.config)
        sys.exit(pause.exit_code)
    except Interrupted as request:
        # The retry, or the next start, goes on; nobody has to mend anything.
        log.warning("%s", request)
        sys.exit(request.exit_code)
    except DubitoError as error:
        log.error("%s\nThe log is %s", error, job.log)
        sys.exit(error.exit_code)
    except Exception:
        log.error("%s\nThis is a bug in dubito. The log is %s", traceback.format_exc(), job.log)
        sys.exit(1)
    announce(text)
    _leave()


def _leave() -> None:
    """End the process at once: every result is synced and renamed, and taking torch down costs half a second."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class _Job:
    """What is said and written about one job."""

    def __init__(self, name: str, snakemake: Any) -> None:
        wildcards = dict(snakemake.wildcards.items())
        settings = snakemake.config["campaign"]
        self.stage = name
        self.campaign: str = settings["name"]
        self.max_iterations: int = settings["max_iterations"]
        self.iteration = int(wildcards["iteration"]) if "iteration" in wildcards else None
        self.part = part_of(wildcards)
        self.gpus = gpus_of(snakemake)
        self.folder = Path("results", self.campaign)
        self.log = Path(snakemake.log[0])
        where = "" if self.iteration is None else f"_{self.iteration:03d}"
        part = f"_{self.part}" if self.part else ""
        self.lock = self.folder / "state" / "locks" / f"{snakemake.rule}{where}{part}.lock"

    def event(self, event: str, **more: Any) -> None:
        """Append one event to the campaign's progress file."""
        record(
            self.folder / "progress.jsonl",
            event=event,
            stage=self.stage,
            iteration=self.iteration,
            part=self.part,
            pid=os.getpid(),
            host=socket.gethostname(),
            log=str(self.log),
            **more,
        )

    def line(self, wall_s: float, text: str) -> str:
        """Return the line for the person who watches."""
        where = "  -" if self.iteration is None else f"{self.iteration}/{self.max_iterations}"
        name = f"{self.stage} {self.part}".strip()
        return f"[{self.campaign} {where}] {name:<28} {wall_s:7.1f} s  {text}"


def _measured(job: _Job, snakemake: Any) -> str:
    """Run the stage between a started and a finished (or failed) event; return the line to show."""
    start = time.monotonic()
    given = _given(snakemake)
    job.event("started", threads=snakemake.threads, process_start=process_start(os.getpid()), **given)
    is_job(job.event)
    _limit_pyscf(given)
    log.info("%s starts: %s", job.stage, dict(snakemake.wildcards.items()))
    try:
        stage = importlib.import_module(f"dubito.stages.{job.stage}")
        making = Making(job.stage, job.iteration, job.part, snakemake)
        # Stages that never look for a request are ended by the signal itself, as any program.
        waits = listening() if getattr(stage, "CHECKS_INTERRUPTS", False) else nullcontext()
        with waits:
            text: str = stage.run(**stage_arguments(stage.run, snakemake))
        making.write(_usage(start, job.gpus))
    except CampaignPaused as pause:
        job.event("paused", reason=str(pause), **_usage(start, job.gpus))
        raise
    except Interrupted as request:
        job.event("interrupted", signal=request.signal, reason=str(request), **_usage(start, job.gpus))
        raise
    except MemoryError as error:
        fault = MemoryFault(
            f"The memory ran out in {job.stage}. Give the rule more mem_mb in the profile and start again (on a "
            "cluster the next attempt asks for more by itself): finished work is kept."
        )
        job.event("failed", error=f"MemoryError: {error}", reason=OUT_OF_MEMORY, **_usage(start, job.gpus))
        raise fault from error
    except BaseException as error:
        # Of torch, which has no error of its own for the memory of the processor.
        is_memory = isinstance(error, MemoryFault) or "DefaultCPUAllocator: can't allocate memory" in str(error)
        reason = OUT_OF_MEMORY if is_memory else "error"
        job.event("failed", error=f"{type(error).__name__}: {error}", reason=reason, **_usage(start, job.gpus))
        raise
    finally:
        is_job(None)
    usage = _usage(start, job.gpus)
    job.event("finished", text=text, **usage)
    log.info("%s: %s (%.1f s)", job.stage, text, usage["wall_s"])
    return job.line(usage["wall_s"], text)


def _given(snakemake: Any) -> dict[str, Any]:
    """Return what the job was given: its number in Slurm, memory (MB), time limit (min), and which attempt it is."""
    found = {"mem_mb": snakemake.resources.get("mem_mb", None), "runtime_min": snakemake.resources.get("runtime", None)}
    numbers = {key: value if isinstance(value, int) else None for key, value in found.items()}
    attempt = int(os.environ.get(ATTEMPT_VARIABLE, "1"))
    return {"slurm_job": os.environ.get("SLURM_JOB_ID"), **numbers, "attempt": attempt}


def _limit_pyscf(given: Mapping[str, Any]) -> None:
    """Tell PySCF how much memory it may plan with where more is punished with death; it assumes 4000 MB."""
    if given["slurm_job"] and given["mem_mb"]:
        may = max(500, round(0.8 * (given["mem_mb"] - _SNAKEMAKE_MB)))
        os.environ.setdefault("PYSCF_MAX_MEMORY", str(may))


def _usage(start: float, gpus: int) -> dict[str, float]:
    """Return wall time, processor time with that of children, GPU time (s) and the largest resident memory (MB).

    A GPU counts as busy while the job that asked for it runs.
    """
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = round(time.monotonic() - start, 3)
    return {
        "wall_s": wall,
        "cpu_s": round(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, 3),
        "gpu_s": round(wall * gpus, 3),
        "max_rss_mb": round(max(_peak_mb(own.ru_maxrss), children.ru_maxrss * _RSS_MB), 1),
    }


def _peak_mb(max_rss: int) -> float:
    """Return the largest resident memory of this process, MB.

    Linux carries ``ru_maxrss`` over from the process that started this one, so that a small job of a large parent
    looks large; ``VmHWM`` begins anew with each program.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return max_rss * _RSS_MB
    own = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(own[0]) * 1.024e-3 if own else max_rss * _RSS_MB


def _log_warnings() -> None:
    """Send Python's warnings to the log file alone: they are for developers, the terminal is for users."""
    logging.captureWarnings(True)
    warnings = logging.getLogger("py.warnings")
    warnings.propagate = False
    warnings.handlers = [h for h in logging.getLogger("dubito").handlers if isinstance(h, logging.FileHandler)]
