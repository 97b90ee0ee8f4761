"""One tiny job per kind of node, to see from there what can't be seen from here."""

from __future__ import annotations

import fcntl
import json
import secrets
import shlex
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dubito
from dubito.cli.cluster.check_threads import counted, judge_threads
from dubito.cli.cluster.findings import Finding, fault, listed, ok, warning
from dubito.cli.cluster.plan import Plan, Request
from dubito.core.slurm.asking import pairs, run

MINUTES = 10
WAIT_S = 600.0
_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "DEADLINE")


@dataclass
class Job:
    """A submitted trial: what it asked for, where it writes, what became of it."""

    request: Request
    number: str
    output: Path
    log: Path
    state: str = "PENDING"
    reason: str = ""
    node: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is to be expected."""
        return self.state.startswith(_ENDED)


def kinds_of_node(plan: Plan, stopped: frozenset[str]) -> list[Request]:
    """Return one request for each partition, account, feature and kind of GPU: the smallest that asks for it."""
    found: dict[tuple[object, ...], Request] = {}
    for request in plan.firsts():
        if request.rule in stopped:
            continue
        key = (request.partition, request.account, request.qos, request.constraint, request.gpus > 0, request.gpu_model)
        known = found.get(key)
        if known is None or (request.mem_mb or 0, request.cpus) < (known.mem_mb or 0, known.cpus):
            found[key] = request
    return list(found.values())


def check_from_nodes(
    plan: Plan, folder: Path, stopped: frozenset[str] = frozenset(), wait_s: float = WAIT_S
) -> list[Finding]:
    """Submit the trials, wait for them, and say what they saw; those that do not end in time are cancelled."""
    results = folder / "results"
    results.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".dubito-check-", dir=results) as made:
        place = Path(made).resolve()
        token, lock = place / "token", place / "lock"
        token.write_text(secrets.token_hex(8))
        found: list[Finding] = []
        jobs: list[Job] = []
        with lock.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                for request in kinds_of_node(plan, stopped):
                    job = _submit(request, place, len(jobs))
                    if isinstance(job, Job):
                        jobs.append(job)
                    else:
                        found.append(job)
                wait_for(jobs, wait_s)
            finally:
                cancel(jobs)
        for job in jobs:
            found += _judged(job, plan, token.read_text(), wait_s)
        return found


def submit(request: Request, command: list[str], log: Path, minutes: int) -> str | Finding:
    """Submit a command with the resources of a request and a time limit; return its number, or why it was refused."""
    asked = replace(request, runtime_min=min(minutes, request.runtime_min or minutes))
    answer = run(
        ["sbatch", "--parsable", "--job-name=dubito_check", "--no-requeue", *asked.sbatch_options(),
         f"--output={log}", "--wrap", shlex.join(command)]
    )  # fmt: skip
    if answer.rc != 0:
        return fault(f"sbatch refused a job for {request.rule}: {answer.said}", [request.rule])
    return answer.out.strip().split(";")[0]


def wait_for(jobs: Iterable[Job], wait_s: float, poll_s: float = 1.0) -> None:
    """Wait until all jobs have ended, at most ``wait_s`` seconds."""
    end, waiting = time.monotonic() + wait_s, list(jobs)
    while waiting and time.monotonic() < end:
        for job in waiting:
            _look(job)
        waiting = [job for job in waiting if not job.has_ended]
        if waiting:
            time.sleep(poll_s)


def cancel(jobs: Iterable[Job]) -> None:
    """Cancel those that have not ended."""
    left = [job.number for job in jobs if not job.has_ended]
    if left:
        run(["scancel", *left])


def tail(path: Path, characters: int = 300) -> str:
    """Return the last words of a log in one line."""
    try:
        return " ".join(path.read_text(errors="replace").split())[-characters:]
    except OSError:
        return ""


def _submit(request: Request, place: Path, number: int) -> Job | Finding:
    output, log = place / f"{number}.json", place / f"{number}.log"
    command = [
        "env", *(f"{name}={value}" for name, value in counted(request.cpus).items()),
        sys.executable, "-m", "dubito.cli.cluster.node_facts", str(output), f"--threads={request.cpus}",
        f"--token={place / 'token'}", f"--lock={place / 'lock'}", *(["--gpu"] if request.gpus else []),
    ]  # fmt: skip
    got = submit(request, command, log, MINUTES)
    return Job(request, got, output, log) if isinstance(got, str) else got


def _look(job: Job) -> None:
    answer = run(["scontrol", "--oneliner", "show", "job", job.number])
    found = pairs(answer.out) if answer.rc == 0 else {}
    job.state = found.get("JobState", job.state)
    job.reason = found.get("Reason", job.reason)
    job.node = found.get("NodeList", job.node)


def _judged(job: Job, plan: Plan, token: str, wait_s: float) -> list[Finding]:
    request = job.request
    where = f"partition {request.partition or '(default)'}{', with GPU' if request.gpus else ''}"
    if not job.has_ended and job.state.startswith("PENDING"):
        return [
            warning(
                f"{where}: the trial job was still waiting after {wait_s:.0f} s (reason: {job.reason}) and was "
                "cancelled; nothing was seen from there. A reason other than Priority, Resources or None will keep the "
                "campaign waiting too."
            )
        ]
    if not job.output.exists():
        _wait_for_file(job.output, float(plan.settings.get("latency_wait") or 5))
    if not job.output.exists():
        said = tail(job.log)
        seen = f"It said: {said}" if said else f"It left no log either, so node {job.node} may not see this folder"
        return [
            fault(
                f"{where}: the trial job on {job.node or 'no node'} ended as {job.state} without a result. {seen}. The "
                f"folder {Path.cwd()} and {sys.executable} must be there on every node, under the same path.",
                [request.rule],
            )
        ]
    return judge_facts(json.loads(job.output.read_text()), request, where, token)


def judge_facts(facts: Mapping[str, Any], request: Request, where: str, token: str) -> list[Finding]:
    """Compare what a job saw on its node with what is here."""
    node, found = facts["host"], []
    here = f"{where}, node {node}"
    if facts.get("token") != token:
        found.append(
            fault(
                f"{here}: it sees another folder under the path {Path.cwd()} than this machine does. Move the campaign "
                "to a shared file system.",
                [request.rule],
            )
        )
    version = facts["dubito"]["version"]
    if version != dubito.__version__:
        found.append(
            fault(
                f"{here}: dubito {version} is found there ({facts['dubito']['file']}), {dubito.__version__} here. Let "
                "all nodes use one environment on the shared file system.",
                [request.rule],
            )
        )
    if request.gpus and not facts["gpu"]["count"]:
        gpu = facts["gpu"]
        why = gpu.get("error") or f"CUDA_VISIBLE_DEVICES is {gpu['shown']!r}, torch {gpu.get('torch', '?')}"
        found.append(
            fault(
                f"{here}: a GPU was given ({request.gpus} asked for), but torch sees none ({why}). Install a torch "
                "with CUDA that fits the driver (`nvidia-smi` on the node shows it), or set gpu: 0.",
                [request.rule],
            )
        )
    threads = judge_threads(facts["threads"], f"on node {node}", int(facts["cpus"] or 1))
    if threads.level != "ok":
        found.append(threads)
    if facts.get("lock_is_seen") is False:
        found.append(
            warning(
                f"{here}: a lock held here is not seen there. Never start a campaign again before the jobs of a killed "
                "driver have ended (the start on Slurm refuses to)."
            )
        )
    if not facts["compiler"]:
        found.append(
            warning(
                f"{here}: no C compiler, so the network runs in torch, many times slower. Load one where you start "
                "(module load gcc), or have it installed on the nodes."
            )
        )
    seen = [f"dubito {version}", threads.text if threads.level == "ok" else "", facts["compiler"] or ""]
    if request.gpus and facts["gpu"]["count"]:
        seen.append(f"GPU {facts['gpu']['name']}")
    if any(finding.level == "fault" for finding in found):
        return found
    return [*found, ok(f"{here} sees the folder; {listed([text for text in seen if text])}")]


def _wait_for_file(path: Path, wait_s: float) -> None:
    """Give a lagging network file system its time."""
    end = time.monotonic() + wait_s
    while not path.exists() and time.monotonic() < end:
        list(path.parent.iterdir())  # makes NFS look again
        time.sleep(0.2)
