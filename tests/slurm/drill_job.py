"""A job of drills.smk: tells trace.txt what happens to it, and waits for its accident at the first attempt."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

NAME, ATTEMPT, OUTPUT = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])


def tell(word: str) -> None:
    """Append one line, in one write."""
    handle = os.open("trace.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{NAME} {ATTEMPT} {word} {os.environ.get('SLURM_JOB_ID')}\n".encode())
    os.close(handle)


tell("started")
if ATTEMPT == 1:
    if NAME in {"scancelled", "node", "lost"}:
        time.sleep(600)
    if NAME == "memory":
        held = bytearray(700_000_000)
        held[::4096] = b"1" * len(held[::4096])
        time.sleep(600)
    if NAME == "time":
        signal.signal(signal.SIGTERM, lambda *_: tell("warned"))
        while True:
            time.sleep(1)
    if NAME == "steady":
        while not Path("outage.over").exists():
            time.sleep(0.2)
if NAME == "gpu":
    tell(f"{socket.gethostname()}:{os.environ.get('CUDA_VISIBLE_DEVICES')}")
OUTPUT.touch()
tell("finished")
