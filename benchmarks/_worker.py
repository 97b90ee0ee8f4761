"""Drive the workers of the speed benchmark: start them, talk to them in JSON lines, never lose an error."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PEERS = Path(__file__).parent / "peers"

# glibc gives large arrays back to the system after use and faults them in again, page by page, at the next step. That
# would burden the peers' large arrays most and flatter dubito, so that by default all programs keep their memory;
# `speed.py --plain-malloc` shows the difference.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**33),
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_TOP_PAD_": str(2**26),
}


class WorkerError(Exception):
    """A worker failed; its message is a result, not an accident."""


def peer_python(name: str) -> Path | None:
    """Return the interpreter of a peer's environment, or None when it hasn't been made."""
    folder = Path(os.environ.get("DUBITO_PEERS", PEERS)) / f".venv-{name}"
    python = folder / "bin" / "python"
    return python if python.exists() and (folder / ".installed").exists() else None


def program_python(name: str) -> Path | None:
    """Return the interpreter that runs a program, dubito or a peer; None when there is none."""
    return Path(sys.executable) if name == "dubito" else peer_python(name)


class Worker:
    """A process that measures one program on one batch."""

    def __init__(self, program: str, threads: int, *, keep_memory: bool = True) -> None:
        python = program_python(program)
        if python is None:
            raise WorkerError(f"{program} has no environment; benchmarks/peers/make_environments.sh makes it")
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" or program == "dubito"}
        environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = str(threads)
        if keep_memory:
            environment |= KEEP_MEMORY
        self.program, self._log = program, tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in close)
        self._process = subprocess.Popen(
            [python, PEERS / f"{program}_worker.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )
        self._pending = b""

    def ask(self, command: str, timeout_s: float = 600.0, **content: Any) -> dict[str, Any]:
        """Send a command and return the answer.

        Raises
        ------
        WorkerError
            When the worker says so, ends, or doesn't answer in time (it is ended then).
        """
        process = self._process
        if process.stdin is None or process.poll() is not None:
            raise WorkerError(self._obituary())
        try:
            process.stdin.write((json.dumps({"command": command, **content}) + "\n").encode())
            process.stdin.flush()
        except BrokenPipeError:
            process.wait()
            raise WorkerError(self._obituary()) from None
        answer: dict[str, Any] = json.loads(self._line(command, timeout_s))
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        process = self._process
        if process.poll() is None and process.stdin is not None:
            process.stdin.close()  # the worker leaves its loop
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        self._log.close()

    def _line(self, command: str, timeout_s: float) -> bytes:
        stream = self._process.stdout
        if stream is None:
            raise WorkerError("no channel")
        end = time.monotonic() + timeout_s
        while b"\n" not in self._pending:
            ready, _, _ = select.select([stream], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                self._process.kill()
                self._process.wait()
                raise WorkerError(f"no answer to {command} within {timeout_s:.0f} s")
            piece = os.read(stream.fileno(), 65536)
            if not piece:
                self._process.wait()
                raise WorkerError(self._obituary())
            self._pending += piece
        line, _, self._pending = self._pending.partition(b"\n")
        if not line.startswith(b"{"):
            # Libraries print while they are imported; answers come after.
            return self._line(command, max(1.0, end - time.monotonic()))
        return line

    def _obituary(self) -> str:
        self._log.seek(0)
        last = "\n".join(self._log.read().strip().splitlines()[-3:])
        if self._process.returncode == -9:
            return f"the worker of {self.program} was killed, most likely for want of memory"
        return f"the worker of {self.program} ended with status {self._process.returncode}: {last}"[:600]
